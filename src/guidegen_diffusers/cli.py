"""`guidegen`: the command line. `guidegen generate "The patient is ..." --output out` writes a case."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """GuideGen: a clinical sentence becomes a torso label map and the CT that belongs to it."""


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="The clinical sentence.")],
    output: Annotated[Path, typer.Option(help="Folder of the case; with --num, of one folder a case.")],
    model: Annotated[str, typer.Option(help="A folder, a Hub id, or a shipped (untrained) configuration.")] = "tiny",
    num: Annotated[int, typer.Option(min=1, help="How many cases to draw.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Case i is drawn from seed + i.")] = 0,
    steps: Annotated[int, typer.Option(help="Steps of the CT stage.")] = 50,
    mask_steps: Annotated[int, typer.Option(help="Steps of the mask stage.")] = 100,
    guidance: Annotated[float, typer.Option(help="Guidance of the CT stage.")] = 2.5,
    mask_guidance: Annotated[float, typer.Option(help="Guidance of the mask stage.")] = 2.0,
    mask: Annotated[Path | None, typer.Option(help="A label map (NIfTI) to paint a CT on.")] = None,
    only_mask: Annotated[bool, typer.Option("--only-mask", help="Stop after the label map.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace cases that exist.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps.")] = "cpu",
) -> None:
    """Draw cases from a sentence: CT and label map as NIfTI, a picture and a record of how they were made."""
    import torch

    from .case import Case
    from .configs import available_configs
    from .pipelines import GuideGenPipeline

    folders = [output] if num == 1 else [output / f"case_{i:03d}" for i in range(num)]
    try:
        for folder in folders:
            Case.check_free(folder, overwrite)
        if model in available_configs() and not os.path.isdir(model):
            torch.manual_seed(0)
            pipe = GuideGenPipeline.from_config(model)
            typer.secho(
                f"{model}: random weights, made to show the way; the volumes are noise.", fg="yellow", err=True
            )
        else:
            pipe = GuideGenPipeline.from_pretrained(model)
        pipe = _to(pipe, device)
        for i, folder in enumerate(folders):
            result = pipe(
                prompt,
                mask=mask,
                output="mask" if only_mask else "pair",
                num_inference_steps=steps,
                mask_num_inference_steps=mask_steps,
                guidance_scale=guidance,
                mask_guidance_scale=mask_guidance,
                generator=torch.Generator().manual_seed(seed + i),
            )
            result.cases[0].save(folder, overwrite=overwrite)
            typer.echo(f"{folder}: " + ", ".join(sorted(f.name for f in folder.iterdir())))
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        typer.secho(f"guidegen: {error}", fg="red", err=True)
        raise typer.Exit(1) from error


def _to(pipe, device: str):
    try:
        return pipe.to(device)
    except (AssertionError, NotImplementedError) as error:  # how torch says that it was built without the device
        raise RuntimeError(f"--device {device}: {error}") from error


if __name__ == "__main__":
    app()
