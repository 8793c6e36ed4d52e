"""Stage I, TCSS: train the categorical diffusion over label maps, conditioned on the text.

    x_t ~ q(x_t | x_0): every voxel keeps its class with probability abar_t, else takes any
    logits = mask_unet(x_t, t, text)
    loss = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), closed form, plus a weighted cross-entropy on x_0

The defaults are the paper's. Site and layout are decided at high noise, where the KL is tiny, and tumours are few
voxels: `--cross_entropy_weight`, `--tumor_weight` and `--high_noise_share` give them their say. README.md has the
commands that made the bundled networks, and why.

What is drawn in a step (cases, paraphrases, t, noise, dropped prompts) follows from (seed, step, process) alone:
a run that was killed and resumed gives the weights of one that was not.

    accelerate launch examples/train_tcss.py --config torso-6mm --text_encoder out/text-encoder \\
        --phantom 12000 --max_train_steps 100000 --use_ema --output_dir out/tcss
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration, set_seed
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from huggingface_hub import snapshot_download
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer

from guidegen_diffusers import (
    Case,
    CaseDataset,
    CategoricalDDPMScheduler,
    CategoricalUNet3DConditionModel,
    ClinicalPrompt,
    GuideGenPipeline,
    TorsoPhantom,
    find_site,
    load_config,
)
from guidegen_diffusers.labels import NUM_CLASSES, TUMOR
from guidegen_diffusers.phantom import SEEDS, VERSION
from guidegen_diffusers.pipelines import guidegen_model_card
from guidegen_diffusers.prompts import NUM_STYLES, SITES


logger = get_logger(__name__)
STAGE = "TCSS"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train Stage I (TCSS): text to label maps.")
    parser.add_argument("--config", default="torso-6mm", help="names the networks: one of the package, or a JSON file")
    parser.add_argument("--pretrained_model_name_or_path", help="a pipeline whose mask network training goes on from")
    parser.add_argument("--detail_channels", type=int, default=0, help="adds detail to a network without it")
    parser.add_argument("--detail_only", action="store_true", help="trains the detail, all else stays as it is")
    parser.add_argument("--text_encoder", help="folder with tokenizer/ and text_encoder/, or any encoder on the Hub")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    data = parser.add_argument_group("data, one of")
    data.add_argument("--train_data_dir", help="a data set as `guidegen prepare` and `guidegen phantom` write it")
    data.add_argument("--dataset_name", help="the same on the Hub")
    data.add_argument("--phantom", type=int, metavar="N", help="the first N phantoms of the training seeds")
    data = parser.add_argument_group("what is shown")
    data.add_argument("--cache_dir", type=Path, help="where label maps are kept, on every node (default: the output)")
    data.add_argument("--raw_prompts", action="store_true", help="text as it is, no paraphrases of its attributes")
    data.add_argument("--canonical_share", type=float, default=0.5, help="share of canonical sentences")
    data.add_argument("--prompt_dropout", type=float, default=0.1)
    data.add_argument("--high_noise_share", type=float, default=0.0, help="share of t from the upper half only")
    data.add_argument("--train_batch_size", type=int, default=1, help="cases a process and micro-step")
    data.add_argument("--dataloader_num_workers", type=int, default=0)
    loss = parser.add_argument_group("loss")
    loss.add_argument("--kl_weight", type=float, default=1.0)
    loss.add_argument("--cross_entropy_weight", type=float, default=0.0)
    loss.add_argument(
        "--organ_balance", type=float, default=0.0, help="power of its rarity that weighs an organ in it"
    )
    loss.add_argument("--tumor_weight", type=float, default=1.0, help="of tumour voxels in the cross-entropy")
    run = parser.add_argument_group("optimization")
    run.add_argument("--max_train_steps", type=int, required=True, help="optimizer steps")
    run.add_argument("--gradient_accumulation_steps", type=int, default=1)
    run.add_argument("--gradient_checkpointing", action="store_true")
    run.add_argument("--learning_rate", type=float, default=1e-4)
    run.add_argument("--lr_scheduler", default="linear")
    run.add_argument("--lr_warmup_steps", type=int, default=0)
    run.add_argument("--adam_beta1", type=float, default=0.9)
    run.add_argument("--adam_beta2", type=float, default=0.999)
    run.add_argument("--adam_weight_decay", type=float, default=1e-5)
    run.add_argument("--adam_epsilon", type=float, default=1e-8)
    run.add_argument("--max_grad_norm", type=float, default=1.0)
    run.add_argument("--use_ema", action="store_true")
    run.add_argument("--ema_decay", type=float, default=0.999)
    run.add_argument("--mixed_precision", choices=("no", "bf16", "fp16"), help="accelerate's setting unless given")
    run = parser.add_argument_group("checkpoints and validation")
    run.add_argument("--checkpointing_steps", type=int, default=500)
    run.add_argument("--checkpoints_total_limit", type=int, default=2, help="0 keeps all")
    run.add_argument("--resume_from_checkpoint", help="a checkpoint's folder, or latest")
    run.add_argument("--validation_steps", type=int, default=1000)
    run.add_argument("--num_validation_prompts", type=int, default=12)
    run.add_argument("--validation_sampling_steps", type=int, default=25)
    run.add_argument("--validation_guidance_scale", type=float, default=2.0)
    run.add_argument("--report_to", help="tensorboard, wandb, ...; none unless given")
    run.add_argument("--logging_dir", default="logs")
    run.add_argument("--push_to_hub", action="store_true")
    run.add_argument("--hub_model_id")
    args = parser.parse_args()
    if sum(value is not None for value in (args.train_data_dir, args.dataset_name, args.phantom)) != 1:
        parser.error("expected one of --train_data_dir, --dataset_name and --phantom.")
    if args.phantom is not None and args.phantom < 1:
        parser.error(f"--phantom: got {args.phantom}, expected 1 or more.")
    if args.text_encoder is None and args.pretrained_model_name_or_path is None:
        parser.error("--text_encoder: expected a trained encoder (train_text_encoder.py) or one of the Hub.")
    if not args.kl_weight and not args.cross_entropy_weight:
        parser.error("--kl_weight, --cross_entropy_weight: both are 0, expected a loss.")
    if args.num_validation_prompts < 1:
        parser.error(f"--num_validation_prompts: got {args.num_validation_prompts}, expected 1 or more.")
    return args


@contextlib.contextmanager
def opening(option: str, value, expected: str):
    """What cannot be opened is told in one line."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise SystemExit(f"{option}: got {value}, expected {expected} ({' '.join(str(error).split())}).") from error


# ------------------------------------------------------------------------------------------------------------- data


class Cases(Dataset):
    """The label maps and texts that there are, phantoms or a data set, of one split."""

    def __init__(self, args: argparse.Namespace, size: tuple[int, ...], spacing: float, split: str = "train"):
        self.phantom, self.split, self.cases = None, split, None
        if args.phantom is not None:
            self.phantom, self.count = TorsoPhantom(size, spacing), args.phantom
            self.name = f"phantom-v{VERSION}-{args.phantom}-{'x'.join(map(str, size))}-{spacing:g}mm"
            return
        option = "--train_data_dir" if args.train_data_dir else "--dataset_name"
        with opening(option, args.train_data_dir or args.dataset_name, "a data set as `guidegen prepare` writes it"):
            folder = args.train_data_dir or snapshot_download(args.dataset_name, repo_type="dataset")
            if split == "validation" and not Path(folder, split).is_dir():
                logger.warning(f"{folder} has no validation split; training cases are looked at instead.")
                split = "train"
            self.cases = CaseDataset(folder, split)
        digest = hashlib.sha256(json.dumps(self.cases.rows).encode()).hexdigest()[:8]  # many a folder is called "data"
        self.count, self.name = len(self.cases), f"{Path(folder).resolve().name}-{split}-{digest}"
        shape, edges = tuple(self.cases.rows[0]["shape"]), self.cases.rows[0]["spacing"]
        if shape != size or any(abs(edge - spacing) > 1e-3 for edge in edges):
            raise SystemExit(
                f"{folder}: its cases are {shape} voxels of {edges} mm, {args.config} expects {size} of {spacing:g}; "
                "prepare them on that grid (`guidegen prepare --spacing --size`)."
            )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Case:
        if self.cases is not None:
            return self.cases.case(index)
        return self.phantom.sample(None, SEEDS[self.split][index], ct=False)


def cached(cases: Cases, folder: Path, workers: int) -> tuple[np.ndarray, list[str]]:
    """All label maps in one memory-mapped file, and their texts; written once, whole or not at all."""
    folder = folder / cases.name
    if not folder.exists():
        first = cases[0].labels
        folder.parent.mkdir(parents=True, exist_ok=True)
        need, free = len(cases) * first.nbytes, shutil.disk_usage(folder.parent).free
        if need > free:
            raise SystemExit(f"--cache_dir: {len(cases)} label maps take {need:,} bytes, {folder} has {free:,} free.")
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        labels = np.lib.format.open_memmap(partial / "labels.npy", "w+", np.uint8, (len(cases), *first.shape))
        texts = []
        loader = DataLoader(cases, batch_size=None, num_workers=workers, collate_fn=lambda case: case)
        for i, case in enumerate(tqdm(loader, "label maps")):
            labels[i] = case.labels
            texts.append(case.prompt)
        labels.flush()
        (partial / "texts.json").write_text(json.dumps(texts))
        os.replace(partial, folder)
    return np.load(folder / "labels.npy", mmap_mode="r"), json.loads((folder / "texts.json").read_text())


class LabelMaps(Dataset):
    """Label maps, each with a sentence drawn anew for its place in the run."""

    def __init__(self, labels: np.ndarray, texts: list[str], args: argparse.Namespace):
        self.labels, self.texts, self.args = labels, texts, args

    def __getitem__(self, place: tuple[int, int]) -> dict:
        index, seed = place
        draw = torch.Generator().manual_seed(seed)
        text = self.texts[index]
        if torch.rand((), generator=draw) < self.args.prompt_dropout:
            text = ""
        elif not self.args.raw_prompts:
            canonical = torch.rand((), generator=draw) < self.args.canonical_share
            style = 0 if canonical else int(torch.randint(NUM_STYLES, (), generator=draw))
            text = ClinicalPrompt.parse(text).render(style)
        return {"labels": torch.from_numpy(self.labels[index].copy()), "text": text}


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


# ------------------------------------------------------------------------------------------------- networks and loss


def load_text_encoder(source: str, width: int):
    """Tokenizer and encoder, from the folders of a pipeline or from one folder for both."""
    nested = Path(source, "text_encoder").is_dir()
    with opening("--text_encoder", source, "a folder of train_text_encoder.py, a pipeline or an encoder of the Hub"):
        tokenizer = AutoTokenizer.from_pretrained(source, subfolder="tokenizer" if nested else "")
        encoder = AutoModel.from_pretrained(
            source, subfolder="text_encoder" if nested else "", use_safetensors=True, dtype=torch.float32
        )
    if encoder.config.hidden_size != width:
        raise SystemExit(
            f"--text_encoder: its states are {encoder.config.hidden_size} wide, the mask network expects {width}."
        )
    return tokenizer, encoder.eval().requires_grad_(False)


def with_detail(unet: CategoricalUNet3DConditionModel, channels: int) -> CategoricalUNet3DConditionModel:
    """The network with detail, which changes nothing until it is trained."""
    if unet.detail is not None:
        raise SystemExit(f"--detail_channels: the network has {unet.config.detail_channels} of them already.")
    with opening("--detail_channels", channels, f"a multiple of {unet.config.norm_num_groups}"):
        wider = CategoricalUNet3DConditionModel.from_config(unet.config, detail_channels=channels)
    wider.load_state_dict(unet.state_dict() | {f"detail.{k}": v for k, v in wider.detail.state_dict().items()})
    return wider


def train_detail_only(unet: CategoricalUNet3DConditionModel) -> None:
    if unet.detail is None:
        raise SystemExit("--detail_only: the network has no detail; --detail_channels adds it.")
    unet.requires_grad_(False)
    unet.detail.requires_grad_(True)


@torch.no_grad()
def encode(tokenizer, encoder, texts: list[str], limit: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = tokenizer(texts, padding="longest", truncation=True, max_length=limit, return_tensors="pt").to(device)
    states = encoder(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
    return states, tokens["attention_mask"].bool()


def draw_timesteps(count: int, total: int, high_noise_share: float, draw: torch.Generator) -> torch.Tensor:
    """Uniform on 1..T, T included; a share of them on the upper half alone."""
    low = torch.where(torch.rand(count, generator=draw) < high_noise_share, total // 2, 0)
    return low + 1 + (torch.rand(count, generator=draw) * (total - low)).long()


def refuse_non_finite(what: str, values, step: int, batch: int) -> None:
    if not all(value.isfinite().all() for value in values):
        raise FloatingPointError(
            f"{STAGE}: {what} not finite at step {step}, batch {batch}; resume from the last checkpoint with a lower "
            "learning rate, or in bf16."
        )


def class_weights(labels: np.ndarray, organ_balance: float, tumor_weight: float) -> torch.Tensor:
    """(N,) weights: of an organ, how many times smaller than the largest it is in all maps together, to a power."""
    weights = torch.ones(NUM_CLASSES)
    weights[TUMOR] = tumor_weight
    if organ_balance:  # else there is no need to read them all
        counts = sum(np.bincount(item.ravel(), minlength=NUM_CLASSES) for item in labels)
        largest = counts[1:TUMOR].max()
        weights[1:TUMOR] = torch.tensor([(largest / n) ** organ_balance if n else 1.0 for n in counts[1:TUMOR]])
    return weights


def tcss_loss(logits, labels, noisy, t, scheduler, weights, args) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss, and its parts in nats a voxel."""
    parts = {}
    if args.kl_weight:
        parts["kl"] = scheduler.kl_divergence(logits, labels, noisy, t).mean()
    if args.cross_entropy_weight:
        parts["cross_entropy"] = scheduler.cross_entropy(logits, labels, noisy, t, weights).mean()
    return sum(getattr(args, f"{name}_weight") * part for name, part in parts.items()), parts


# ------------------------------------------------------------------------------------------------------- validation


@contextlib.contextmanager
def averaged(network: torch.nn.Module, average: EMAModel | None):
    """The network at rest, with the averaged weights where there are any; as it was afterwards."""
    network.eval()
    if average is not None:
        average.store(network.parameters())
        average.copy_to(network.parameters())
    yield
    if average is not None:
        average.restore(network.parameters())
    network.train()


@torch.no_grad()
def bound(pipe: GuideGenPipeline, cases: Cases, per_case: int = 4) -> float:
    """The variational bound, T times the mean KL over t spread evenly on 1..T, in nats a voxel."""
    scheduler, device, terms = pipe.mask_scheduler, pipe._execution_device, []
    total = len(scheduler)
    for i in range(min(len(cases), 4)):
        case = cases[i]
        text, mask = encode(pipe.tokenizer, pipe.text_encoder, [case.prompt], pipe.config.max_sequence_length, device)
        clean = torch.from_numpy(case.labels)[None].to(device)
        for k in range(per_case):
            t = torch.tensor([1 + (4 * k + i) * (total - 1) // (4 * per_case - 1)])
            draw = torch.Generator().manual_seed(int(t))
            noisy = scheduler.add_noise(clean, scheduler.sample_noise(clean.shape, draw, device), t, draw)
            logits = pipe.mask_unet(noisy, t.to(device), text, mask).sample
            terms.append(scheduler.kl_divergence(logits, clean, noisy, t).mean().item())
    return total * float(np.mean(terms))


@torch.no_grad()
def validate(pipe: GuideGenPipeline, cases: Cases, args: argparse.Namespace, step: int) -> dict[str, float]:
    """Held-out prompts drawn: how many tumours lie where they were asked for, how many organs there are; pictures."""
    pipe.set_progress_bar_config(disable=True)
    folder = args.output_dir / "validation" / f"step-{step}"
    folder.mkdir(parents=True, exist_ok=True)
    right, organs = [], []
    for i in range(args.num_validation_prompts):
        if args.phantom is not None:  # each site as often
            prompt = ClinicalPrompt(sites=frozenset({SITES[i % len(SITES)]}))
        else:
            prompt = ClinicalPrompt.parse(cases[i % len(cases)].prompt)
        prompt = prompt.resolve(torch.Generator().manual_seed(i))
        case = pipe(
            prompt.render(),
            output="mask",
            mask_num_inference_steps=args.validation_sampling_steps,
            mask_guidance_scale=args.validation_guidance_scale,
            generator=torch.Generator().manual_seed(i),
        ).cases[0]
        right.append(find_site(case.labels, case.affine).site == prompt.site)
        organs.append(len(set(np.unique(case.labels)) - {0, TUMOR}))
        if i < 4:
            case.preview().save(folder / f"{i:02d}_{prompt.site}.png")
    return {"bound": bound(pipe, cases), "site": float(np.mean(right)), "organs": float(np.mean(organs))}


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
        return None, {"stage": STAGE, "config": args.config, "step": 0, "seconds": 0.0}
    if not (path / "stage.json").is_file():
        raise SystemExit(f"--resume_from_checkpoint: {path} holds no stage.json, expected a checkpoint of {STAGE}.")
    record = json.loads((path / "stage.json").read_text())
    if (record["stage"], record["config"]) != (STAGE, args.config):
        raise SystemExit(
            f"--resume_from_checkpoint: {path} is of {record['stage']} with {record['config']}, expected {STAGE} with "
            f"{args.config}."
        )
    return path, record


def save_pipeline(pipe: GuideGenPipeline, args: argparse.Namespace, record: dict) -> None:
    """The pipeline and the record of its training, whole or not at all."""
    partial, target = args.output_dir / ".pipeline.partial", args.output_dir / "pipeline"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    facts = f"{STAGE}, {record['step']:,} steps; arguments, time and scores are in `training_{STAGE.lower()}.json`."
    card = guidegen_model_card(pipe, args.hub_model_id or args.output_dir.name, f"## Training\n\n{facts}")
    (partial / "README.md").write_text(card)
    pipe.save_pretrained(partial)
    arguments = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    (partial / f"training_{STAGE.lower()}.json").write_text(json.dumps(record | {"arguments": arguments}, indent=2))
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)


# ---------------------------------------------------------------------------------------------------------- training


def train(args: argparse.Namespace) -> None:
    with opening("--output_dir", args.output_dir, "a folder, or a place for one"):
        args.output_dir.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        mixed_precision=args.mixed_precision,
        log_with=args.report_to,
        project_config=ProjectConfiguration(str(args.output_dir), str(args.output_dir / args.logging_dir)),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=12))],  # the others wait for the cache
    )
    set_seed(args.seed)
    path, record = find_checkpoint(args)

    # 1. Networks
    with opening("--config", args.config, "a configuration"):
        config = load_config(args.config)
    limit, spacing = config["max_sequence_length"], float(config["spacing"])
    source = args.pretrained_model_name_or_path
    if source:
        with opening("--pretrained_model_name_or_path", source, "a pipeline with a mask network"):
            unet = CategoricalUNet3DConditionModel.from_pretrained(source, subfolder="mask_unet")
            scheduler = CategoricalDDPMScheduler.from_pretrained(source, subfolder="mask_scheduler")
    else:
        unet = CategoricalUNet3DConditionModel.from_config(config["mask_unet"])
        scheduler = CategoricalDDPMScheduler.from_config(config["mask_scheduler"])
    if args.detail_channels:
        unet = with_detail(unet, args.detail_channels)
    if args.detail_only:
        train_detail_only(unet)
    unet.train().to(memory_format=torch.channels_last_3d)
    if args.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    tokenizer, text_encoder = load_text_encoder(args.text_encoder or source, unet.config.cross_attention_dim)
    text_encoder.to(accelerator.device)
    average = EMAModel(unet.parameters(), decay=args.ema_decay) if args.use_ema else None

    # 2. Data
    size = tuple(unet.config.sample_size)
    with accelerator.main_process_first():
        labels, texts = cached(
            Cases(args, size, spacing), args.cache_dir or args.output_dir / "cache", args.dataloader_num_workers
        )
    weights = class_weights(labels, args.organ_balance, args.tumor_weight)
    held_out = Cases(args, size, spacing, "validation")

    # 3. Optimizer and schedule
    optimizer = torch.optim.AdamW(
        unet.parameters(),
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        weight_decay=args.adam_weight_decay,
        eps=args.adam_epsilon,
    )
    schedule = get_scheduler(
        args.lr_scheduler,
        optimizer,
        num_warmup_steps=args.lr_warmup_steps * accelerator.num_processes,
        num_training_steps=args.max_train_steps * accelerator.num_processes,
    )
    unet, optimizer, schedule = accelerator.prepare(unet, optimizer, schedule)
    if average is not None:
        average.to(accelerator.device)
        accelerator.register_for_checkpointing(average)

    # 4. Where a stopped run goes on
    if path is not None:
        accelerator.load_state(str(path))
        inner = schedule.scheduler  # the checkpoint brought its learning rate; the argument's counts
        inner.base_lrs = [args.learning_rate]
        optimizer.param_groups[0]["lr"] = args.learning_rate * inner.lr_lambdas[0](inner.last_epoch)
        logger.info(f"resumed from {path}")
    step, before, started = record["step"], record["seconds"], time.monotonic()
    first = step * args.gradient_accumulation_steps
    places = Places(len(texts), args.train_batch_size, accelerator, args.seed, first)
    loader = DataLoader(LabelMaps(labels, texts, args), batch_sampler=places, num_workers=args.dataloader_num_workers)
    if args.report_to:
        accelerator.init_trackers(STAGE, {key: str(value) for key, value in vars(args).items()})

    pipe = GuideGenPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        mask_unet=accelerator.unwrap_model(unet),
        mask_scheduler=scheduler,
        spacing=spacing,
        max_sequence_length=limit,
    )

    # 5. The loop
    logs = {}
    bar = tqdm(total=args.max_train_steps, initial=step, desc=STAGE, disable=not accelerator.is_main_process)
    for micro_step, batch in enumerate(loader, start=first):
        if step >= args.max_train_steps:
            break
        clean = batch["labels"].to(accelerator.device)
        draw = torch.Generator().manual_seed(mix(args.seed, micro_step, accelerator.process_index, 1))
        t = draw_timesteps(len(clean), len(scheduler), args.high_noise_share, draw)
        noise = scheduler.sample_noise(clean.shape, draw, clean.device)
        noisy = scheduler.add_noise(clean, noise, t, draw)
        text, mask = encode(tokenizer, text_encoder, batch["text"], limit, clean.device)
        with accelerator.accumulate(unet):
            logits = unet(noisy, t.to(clean.device), text, mask, return_dict=False)[0]
            loss, parts = tcss_loss(logits, clean, noisy, t, scheduler, weights, args)
            refuse_non_finite(f"the loss at t {t.tolist()} is {loss.item()},", [loss], step, micro_step)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(unet.parameters(), args.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if not accelerator.sync_gradients:
            continue
        step += 1
        if average is not None:
            average.step(unet.parameters())
        record |= {"step": step, "seconds": before + time.monotonic() - started}
        logs = {name: part.item() for name, part in parts.items()} | {"lr": schedule.get_last_lr()[0]}
        bar.update()
        bar.set_postfix({key: f"{value:.3g}" for key, value in logs.items()})
        if args.report_to:
            accelerator.log(logs, step=step)
        finished = step == args.max_train_steps
        if step % args.checkpointing_steps == 0 or finished:
            refuse_non_finite("the weights are", unet.parameters(), step, micro_step)
            save_checkpoint(accelerator, args, record)
        if step % args.validation_steps == 0 and not finished:
            look(accelerator, pipe, average, held_out, args, record, logs)

    # 6. What was made, also where the last step was done by a run that was killed before this
    look(accelerator, pipe, average, held_out, args, record, logs)
    if accelerator.is_main_process and args.push_to_hub:
        made, name = args.output_dir / "pipeline", args.hub_model_id or args.output_dir.name
        GuideGenPipeline.from_pretrained(made).save_pretrained(made, push_to_hub=True, repo_id=name)
    accelerator.end_training()


def look(accelerator, pipe, average, held_out: Cases, args: argparse.Namespace, record: dict, logs: dict) -> None:
    """Score the network as it is now, and leave it as a pipeline."""
    if accelerator.is_main_process:
        with averaged(pipe.mask_unet, average), accelerator.autocast():
            scores = validate(pipe, held_out, args, record["step"])
            made = {"processes": accelerator.num_processes, "hardware": hardware(accelerator)}
            save_pipeline(pipe, args, record | made | {"scores": scores})
        figures = ", ".join(f"{key} {value:.3g}" for key, value in (logs | scores).items())
        tqdm.write(f"step {record['step']}: {figures}")
        if args.report_to:
            accelerator.log(scores, step=record["step"])
    accelerator.wait_for_everyone()


def hardware(accelerator: Accelerator) -> str:
    if accelerator.device.type == "cuda":
        return torch.cuda.get_device_name(accelerator.device)
    return f"a {platform.machine()} CPU, threads: {torch.get_num_threads()}"


def main() -> None:
    args = parse_args()
    try:
        train(args)
    except torch.OutOfMemoryError as error:
        raise SystemExit(
            f"{STAGE}: the device is out of memory at --train_batch_size {args.train_batch_size}; lower it and raise "
            f"--gradient_accumulation_steps, or pass --gradient_checkpointing. ({error})"
        ) from error


if __name__ == "__main__":
    main()
