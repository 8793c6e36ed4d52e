"""`guidegen`: the command line. `guidegen generate "The patient is ..." --output out` writes a case.

Each command is a thin wrapper of one call of the library. Heavy imports wait until a command needs them.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from .checkpoints import DEFAULT


Dtype = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(help="Precision of the networks; auto: bf16 where the device has it in hardware, else fp32."),
]

atexit.register(gc.freeze)  # at its end Python looks for garbage in all that was imported: two seconds for nothing
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
    ] = DEFAULT,
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
    dtype: Dtype = "auto",
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
        pipe = _load(model, dtype, device)
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


def _precision(dtype: str, device: str):
    import torch

    if dtype == "auto":
        cpu = getattr(torch.cpu, "get_capabilities", dict)()  # older torch does not say
        cpu = cpu.get("amx_bf16") or cpu.get("avx512_bf16")
        cuda = device.startswith("cuda") and torch.cuda.is_available() and torch.cuda.is_bf16_supported(False)
        dtype = "bf16" if (device == "cpu" and cpu) or cuda else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]


def _load(model: str, dtype: str, device: str):
    """The pipeline of a folder, a bundled name or a Hub id, or an untrained one of a shipped configuration."""
    import torch

    from .checkpoints import available_checkpoints, bundled_checkpoint
    from .configs import available_configs
    from .pipelines import GuideGenPipeline

    dtype = _precision(dtype, device)
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


@app.command()
def synthesize(
    output: Annotated[Path, typer.Option(help="Folder of the set; for nnunet called Dataset101_Name.")],
    prompts: Annotated[
        Path | None, typer.Option(help="File of prompts: text (one a line), JSONL or CSV; the prior unless given.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="How many cases; one a prompt of the file.")] = None,
    sites: Annotated[
        list[str] | None, typer.Option(help="Organ (lung, kidney, colon), site, or none, of the prior; repeatable.")
    ] = None,
    balance: Annotated[Literal["sites"] | None, typer.Option(help="sites: each as often as the others.")] = None,
    form: Annotated[
        Literal["nifti", "nnunet", "datasets"], typer.Option("--format", help="What the set is to be read by.")
    ] = "nifti",
    classes: Annotated[
        list[str] | None, typer.Option(help="nnunet: all, organs, tumor, or names of classes; repeatable.")
    ] = None,
    regions: Annotated[bool, typer.Option("--regions", help="nnunet: regions, tumours by organ.")] = False,
    model: Annotated[
        str, typer.Option(help="A bundled pipeline, a folder, a Hub id, or an untrained configuration.")
    ] = DEFAULT,
    seed: Annotated[int, typer.Option(min=0, help="Of the set; no two cases or splits share a draw.")] = 0,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    gate: Annotated[bool, typer.Option(help="Refuse cases without the prompted site or of no body's organs.")] = True,
    redraws: Annotated[int, typer.Option(min=0, help="How often a refused case is drawn again.")] = 3,
    batch: Annotated[int, typer.Option(min=1, help="Cases drawn at once.")] = 1,
    steps: Annotated[int | None, typer.Option(help="Steps of the CT stage.")] = None,
    mask_steps: Annotated[int | None, typer.Option(help="Steps of the mask stage.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance of the CT stage.")] = None,
    mask_guidance: Annotated[float | None, typer.Option(help="Guidance of the mask stage.")] = None,
    push_to_hub: Annotated[str | None, typer.Option(help="Repository to upload the complete set to, private.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of each process, on a CPU; they belong to the set.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda (one for each process), mps.")] = "cpu",
    dtype: Dtype = "auto",
) -> None:
    """Make a set of cases to train on, checked and counted. Goes on where it was stopped; many processes share it."""
    import torch

    from . import data
    from .synthesis import Gate, NiftiForm, NnunetForm, ParquetForm, Plan, parquet
    from .synthesis import synthesize as run

    # as torchrun, and accelerate through it, numbers processes; they need not talk to each other
    rank, world, place = (int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    settings = {
        "num_inference_steps": steps,
        "mask_num_inference_steps": mask_steps,
        "guidance_scale": guidance,
        "mask_guidance_scale": mask_guidance,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    with _one_line_errors():
        if (classes or regions) and form != "nnunet":
            raise ValueError(f"--classes, --regions: got --format {form}, expected nnunet.")
        if push_to_hub and form == "nnunet":
            raise ValueError("--push-to-hub: got --format nnunet, expected nifti or datasets.")
        if prompts is not None and (sites or balance):
            raise ValueError("--sites, --balance: got them with --prompts, whose prompts say where tumours are.")
        if prompts is None and count is None:
            raise ValueError("--count: got none, expected how many cases the prior is to draw (or --prompts).")
        if prompts is not None:
            plan = Plan.from_file(prompts, count, seed, split)
        else:
            plan = Plan.from_prior(count, sites or (), balance, seed, split)
        written = {
            "nifti": NiftiForm,
            "datasets": ParquetForm,
            "nnunet": lambda: NnunetForm(classes or ["all"], regions),
        }
        torch.set_num_threads(threads)
        device = f"cuda:{place}" if device == "cuda" else device
        pipe = _load(model, dtype, device)
        pipe.set_progress_bar_config(disable=True)
        summary = run(
            pipe,
            plan,
            output,
            written[form](),
            Gate() if gate else None,
            redraws,
            batch,
            rank,
            max(world, 1),
            **settings,
        )
        typer.echo(f"{output}: {summary}")
        if push_to_hub and summary.closed:
            push = data.push_to_hub if form == "nifti" else parquet.push_to_hub
            typer.echo(push(output, push_to_hub))


@app.command()
def evaluate(
    real: Annotated[Path, typer.Option(help="Real cases that no training saw: a data set, its split, or cases.")],
    synthetic: Annotated[Path, typer.Option(help="Generated cases, on the same grid.")],
    output: Annotated[Path, typer.Option(help="Folder of the report.")],
    train: Annotated[
        Path | None, typer.Option(help="What the generator was trained on, for the audit of copies.")
    ] = None,
    segmenter: Annotated[
        str, typer.Option(help="What reads the CTs: bundled, none, or a folder or Hub id (train_segmenter.py).")
    ] = "bundled",
    classifier: Annotated[
        str,
        typer.Option(
            help="What reads the patients: bundled (beside the bundled segmenter), none, a folder or a Hub id."
        ),
    ] = "bundled",
    predictions: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Another segmenter's readings of both sets, real first.")
    ] = None,
    predictions_version: Annotated[
        str, typer.Option(help="Ids of predictions: auto, 1 or 2 (TotalSegmentator), ours.")
    ] = "auto",
    slices: Annotated[
        tuple[str, Path] | None, typer.Option(help="2-D network of torchvision and its weights, for FID in 3 planes.")
    ] = None,
    video: Annotated[
        tuple[str, Path] | None, typer.Option(help="Video network of torchvision and its weights, for FVD.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="The first so many cases of each set.")] = None,
    pictures: Annotated[int, typer.Option(min=0, help="How many of the worst and best cases are drawn.")] = 3,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report that exists.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps.")] = "cpu",
) -> None:
    """Hold a synthetic set against a real one: prompts, anatomy, intensity, distances, copies; one report."""
    from .checkpoints import bundled_instrument
    from .evaluation import CaseSet
    from .evaluation import evaluate as run
    from .metrics import SliceFeatures, VideoFeatures
    from .models import Classifier3D, Segmenter3D

    with _one_line_errors():
        networks = {}
        for kind, wanted in (("segmenter", Segmenter3D), ("classifier", Classifier3D)):
            source = {"segmenter": segmenter, "classifier": classifier}[kind]
            if kind == "classifier" and source == "bundled" and segmenter != "bundled":
                source = None  # it reads what the bundled segmenter measures
            if source == "bundled":
                source = bundled_instrument(kind, CaseSet(real).spacing)
            networks[kind] = None if source in (None, "none") else wanted.from_pretrained(source).to(device)
        report = run(
            real,
            synthetic,
            output,
            **networks,
            train=train,
            predictions=predictions,
            predictions_scheme=predictions_version,
            slices=None if slices is None else SliceFeatures(*slices, device=device),
            video=None if video is None else VideoFeatures(*video, device=device),
            limit=limit,
            pictures=pictures,
            overwrite=overwrite,
        )
    asked = report["prompts"]["synthetic"]["as_prompted"]
    told = "no prompt says a site" if asked is None else f"site as prompted {asked['share']:.1%} of {asked['of']}"
    typer.echo(f"{output}: {told}; report.md says the rest")


if __name__ == "__main__":
    app()
