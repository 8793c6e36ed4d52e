"""The model card of a pipeline, written from the pipeline's own config: what it makes, of what, and how to run it."""

from __future__ import annotations

from huggingface_hub import ModelCard, ModelCardData
from torch import nn

from ..labels import CLASSES


__all__ = ["guidegen_model_card"]


def guidegen_model_card(pipeline, repo_id: str, training: str = "") -> str:
    """Markdown with the Hub's metadata on top; `training` tells what the weights learned from, and how well."""
    data = ModelCardData(
        library_name="guidegen_diffusers",
        tags=["guidegen", "diffusers", "medical-imaging", "computed-tomography", "synthetic"],
    )
    rows = [
        f"| `{name}` | {type(part).__name__} | {_parameters(part)} |"
        for name, part in pipeline.components.items()
        if part is not None
    ]
    return str(
        ModelCard(
            f"---\n{data.to_yaml()}\n---\n\n"
            + _BODY.format(
                title=repo_id.split("/")[-1],
                repo_id=repo_id,
                grid=_grid(pipeline),
                components="\n".join(rows),
                classes=", ".join(f"{c.id} {c.name}" for c in CLASSES),
                training=training or _UNKNOWN,
            )
        )
    )


def _grid(pipeline) -> str:
    if pipeline.sample_size is None:
        return f"voxels of {pipeline.config.spacing:g} mm"
    size, spacing = pipeline.sample_size, pipeline.config.spacing
    extent = " x ".join(f"{n * spacing:g}" for n in size)
    return f"{' x '.join(map(str, size))} voxels of {spacing:g} mm ({extent} mm, RAS)"


def _parameters(part) -> str:
    if not isinstance(part, nn.Module):
        return ""
    count = sum(p.numel() for p in part.parameters())
    return f"{count / 1e6:.2f} M parameters" if count >= 10_000 else f"{count:,} parameters"


_BODY = """# {title}

A [GuideGen](https://arxiv.org/abs/2403.07247) pipeline: a clinical sentence becomes a label map of the torso (19
organs and a tumour) and the CT that belongs to it, as a pair of NIfTI files on one affine.

```python
import guidegen_diffusers
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{repo_id}", use_safetensors=True)
case = pipe("The patient is a white male. In this CT scan, the condition is described as lung cancer.").cases[0]
case.save("case")  # ct.nii.gz, labels.nii.gz, preview.png, case.json
```

## What it makes

- {grid}
- CT in HU (`int16`) and class ids (`uint8`): {classes}.

## What it is made of

| component | class | size |
|---|---|---|
{components}

{training}

## Limits

The volumes are synthetic: they show no patient and must not inform the care of one.
"""

_UNKNOWN = """## Training

What the weights were trained on, and how well, is for whoever trained them to state here; this card was written from
the pipeline's configuration alone."""
