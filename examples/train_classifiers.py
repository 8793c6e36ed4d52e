"""Train the small classifier that reads generated CT: age, sex, race and tumour site, from whole CT with attributes.

    loss = sum over the four of cross-entropy of the cases whose value is known

It is the instrument of the paper's classification tables: whether the patient who was asked for can be read off the
CT. On phantoms race changes nothing, so that its head must stay at chance: that of always naming the commonest.

A segmenter (`train_segmenter.py`) measures the anatomy of every case once; the classifier learns from what it
measured, which takes seconds. What is drawn in a step follows from (seed, step, process) alone: a run that was killed
and resumed gives the weights of one that was not.

    accelerate launch examples/train_classifiers.py --phantom 2000 --max_train_steps 1000 --output_dir out/classifier
"""

import argparse
import functools
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
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration, gather_object, set_seed
from diffusers.optimization import get_scheduler
from huggingface_hub import snapshot_download
from tqdm.auto import tqdm

from guidegen_diffusers import Case, CaseDataset, Classifier3D, Segmenter3D, TorsoPhantom
from guidegen_diffusers.checkpoints import bundled_instrument
from guidegen_diffusers.metrics.features import weights_version
from guidegen_diffusers.models import ATTRIBUTES
from guidegen_diffusers.models.segmenter_3d import MEASURES
from guidegen_diffusers.phantom import SEEDS, torso_size


logger = get_logger(__name__)
STAGE = "classifier"
UNKNOWN = -100  # what the cross-entropy passes over


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the small classifier on whole CT with attributes.")
    parser.add_argument("--spacing", type=float, default=6.0, help="mm; of the phantoms, and what data must have")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train_data_dir", help="a data set as `guidegen prepare` and `guidegen phantom` write it")
    parser.add_argument("--dataset_name", help="the same on the Hub")
    parser.add_argument(
        "--phantom", type=int, metavar="N", help="the first N phantoms of the training seeds, on the fly"
    )
    parser.add_argument("--segmenter", default="bundled", help="what measures: bundled, or a folder")
    parser.add_argument("--hidden_channels", type=int, default=32, help="of each head")
    parser.add_argument("--dropout", type=float, default=0.5, help="share of the measures that a step leaves out")
    parser.add_argument("--train_batch_size", type=int, default=64, help="cases a process and step")
    parser.add_argument("--max_train_steps", type=int, required=True)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--lr_scheduler", default="cosine")
    parser.add_argument("--lr_warmup_steps", type=int, default=50)
    parser.add_argument("--adam_weight_decay", type=float, default=0.1)
    parser.add_argument("--max_grad_norm", type=float, default=1.0)
    parser.add_argument("--mixed_precision", choices=("no", "bf16", "fp16"), help="accelerate's setting unless given")
    parser.add_argument("--checkpointing_steps", type=int, default=500)
    parser.add_argument("--checkpoints_total_limit", type=int, default=1, help="0 keeps all")
    parser.add_argument("--resume_from_checkpoint", help="a checkpoint's folder, or latest")
    parser.add_argument("--validation_steps", type=int, default=500)
    parser.add_argument("--num_validation_cases", type=int, default=200)
    parser.add_argument("--report_to", help="tensorboard, wandb, ...; none unless given")
    args = parser.parse_args()
    if sum(value is not None for value in (args.train_data_dir, args.dataset_name, args.phantom)) != 1:
        parser.error("expected one of --train_data_dir, --dataset_name and --phantom.")
    return args


# ------------------------------------------------------------------------------------------------------------- data


class Patients:
    """Whole CT with attributes, of a data set or phantoms."""

    def __init__(self, args: argparse.Namespace, split: str):
        self.phantom, self.split = None, split
        if args.phantom is not None:
            self.phantom, self.count = TorsoPhantom(torso_size(args.spacing), args.spacing), args.phantom
        else:
            folder = args.train_data_dir or snapshot_download(args.dataset_name, repo_type="dataset")
            if split == "validation" and not Path(folder, split).is_dir():
                logger.warning(f"{folder} has no validation split; training cases are looked at instead.")
                split = "train"
            self.cases = CaseDataset(folder, split)
            self.count = len(self.cases)
            edges = self.cases.rows[0]["spacing"]
            if any(abs(edge - args.spacing) > 1e-3 for edge in edges):
                raise SystemExit(
                    f"{folder}: its voxels are {edges} mm; pass --spacing, or prepare it at {args.spacing}."
                )

    def __len__(self) -> int:
        return self.count

    def case(self, index: int) -> Case:
        if self.phantom is None:
            return self.cases.case(index)
        return self.phantom.sample(None, SEEDS[self.split][index])


def truth(attributes: dict) -> list[int]:
    """The place of each attribute's value, `UNKNOWN` where there is none; of several sites none is the site."""
    sites = attributes.get("sites") or []
    known = {**attributes, "site": sites[0] if len(sites) == 1 else None}
    return [values.index(known[name]) if known.get(name) in values else UNKNOWN for name, values in ATTRIBUTES.items()]


@torch.no_grad()
def measure(
    segmenter: Segmenter3D, patients: Patients, count: int, accelerator: Accelerator, what: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the segmenter measures of the first so many patients, and their `truth`, (count, 4).

    Each process measures its share, one case at a time, so that a case gives the same however many there are.
    """
    own = list(range(accelerator.process_index, min(count, len(patients)), accelerator.num_processes))
    classes = segmenter.config.num_classes
    measures, values = torch.empty(len(own), classes, MEASURES + classes), torch.empty(len(own), 4, dtype=torch.long)
    for row, i in enumerate(tqdm(own, what, disable=not accelerator.is_main_process)):
        case = patients.case(i)
        ct = torch.from_numpy(case.ct)[None].to(accelerator.device)
        with accelerator.autocast():
            measures[row] = segmenter.measure(ct)[0]
        values[row] = torch.tensor(truth(case.attributes))
    places, measures, values = zip(*gather_object([(own, measures, values)]), strict=True)
    in_order = np.argsort(np.concatenate(places))
    return torch.cat(measures)[in_order], torch.cat(values)[in_order]


def batch_of(step: int, count: int, accelerator: Accelerator, args: argparse.Namespace) -> list[int]:
    """The patients of a step and process: every epoch goes through all in an order of its own."""
    first = (step * accelerator.num_processes + accelerator.process_index) * args.train_batch_size
    places = range(first, first + args.train_batch_size)
    return [order(args.seed, place // count, count)[place % count] for place in places]


@functools.lru_cache(maxsize=2)
def order(seed: int, epoch: int, count: int) -> list[int]:
    return np.random.default_rng([seed, epoch]).permutation(count).tolist()


def mix(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


# -------------------------------------------------------------------------------------------------- loss and figures


def classification_loss(logits: tuple[torch.Tensor, ...], truth: torch.Tensor) -> torch.Tensor:
    """The sum of the attributes' cross-entropies, each the mean of the cases where `truth` (B, 4) is known."""
    total = torch.zeros((), device=truth.device)
    for of_one, target in zip(logits, truth.unbind(1), strict=True):
        known = (target != UNKNOWN).sum().clamp(min=1)  # a batch may know none
        total = total + F.cross_entropy(of_one.float(), target, ignore_index=UNKNOWN, reduction="sum") / known
    return total


@torch.no_grad()
def validate(classifier: Classifier3D, measures: torch.Tensor, values: torch.Tensor) -> dict[str, float]:
    """Accuracy of each attribute over held-out cases that have it, and what always naming the commonest would give."""
    scores = {}
    logits = classifier(measures.to(classifier.device), return_dict=False)
    for name, of_one, true in zip(ATTRIBUTES, logits, values.unbind(1), strict=True):
        known = true != UNKNOWN
        if known.any():
            scores[name] = (of_one.argmax(1).cpu() == true)[known].float().mean().item()
            scores[f"{name}_chance"] = (true[known].bincount().max() / known.sum()).item()
    return scores


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


def load_segmenter(args: argparse.Namespace) -> Segmenter3D:
    folder = args.segmenter
    if folder == "bundled" and (folder := bundled_instrument("segmenter", [args.spacing])) is None:
        raise SystemExit(f"--segmenter: none ships for {args.spacing:g} mm, expected a folder of train_segmenter.py.")
    segmenter = Segmenter3D.from_pretrained(folder)
    if abs(segmenter.config.spacing - args.spacing) > 1e-3:
        raise SystemExit(f"--segmenter: made for {segmenter.config.spacing:g} mm, expected {args.spacing:g} mm.")
    return segmenter.eval().to(memory_format=torch.channels_last_3d)


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
    patients, held_out = Patients(args, "train"), Patients(args, "validation")
    segmenter = load_segmenter(args).to(accelerator.device)
    measures, values = measure(segmenter, patients, len(patients), accelerator, "measures")
    unseen = measure(segmenter, held_out, args.num_validation_cases, accelerator, "of held-out cases")
    version, classes = weights_version(segmenter), segmenter.config.num_classes
    classifier = Classifier3D(args.spacing, version, classes, args.hidden_channels, args.dropout).train()
    classifier.standardize(measures)
    optimizer = torch.optim.AdamW(classifier.parameters(), args.learning_rate, weight_decay=args.adam_weight_decay)
    schedule = get_scheduler(
        args.lr_scheduler,
        optimizer,
        num_warmup_steps=args.lr_warmup_steps * accelerator.num_processes,
        num_training_steps=args.max_train_steps * accelerator.num_processes,
    )
    classifier, optimizer, schedule = accelerator.prepare(classifier, optimizer, schedule)
    if path is not None:
        accelerator.load_state(str(path))
        inner = schedule.scheduler  # the checkpoint brought its learning rate; the argument's counts
        inner.base_lrs = [args.learning_rate]
        optimizer.param_groups[0]["lr"] = args.learning_rate * inner.lr_lambdas[0](inner.last_epoch)
        logger.info(f"resumed from {path}")
    step, before, started = record["step"], record["seconds"], time.monotonic()
    if args.report_to:
        accelerator.init_trackers(STAGE, {key: str(value) for key, value in vars(args).items()})

    bar = tqdm(total=args.max_train_steps, initial=step, desc=STAGE, disable=not accelerator.is_main_process)
    while step < args.max_train_steps:
        torch.manual_seed(mix(args.seed, step, accelerator.process_index))  # what is dropped
        rows = batch_of(step, len(measures), accelerator, args)
        logits = classifier(measures[rows].to(accelerator.device), return_dict=False)
        loss = classification_loss(logits, values[rows].to(accelerator.device))
        refuse_non_finite(f"the loss is {loss.item()},", [loss], step, step)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(classifier.parameters(), args.max_grad_norm)
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
            refuse_non_finite("the weights are", classifier.parameters(), step, step)
            save_checkpoint(accelerator, args, record)
        if step % args.validation_steps == 0 and not finished:
            look(accelerator, classifier, unseen, args, record)
    look(accelerator, classifier, unseen, args, record)
    accelerator.end_training()


def look(
    accelerator: Accelerator,
    classifier,
    unseen: tuple[torch.Tensor, torch.Tensor],
    args: argparse.Namespace,
    record: dict,
) -> None:
    """Score the classifier as it is now, and leave it with the record of its training, whole or not at all."""
    if accelerator.is_main_process:
        plain = accelerator.unwrap_model(classifier).eval()
        scores = validate(plain, *unseen)
        partial, target = args.output_dir / ".classifier.partial", args.output_dir / "classifier"
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
