"""Join what the training scripts left into one pipeline, in half precision, with a card that tells how it was made.

    python examples/assemble_pipeline.py --tcss out/tcss/pipeline --lfg out/lfg/pipeline --cae out/cae/pipeline \\
        --text_encoder out/text-encoder --measured out/measured.json --output_dir out/torso-6mm

The autoencoder is that of `--cae`; its encoder and codebook must be those whose latents the LFG pipeline was trained
on, its decoder may have been polished since. `--text_encoder` adds the record of its training to the card.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

import torch

from guidegen_diffusers import CaseDataset, GuideGenPipeline, load_config
from guidegen_diffusers.phantom import SEEDS
from guidegen_diffusers.pipelines import guidegen_model_card


RECORDS = {"text_encoder": "training_text_encoder.json", "tcss": "training_tcss.json"}
RECORDS |= {"cae": "training_cae.json", "lfg": "training_lfg.json"}
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Join trained stages into one pipeline.")
    parser.add_argument("--tcss", type=Path, required=True, help="pipeline that train_tcss.py left")
    parser.add_argument("--lfg", type=Path, required=True, help="pipeline that train_lfg.py left")
    parser.add_argument("--cae", type=Path, required=True, help="pipeline that train_cae.py left")
    parser.add_argument("--text_encoder", type=Path, help="folder that train_text_encoder.py left")
    parser.add_argument("--measured", type=Path, help="figures of measure_pipeline.py")
    parser.add_argument("--dtype", default="fp16", choices=DTYPES)
    parser.add_argument("--output_dir", type=Path, required=True)
    return parser.parse_args()


def read_record(folder: Path, name: str) -> dict | None:
    """The record of a training run, with that of the run that it went on from, `before`."""
    if not (folder / name).is_file():
        return None
    record = json.loads((folder / name).read_text())
    source = record["arguments"].get("pretrained_model_name_or_path")
    if not source or "before" in record:  # an assembled pipeline's record tells it
        return record
    before = read_record(Path(source), name)
    return record if before is None else record | {"before": before}


def runs(record: dict) -> list[dict]:
    """The runs that made a stage, the first one first."""
    return [*(runs(record["before"]) if "before" in record else []), record]


def data_of(arguments: dict) -> str | None:
    """What a run was shown, in words; None for text alone."""
    count, folder = arguments.get("phantom"), arguments.get("train_data_dir")
    if folder and Path(folder).is_dir():
        rows = CaseDataset(folder).rows
        if sorted(row["seed"] for row in rows) != list(SEEDS["train"][: len(rows)]):
            return f"{len(rows):,} cases of {Path(folder).name}"
        count = len(rows)
    if not count:
        return arguments.get("dataset_name")
    seeds = f"training seeds 0 to {count - 1:,}"
    return f"procedural torsos (`TorsoPhantom`, {seeds}), no patient's data: it draws such torsos"


def card_section(records: dict[str, dict], measured: dict[str, str]) -> str:
    """How each stage was trained, and what came out, as Markdown."""
    lines = ["## Training", "", "| stage | steps x batch | hours | on | seed |", "|---|---|---|---|---|"]
    for run in (run for record in records.values() for run in runs(record)):
        given = run["arguments"]
        batch = given["train_batch_size"] * given.get("gradient_accumulation_steps", 1) * run.get("processes", 1)
        hours = f"{run['seconds'] / 3600:.1f}"
        lines.append(
            f"| {run['stage']} | {run['step']:,} x {batch} | {hours} | {run.get('hardware', '')} | {given['seed']} |"
        )
    seen = {data_of(run["arguments"]) for record in records.values() for run in runs(record)} - {None}
    lines += ["", *(f"Trained on {data}." for data in sorted(seen))]
    if measured:
        lines += ["", "## Measured", "", "| figure | value |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in measured.items()]
    return "\n".join(lines)


def main() -> None:
    args = parse_args()
    stages = {name: getattr(args, name) for name in RECORDS if getattr(args, name) is not None}
    records = {}
    for name, folder in stages.items():
        records[name] = read_record(folder, RECORDS[name])
        if records[name] is None:
            raise SystemExit(f"--{name}: {folder} holds no {RECORDS[name]}, expected what the training script left.")
    measured = json.loads(args.measured.read_text())["card"] if args.measured else {}

    mask = GuideGenPipeline.from_pretrained(args.tcss, dtype=DTYPES[args.dtype])
    image = GuideGenPipeline.from_pretrained(args.lfg, dtype=DTYPES[args.dtype])
    encoders = (p.text_encoder.state_dict().values() for p in (mask, image))
    if not all(torch.equal(a, b) for a, b in zip(*encoders, strict=True)):
        raise SystemExit("--tcss, --lfg: were trained with different text encoders, expected the same.")
    vae = GuideGenPipeline.from_pretrained(args.cae, dtype=DTYPES[args.dtype]).vae
    trained_on = image.vae.state_dict()
    same = vae.config.scaling_factor == image.vae.config.scaling_factor and all(
        torch.equal(tensor, trained_on[name])
        for name, tensor in vae.state_dict().items()
        if name.startswith(("encoder", "quantizer.codebook"))
    )
    if not same:
        raise SystemExit("--cae, --lfg: the LFG was trained on another encoder's latents, expected this one's.")
    pipe = GuideGenPipeline(
        tokenizer=mask.tokenizer,
        text_encoder=mask.text_encoder,
        mask_unet=mask.mask_unet,
        mask_scheduler=mask.mask_scheduler,
        vae=vae,
        semantic_encoder=image.semantic_encoder,
        unet=image.unet,
        scheduler=image.scheduler,
        latent_spread=image.latent_spread,
        sample_size=mask.sample_size,
        spacing=mask.config.spacing,
        max_sequence_length=mask.config.max_sequence_length,
        sampling=load_config(records["tcss"]["config"])["sampling"],
    )
    name = args.output_dir.name
    partial = args.output_dir.with_name(f".{name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / "README.md").write_text(guidegen_model_card(pipe, name, card_section(records, measured)))
    pipe.save_pretrained(partial)
    for stage, record in records.items():
        (partial / RECORDS[stage]).write_text(json.dumps(record, indent=2) + "\n")
    shutil.rmtree(args.output_dir, ignore_errors=True)
    os.replace(partial, args.output_dir)
    size = sum(f.stat().st_size for f in args.output_dir.rglob("*") if f.is_file())
    print(f"{args.output_dir}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
