"""Train the small segmenter that reads generated CT: its organs and tumour, from crops of labelled CT.

    loss = cross-entropy, tumour voxels weighted, + 1 - mean soft Dice of the classes in the crop

It is the instrument of image-mask alignment, and what `evaluate_usability.py` trains on one data set and another.
What is drawn in a step follows from (seed, step, process) alone: a run that was killed and resumed gives the weights
of one that was not.

    accelerate launch examples/train_segmenter.py --phantom 4000 --max_train_steps 3000 --output_dir out/segmenter
"""

import argparse
import json
import os
import platform
import shutil
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration, set_seed
from diffusers.optimization import get_scheduler
from huggingface_hub import snapshot_download
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from guidegen_diffusers import Case, CaseDataset, Segmenter3D, TorsoPhantom
from guidegen_diffusers.labels import NUM_CLASSES, TUMOR
from guidegen_diffusers.metrics import dice
from guidegen_diffusers.phantom import SEEDS, torso_size


logger = get_logger(__name__)
STAGE = "segmenter"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the small segmenter on labelled CT.")
    parser.add_argument("--spacing", type=float, default=6.0, help="mm; of the phantoms, and what data must have")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train_data_dir", help="a data set as `guidegen prepare` and `guidegen phantom` write it")
    parser.add_argument("--dataset_name", help="the same on the Hub")
    parser.add_argument(
        "--phantom", type=int, metavar="N", help="the first N phantoms of the training seeds, on the fly"
    )
    parser.add_argument("--block_out_channels", type=int, nargs="+", default=[16, 32, 64, 96])
    parser.add_argument("--crop_size", type=int, nargs=3, help="voxels of a crop; the whole volume unless given")
    parser.add_argument("--tumor_weight", type=float, default=5.0, help="of tumour voxels in the cross-entropy")
    parser.add_argument("--train_batch_size", type=int, default=1, help="crops a process and step")
    parser.add_argument("--dataloader_num_workers", type=int, default=0)
    parser.add_argument("--max_train_steps", type=int, required=True)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--lr_scheduler", default="cosine")
    parser.add_argument("--lr_warmup_steps", type=int, default=50)
    parser.add_argument("--adam_weight_decay", type=float, default=1e-4)
    parser.add_argument("--max_grad_norm", type=float, default=1.0)
    parser.add_argument("--mixed_precision", choices=("no", "bf16", "fp16"), help="accelerate's setting unless given")
    parser.add_argument("--checkpointing_steps", type=int, default=500)
    parser.add_argument("--checkpoints_total_limit", type=int, default=1, help="0 keeps all")
    parser.add_argument("--resume_from_checkpoint", help="a checkpoint's folder, or latest")
    parser.add_argument("--validation_steps", type=int, default=500)
    parser.add_argument("--num_validation_cases", type=int, default=8)
    parser.add_argument("--report_to", help="tensorboard, wandb, ...; none unless given")
    args = parser.parse_args()
    if sum(value is not None for value in (args.train_data_dir, args.dataset_name, args.phantom)) != 1:
        parser.error("expected one of --train_data_dir, --dataset_name and --phantom.")
    return args


# ------------------------------------------------------------------------------------------------------------- data


class Crops(Dataset):
    """Random crops of CT and labels; the crop follows from the place in the run."""

    def __init__(self, args: argparse.Namespace, split: str):
        self.phantom, self.split = None, split
        if args.phantom is not None:
            size = torso_size(args.spacing)
            self.phantom, self.count = TorsoPhantom(size, args.spacing), args.phantom
        else:
            folder = args.train_data_dir or snapshot_download(args.dataset_name, repo_type="dataset")
            if split == "validation" and not Path(folder, split).is_dir():
                logger.warning(f"{folder} has no validation split; training cases are looked at instead.")
                split = "train"
            self.cases = CaseDataset(folder, split)
            self.count, size = len(self.cases), tuple(self.cases.rows[0]["shape"])
            edges = self.cases.rows[0]["spacing"]
            if any(abs(edge - args.spacing) > 1e-3 for edge in edges):
                raise SystemExit(
                    f"{folder}: its voxels are {edges} mm; pass --spacing, or prepare it at {args.spacing}."
                )
        self.crop = tuple(args.crop_size or size)
        factor = 2 ** (len(args.block_out_channels) - 1)
        if any(not factor <= side <= n or side % factor for side, n in zip(self.crop, size, strict=True)):
            raise SystemExit(f"--crop_size: got {self.crop}, expected multiples of {factor} within {size}.")

    def __len__(self) -> int:
        return self.count

    def case(self, index: int) -> Case:
        if self.phantom is None:
            return self.cases.case(index)
        return self.phantom.sample(None, SEEDS[self.split][index])

    def __getitem__(self, place: tuple[int, int]) -> dict:
        index, seed = place
        case, rng = self.case(index), np.random.default_rng(seed)
        starts = [rng.integers(n - side + 1) for n, side in zip(case.ct.shape, self.crop, strict=True)]
        box = tuple(slice(start, start + side) for start, side in zip(starts, self.crop, strict=True))
        return {"ct": torch.from_numpy(case.ct[box].copy()), "labels": torch.from_numpy(case.labels[box].copy())}


class Places:
    """Batches of (case, seed of its draws) for one process, from a micro-step on: every epoch a new order."""

    def __init__(self, count: int, size: int, accelerator: Accelerator, seed: int, first: int):
        self.count, self.size, self.seed, self.first = count, size, seed, first
        self.process, self.processes = accelerator.process_index, accelerator.num_processes

    def __iter__(self):
        step, epoch, order = self.first, -1, None
        while True:
            batch = []
            for i in range(self.size):
                place = (step * self.processes + self.process) * self.size + i
                if place // self.count != epoch:
                    epoch = place // self.count
                    order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
                batch.append((int(order[place % self.count]), mix(self.seed, place)))
            yield batch
            step += 1


def mix(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


# -------------------------------------------------------------------------------------------------- loss and figures


def segmentation_loss(logits: torch.Tensor, labels: torch.Tensor, tumor_weight: float) -> torch.Tensor:
    """Cross-entropy, and one minus the mean soft Dice of the classes that are there."""
    weights = torch.ones(NUM_CLASSES, device=logits.device)
    weights[TUMOR] = tumor_weight
    cross_entropy = F.cross_entropy(logits, labels.long(), weights)
    p = logits.softmax(1)
    truth = F.one_hot(labels.long(), NUM_CLASSES).movedim(-1, 1)
    both, sizes = ((x).flatten(2).sum((0, 2)) for x in (p * truth, p + truth))
    there = truth.flatten(2).any(2).any(0)
    return cross_entropy + 1 - (2 * both / sizes)[there].mean()


@torch.no_grad()
def validate(segmenter: Segmenter3D, crops: Crops, count: int) -> dict[str, float]:
    """Mean Dice of each class over whole held-out cases."""
    found: dict[str, list[float]] = {}
    for i in range(min(count, len(crops))):
        case = crops.case(i)
        made = segmenter.segment(torch.from_numpy(case.ct)[None].to(segmenter.device))[0].cpu().numpy()
        for name, value in dice(made, case.labels).items():
            found.setdefault(name, []).append(value)
    means = {name: float(np.mean(values)) for name, values in found.items()}
    return {"dice": float(np.mean(list(means.values()))), **means}


# ------------------------------------------------------------------------------------------------------ checkpoints


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, the oldest first; one that was being written has another name."""
    found = [p for p in folder.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))


def save_checkpoint(accelerator: Accelerator, args: argparse.Namespace, record: dict) -> None:
    target = args.output_dir / f"checkpoint-{record['step']}"
    partial = target.with_name(f".{target.name}.partial")
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (partial / "stage.json").write_text(json.dumps(record))
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
        others = [path for path in checkpoints(args.output_dir) if path != target]
        limit = args.checkpoints_total_limit or len(others) + 1  # 0 keeps them all
        for old in others[: max(0, len(others) + 1 - limit)]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def find_checkpoint(args: argparse.Namespace) -> tuple[Path | None, dict]:
    """The checkpoint to go on from, if there is one, and its record."""
    path = Path(args.resume_from_checkpoint) if args.resume_from_checkpoint else None
    if args.resume_from_checkpoint == "latest":
        path = next(reversed(checkpoints(args.output_dir)), None)
    if path is None and (there := checkpoints(args.output_dir)):  # a new run's would be pruned as the oldest
        raise SystemExit(
            f"--output_dir: {args.output_dir} holds {there[-1].name} of an earlier run; go on from it with "
            "--resume_from_checkpoint latest, or choose another folder."
        )
    if path is None:
        return None, {"stage": STAGE, "step": 0, "seconds": 0.0}
    if not (path / "stage.json").is_file():
        raise SystemExit(f"--resume_from_checkpoint: {path} holds no stage.json, expected a checkpoint of {STAGE}.")
    record = json.loads((path / "stage.json").read_text())
    if record["stage"] != STAGE:
        raise SystemExit(f"--resume_from_checkpoint: {path} is of {record['stage']}, expected {STAGE}.")
    return path, record


# ---------------------------------------------------------------------------------------------------------- training


def refuse_non_finite(what: str, values, step: int, batch: int) -> None:
    if not all(value.isfinite().all() for value in values):
        raise FloatingPointError(
            f"{STAGE}: {what} not finite at step {step}, batch {batch}; resume from the last checkpoint with a lower "
            "learning rate, or in bf16."
        )


def main() -> None:
    args = parse_args()
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        log_with=args.report_to,
        project_config=ProjectConfiguration(str(args.output_dir)),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=12))],
    )
    set_seed(args.seed)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    path, record = find_checkpoint(args)
    crops, held_out = Crops(args, "train"), Crops(args, "validation")
    segmenter = Segmenter3D(args.spacing, block_out_channels=tuple(args.block_out_channels))
    segmenter.train().to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.AdamW(segmenter.parameters(), args.learning_rate, weight_decay=args.adam_weight_decay)
    schedule = get_scheduler(
        args.lr_scheduler,
        optimizer,
        num_warmup_steps=args.lr_warmup_steps * accelerator.num_processes,
        num_training_steps=args.max_train_steps * accelerator.num_processes,
    )
    segmenter, optimizer, schedule = accelerator.prepare(segmenter, optimizer, schedule)
    if path is not None:
        accelerator.load_state(str(path))
        inner = schedule.scheduler  # the checkpoint brought its learning rate; the argument's counts
        inner.base_lrs = [args.learning_rate]
        optimizer.param_groups[0]["lr"] = args.learning_rate * inner.lr_lambdas[0](inner.last_epoch)
        logger.info(f"resumed from {path}")
    step, before, started = record["step"], record["seconds"], time.monotonic()
    places = Places(len(crops), args.train_batch_size, accelerator, args.seed, step)
    loader = DataLoader(crops, batch_sampler=places, num_workers=args.dataloader_num_workers)
    if args.report_to:
        accelerator.init_trackers(STAGE, {key: str(value) for key, value in vars(args).items()})

    bar = tqdm(total=args.max_train_steps, initial=step, desc=STAGE, disable=not accelerator.is_main_process)
    for batch in loader:
        if step >= args.max_train_steps:
            break
        ct, labels = batch["ct"].to(accelerator.device), batch["labels"].to(accelerator.device)
        logits = segmenter(ct, return_dict=False)[0].float()
        loss = segmentation_loss(logits, labels, args.tumor_weight)
        refuse_non_finite(f"the loss is {loss.item()},", [loss], step, step)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(segmenter.parameters(), args.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        step += 1
        record |= {"step": step, "seconds": before + time.monotonic() - started}
        bar.update()
        bar.set_postfix(loss=f"{loss.item():.3f}")
        if args.report_to:
            accelerator.log({"loss": loss.item()}, step=step)
        finished = step == args.max_train_steps
        if step % args.checkpointing_steps == 0 or finished:
            refuse_non_finite("the weights are", segmenter.parameters(), step, step)
            save_checkpoint(accelerator, args, record)
        if step % args.validation_steps == 0 and not finished:
            look(accelerator, segmenter, held_out, args, record)
    look(accelerator, segmenter, held_out, args, record)
    accelerator.end_training()


def look(accelerator: Accelerator, segmenter, held_out: Crops, args: argparse.Namespace, record: dict) -> None:
    """Score the segmenter as it is now, and leave it with the record of its training, whole or not at all."""
    if accelerator.is_main_process:
        plain = accelerator.unwrap_model(segmenter).eval()
        with accelerator.autocast():
            scores = validate(plain, held_out, args.num_validation_cases)
        partial, target = args.output_dir / ".segmenter.partial", args.output_dir / "segmenter"
        shutil.rmtree(partial, ignore_errors=True)
        plain.save_pretrained(partial)
        arguments = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
        made = record | {"hardware": hardware(accelerator), "scores": scores, "arguments": arguments}
        (partial / "training.json").write_text(json.dumps(made, indent=2))
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
        tqdm.write(f"step {record['step']}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
        if args.report_to:
            accelerator.log(scores, step=record["step"])
        plain.train()
    accelerator.wait_for_everyone()


def hardware(accelerator: Accelerator) -> str:
    if accelerator.device.type == "cuda":
        return torch.cuda.get_device_name(accelerator.device)
    return f"a {platform.machine()} CPU, threads: {torch.get_num_threads()}"


if __name__ == "__main__":
    main()
