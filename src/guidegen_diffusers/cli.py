"""`guidegen`: the command line. `guidegen generate "The patient is ..." --output out` writes a case.

Each command is a thin wrapper of one call of the library. Heavy imports wait until a command needs them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """GuideGen: a clinical sentence becomes a torso label map and the CT that belongs to it."""


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """What the library says of bad input, without a traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        typer.secho(f"guidegen: {error}", fg="red", err=True)
        raise typer.Exit(1) from error


@app.command()
def generate(
    output: Annotated[Path, typer.Option(help="Folder of the case; with --num, of one folder a case.")],
    prompt: Annotated[str, typer.Argument(help="The clinical sentence; without one, a patient is drawn.")] = "",
    model: Annotated[
        str, typer.Option(help="A bundled pipeline, a folder, a Hub id, or an untrained configuration.")
    ] = "tiny",
    num: Annotated[int, typer.Option(min=1, help="How many cases to draw.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Case i is drawn from seed + i.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Steps of the CT stage.")] = None,
    mask_steps: Annotated[int | None, typer.Option(help="Steps of the mask stage.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance of the CT stage.")] = None,
    mask_guidance: Annotated[float | None, typer.Option(help="Guidance of the mask stage.")] = None,
    mask: Annotated[Path | None, typer.Option(help="A label map (NIfTI) to paint a CT on.")] = None,
    only: Annotated[Literal["mask"] | None, typer.Option(help="mask: stop after the label map.")] = None,
    raw_prompt: Annotated[bool, typer.Option("--raw-prompt", help="Send the text as it is.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace cases that exist.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps.")] = "cpu",
    dtype: Annotated[Literal["fp32", "bf16", "fp16"], typer.Option(help="Precision of the networks.")] = "fp32",
) -> None:
    """Draw cases from a sentence: CT and label map as NIfTI, a picture and a record of how they were made."""
    import torch

    from .case import Case

    folders = [output] if num == 1 else [output / f"case_{i:03d}" for i in range(num)]
    settings = {
        "num_inference_steps": steps,
        "mask_num_inference_steps": mask_steps,
        "guidance_scale": guidance,
        "mask_guidance_scale": mask_guidance,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    with _one_line_errors():
        for folder in folders:
            Case.check_free(folder, overwrite)
        pipe = _load(model, {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype], device)
        for i, folder in enumerate(folders):
            generator = torch.Generator().manual_seed(seed + i)
            if mask is None and not raw_prompt:
                typer.echo(f"understood: {pipe.read_prompts([prompt], generator)[0].render()}")
            result = pipe(
                prompt,
                mask=mask,
                output=only or "pair",
                raw_prompt=raw_prompt,
                generator=generator,
                **settings,
            )
            case = result.cases[0]
            case.save(folder, overwrite=overwrite)
            typer.echo(f"{folder}: " + ", ".join(sorted(f.name for f in folder.iterdir())))


def _load(model: str, dtype, device: str):
    """The pipeline of a folder, a bundled name or a Hub id, or an untrained one of a shipped configuration."""
    import torch

    from .checkpoints import available_checkpoints, bundled_checkpoint
    from .configs import available_configs
    from .pipelines import GuideGenPipeline

    if os.path.isdir(model) or model not in {*available_checkpoints(), *available_configs()}:
        pipe = GuideGenPipeline.from_pretrained(model, dtype=dtype)
    elif model in available_checkpoints():
        pipe = GuideGenPipeline.from_pretrained(bundled_checkpoint(model), dtype=dtype)
    else:
        torch.manual_seed(0)
        pipe = GuideGenPipeline.from_config(model).to(dtype)
        typer.secho(f"{model}: random weights, made to show the way; the volumes are noise.", fg="yellow", err=True)
    try:
        return pipe.to(device)
    except (AssertionError, NotImplementedError) as error:  # how torch says that it was built without the device
        raise RuntimeError(f"--device {device}: {error}") from error


@app.command()
def parse(
    texts: Annotated[list[str], typer.Argument(help="Free text, a line of JSON for each; - is the standard input.")],
) -> None:
    """What a text says of patient and tumour, as JSON: null for what it leaves open, and the sites it allows."""
    import sys

    from .prompts import ClinicalPrompt

    for text in texts:
        text = sys.stdin.buffer.read().decode("utf-8", errors="replace") if text == "-" else text
        typer.echo(json.dumps(ClinicalPrompt.parse(text).as_dict()))


@app.command()
def phantom(
    output: Annotated[Path, typer.Option(help="Folder of the data set.")],
    count: Annotated[int, typer.Option(min=1, help="How many cases.")],
    spacing: Annotated[float, typer.Option(help="Edge of a voxel in mm.")] = 6.0,
    size: Annotated[
        tuple[int, int, int] | None, typer.Option(help="Voxels X Y Z; 384 x 288 x 576 mm unless given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Place of the first case in the seeds of its split.")] = 0,
    split: Annotated[str, typer.Option(help="train, validation or test; they share no seed.")] = "train",
    prompt: Annotated[str | None, typer.Option(help="What every case is to show; drawn unless given.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make all cases anew.")] = False,
) -> None:
    """Write procedural torsos, CT and labels, as a data set. Goes on where it was stopped."""
    from .data.phantom_set import write_phantoms
    from .phantom import torso_size

    with _one_line_errors():
        size = size or torso_size(spacing)
        made = write_phantoms(output, count, size, spacing, seed, split, prompt, workers, overwrite)
    typer.echo(f"{output / split}: {made} written, {count - made} were there")


@app.command()
def prepare(
    output: Annotated[Path, typer.Option(help="Folder of the data set.")],
    ct: Annotated[list[Path], typer.Option(help="NIfTI file, or folder of files, cases or DICOM series; repeatable.")],
    labels: Annotated[list[Path], typer.Option(help="Label maps, or folders of masks, named like the CTs.")],
    tumor: Annotated[list[Path] | None, typer.Option(help="Tumour masks, named like the CTs; they override.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Table (CSV, TSV, JSONL) of prompts or clinical fields.")
    ] = None,
    spacing: Annotated[float, typer.Option(help="Edge of a voxel in mm.")] = 3.0,
    size: Annotated[tuple[int, int, int], typer.Option(help="Voxels X Y Z.")] = (128, 96, 192),
    labels_version: Annotated[
        str, typer.Option(help="Ids of label files: auto, 1 or 2 (TotalSegmentator), ours.")
    ] = "auto",
    tumor_labels: Annotated[
        list[int] | None, typer.Option(help="Ids of the tumour in its masks; any above 0.")
    ] = None,
    val_fraction: Annotated[float, typer.Option(help="Share of cases for validation.")] = 0.1,
    test_fraction: Annotated[float, typer.Option(help="Share of cases for the test.")] = 0.1,
    min_organs: Annotated[int, typer.Option(min=0, help="Refuse cases with fewer organs in view.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make all cases anew.")] = False,
) -> None:
    """Bring real CT and label maps into the form that training reads. Goes on where it was stopped."""
    from .data.prepare import prepare as run

    with _one_line_errors():
        summary = run(
            ct,
            labels,
            output,
            tumor=tumor or (),
            prompts=prompts,
            spacing=spacing,
            size=size,
            labels_version=labels_version,
            tumor_labels=tumor_labels or (),
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            min_organs=min_organs,
            workers=workers,
            overwrite=overwrite,
        )
    typer.echo(f"{output}: {summary}; report.csv has a line for each")


if __name__ == "__main__":
    app()
