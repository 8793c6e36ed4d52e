"""Stage II, CAE: train the contrast-aware VQ autoencoder on crops of CT.

    latents = encode(ct), quantised through the codebook, ct' = decode(latents)
    loss = |h(ct) - h(ct')| + perceptual(h(ct), h(ct')) + VQ + w (frame GAN + volume GAN)

h is the contrast rescaler: each step draws a window, around the HU of an organ in the crop or anywhere, and both
volumes go through it. Its k and b stay as they are unless `--train_rescaler`: L1 alone is least at k = 0. The
discriminators see raw volumes, one some random slices along a random axis, the other the whole crop, and join at
`--discriminator_start`. In the end the latents' scale is measured and stored, so that Stage III sees unit variance.

L1 is least at medians, so that what a code leaves open (thin bone beside fat) comes out too dark on average.
`--mse_weight` adds the squared error, which is least at means; with `--decoder_only` that is a last polish, after
which the latents and Stage III are as they were. The decoder is not told the classes, so that a weight of small organs
in it (`--organ_balance`) moves the optimum: what a code leaves open goes rather to them.

What is drawn in a step follows from (seed, step, process) alone: a run that was killed and resumed gives the weights
of one that was not.

    accelerate launch examples/train_cae.py --config torso-6mm --phantom 12000 --crop_size 32 32 32 \\
        --train_batch_size 4 --max_train_steps 20000 --use_ema --output_dir out/cae
"""

import argparse
import contextlib
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
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration, broadcast, set_seed
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from huggingface_hub import snapshot_download
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import AutoModel

from guidegen_diffusers import (
    Case,
    CaseDataset,
    GuideGenPipeline,
    TorsoPhantom,
    VQModel3D,
    codebook_use,
    load_config,
)
from guidegen_diffusers.labels import NUM_CLASSES
from guidegen_diffusers.phantom import SEEDS
from guidegen_diffusers.pipelines import guidegen_model_card


logger = get_logger(__name__)
STAGE = "CAE"
WINDOWS = {"lung": (-1000, -400), "abdomen": (-150, 250), "bone": (250, 1500)}  # HU, for the figures


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train Stage II (CAE): CT to latents and back.")
    parser.add_argument("--config", default="torso-6mm", help="names the networks: one of the package, or a JSON file")
    parser.add_argument("--pretrained_model_name_or_path", help="a pipeline whose autoencoder training goes on from")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    data = parser.add_argument_group("data, one of")
    data.add_argument("--train_data_dir", help="a data set as `guidegen prepare` and `guidegen phantom` write it")
    data.add_argument("--dataset_name", help="the same on the Hub")
    data.add_argument(
        "--phantom", type=int, metavar="N", help="the first N phantoms of the training seeds, on the fly"
    )
    data = parser.add_argument_group("what is shown")
    data.add_argument("--crop_size", type=int, nargs=3, help="voxels of a crop; the whole volume unless given")
    data.add_argument("--train_batch_size", type=int, default=1, help="crops a process and micro-step")
    data.add_argument("--dataloader_num_workers", type=int, default=0)
    loss = parser.add_argument_group("loss")
    loss.add_argument("--mse_weight", type=float, default=0.0, help="of the squared error without a window")
    loss.add_argument(
        "--organ_balance", type=float, default=0.0, help="power of its rarity that weighs an organ or tumour in it"
    )
    loss.add_argument(
        "--decoder_only", action="store_true", help="encoder and codebook stay: latents of Stage III keep their sense"
    )
    loss.add_argument(
        "--perceptual_network", help="folder or Hub id of an image model of transformers; none unless given"
    )
    loss.add_argument("--perceptual_weight", type=float, default=1.0)
    loss.add_argument("--train_rescaler", action="store_true", help="k and b of the contrast rescaler learn, too")
    loss.add_argument("--discriminator_start", type=int, default=10_000, help="step at which the GANs join")
    loss.add_argument("--discriminator_weight", type=float, default=0.1, help="of each GAN; 0 leaves them out")
    loss.add_argument("--discriminator_width", type=int, default=32)
    loss.add_argument("--discriminator_frames", type=int, default=8)
    loss.add_argument("--restart_steps", type=int, default=100, help="dead codes move every so many steps; 0 never")
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
    run.add_argument("--num_validation_cases", type=int, default=4)
    run.add_argument("--report_to", help="tensorboard, wandb, ...; none unless given")
    run.add_argument("--logging_dir", default="logs")
    run.add_argument("--push_to_hub", action="store_true")
    run.add_argument("--hub_model_id")
    args = parser.parse_args()
    if sum(value is not None for value in (args.train_data_dir, args.dataset_name, args.phantom)) != 1:
        parser.error("expected one of --train_data_dir, --dataset_name and --phantom.")
    if args.phantom is not None and args.phantom < 1:
        parser.error(f"--phantom: got {args.phantom}, expected 1 or more.")
    if args.num_validation_cases < 1:
        parser.error(f"--num_validation_cases: got {args.num_validation_cases}, expected 1 or more.")
    if args.organ_balance and not args.mse_weight:
        parser.error("--organ_balance: expected --mse_weight, of which it is a part.")
    if args.decoder_only and args.pretrained_model_name_or_path is None:
        parser.error("--decoder_only: expected --pretrained_model_name_or_path, whose encoder stays.")
    return args


@contextlib.contextmanager
def opening(option: str, value, expected: str):
    """What cannot be opened is told in one line."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise SystemExit(f"{option}: got {value}, expected {expected} ({' '.join(str(error).split())}).") from error


# ------------------------------------------------------------------------------------------------------------- data


class Crops(Dataset):
    """Random crops of CT in [-1, 1] and of their labels; the crop follows from the place in the run."""

    def __init__(self, args: argparse.Namespace, size: tuple[int, ...], spacing: float, vae: VQModel3D, split: str):
        self.phantom, self.split, self.hu_scale = None, split, vae.config.hu_scale
        if args.phantom is not None:
            self.phantom, self.count = TorsoPhantom(size, spacing), args.phantom
        else:
            option = "--train_data_dir" if args.train_data_dir else "--dataset_name"
            with opening(
                option, args.train_data_dir or args.dataset_name, "a data set as `guidegen prepare` writes it"
            ):
                folder = args.train_data_dir or snapshot_download(args.dataset_name, repo_type="dataset")
                if split == "validation" and not Path(folder, split).is_dir():
                    logger.warning(f"{folder} has no validation split; training cases are looked at instead.")
                    split = "train"
                self.cases = CaseDataset(folder, split)
            self.count, size = len(self.cases), tuple(self.cases.rows[0]["shape"])
            edges = self.cases.rows[0]["spacing"]
            if any(abs(edge - spacing) > 1e-3 for edge in edges):
                raise SystemExit(
                    f"{folder}: its voxels are {edges} mm, {args.config} expects {spacing:g}; prepare the cases at "
                    "that spacing (`guidegen prepare --spacing`)."
                )
        self.crop = tuple(args.crop_size or size)
        factor = vae.downscale_factor
        least = 8 if args.discriminator_weight > 0 else factor  # the discriminators halve it three times
        sides = list(zip(self.crop, size, strict=True))
        if any(not least <= side <= n or side % factor or n % factor for side, n in sides):
            raise SystemExit(
                f"--crop_size: got {self.crop} of volumes of {size}, expected both in multiples of {factor}, the crop "
                f"from {least} a side to the whole."
            )

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
        ct = torch.from_numpy(case.ct[box].astype(np.float32)) / self.hu_scale
        return {"ct": ct.clamp(-1, 1)[None], "labels": torch.from_numpy(case.labels[box].copy())}


def class_weights(crops: Crops, organ_balance: float, count: int = 100) -> torch.Tensor:
    """(N,) weights: of organ and tumour, how many times smaller than the largest in the first cases, to a power."""
    weights = torch.ones(NUM_CLASSES)
    if organ_balance:  # else there is no need to read them
        maps = (crops.case(i).labels for i in range(min(count, len(crops))))
        counts = sum(np.bincount(labels.ravel(), minlength=NUM_CLASSES) for labels in maps)
        weights[1:] = torch.tensor([(counts[1:].max() / n) ** organ_balance if n else 1.0 for n in counts[1:]])
    return weights


def squared_error(made: torch.Tensor, ct: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Of crops (B, 1, X, Y, Z), the mean over voxels, each with the weight of its class."""
    return ((made - ct).square() * weights[labels.long()][:, None]).mean()


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


# ---------------------------------------------------------------------------------------------------------- the GANs


class PatchDiscriminator(nn.Module):
    """Patches of slices (2-D) or of volumes (3-D) judged: strided convolutions with channel-wise norms."""

    def __init__(self, dimensions: int, width: int, levels: int = 3):
        super().__init__()
        conv = nn.Conv2d if dimensions == 2 else nn.Conv3d
        layers: list[nn.Module] = [conv(1, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for _ in range(1, levels):
            layers += [conv(width, 2 * width, 4, stride=2, padding=1), nn.GroupNorm(8, 2 * width), nn.LeakyReLU(0.2)]
            width *= 2
        self.layers = nn.Sequential(*layers, conv(width, 1, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Discriminators(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.frame, self.volume = PatchDiscriminator(2, width), PatchDiscriminator(3, width)

    def forward(self, x: torch.Tensor, slices: tuple[int, list[int]]) -> list[torch.Tensor]:  # (B, 1, X, Y, Z)
        axis, picked = slices
        frames = x.movedim(2 + axis, 1)[:, picked]  # (B, F, 1, ., .)
        return [self.frame(frames.flatten(0, 1)), self.volume(x)]


def draw_slices(shape: torch.Size, count: int, generator: torch.Generator) -> tuple[int, list[int]]:
    axis = int(torch.randint(3, (), generator=generator))
    return axis, torch.randperm(shape[2 + axis], generator=generator)[:count].tolist()


def hinge(real: list[torch.Tensor], fake: list[torch.Tensor]) -> torch.Tensor:
    return sum((F.relu(1 - r).mean() + F.relu(1 + f).mean()) / 2 for r, f in zip(real, fake, strict=True))


def adaptive_weight(reconstruction: torch.Tensor, adversarial: torch.Tensor, last: nn.Parameter) -> torch.Tensor:
    """How much the GAN may weigh: the ratio of both gradients at the decoder's last layer (VQ-GAN)."""
    wanted = torch.autograd.grad(reconstruction, last, retain_graph=True)[0].norm()
    pushed = torch.autograd.grad(adversarial, last, retain_graph=True)[0].norm()
    return (wanted / (pushed + 1e-4)).clamp(0, 1e4).detach()


class Perceptual(nn.Module):
    """Distance of the feature maps of an image model (a ResNet, say), slice by slice; the model stays as it is."""

    def __init__(self, name: str):
        super().__init__()
        with opening("--perceptual_network", name, "a folder or Hub id of an image model"):
            self.network = AutoModel.from_pretrained(name, use_safetensors=True).eval().requires_grad_(False)

    def forward(self, x: torch.Tensor, y: torch.Tensor, slices: tuple[int, list[int]]) -> torch.Tensor:
        axis, picked = slices
        features = []
        for volume in (x, y):
            frames = volume.movedim(2 + axis, 1)[:, picked].flatten(0, 1).expand(-1, 3, -1, -1)
            states = self.network(pixel_values=frames, output_hidden_states=True).hidden_states
            features.append([F.normalize(state.flatten(2), dim=1) for state in states if state.ndim == 4])
        return sum((a - b).square().sum(1).mean() for a, b in zip(*features, strict=True))


def refuse_non_finite(what: str, values, step: int, batch: int) -> None:
    if not all(value.isfinite().all() for value in values):
        raise FloatingPointError(
            f"{STAGE}: {what} not finite at step {step}, batch {batch}; resume from the last checkpoint with a lower "
            "learning rate, or in bf16."
        )


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
def validate(vae: VQModel3D, crops: Crops, args: argparse.Namespace, step: int) -> dict[str, float]:
    """MAE in HU over everything and in three windows, and the codebook's use, on whole held-out cases; pictures."""
    folder = args.output_dir / "validation" / f"step-{step}"
    folder.mkdir(parents=True, exist_ok=True)
    scale, device = vae.config.hu_scale, next(vae.parameters()).device
    errors, indices = {name: [] for name in ("all", *WINDOWS)}, []
    for i in range(min(args.num_validation_cases, len(crops))):
        case = crops.case(i)
        ct = torch.from_numpy(case.ct.astype(np.float32)).clamp(-scale, scale)
        out = vae((ct / scale)[None, None].to(device))
        made = (out.sample[0, 0].float().cpu() * scale).clamp(-scale, scale).round()
        away = (made - ct).abs()
        indices.append(out.indices.flatten().cpu())
        errors["all"].append(away.mean())
        for name, (low, high) in WINDOWS.items():
            inside = (ct >= low) & (ct < high)
            errors[name] += [away[inside].mean()] if inside.any() else []
        if i < 2:
            case.preview().save(folder / f"{i:02d}_ct.png")
            Case(case.labels, case.affine, made.numpy().astype(np.int16)).preview().save(folder / f"{i:02d}_made.png")
    share, perplexity = codebook_use(torch.cat(indices), vae.config.num_codes)
    figures = {f"mae_{name}": float(torch.stack(values).mean()) for name, values in errors.items() if values}
    return figures | {"codes": share, "perplexity": perplexity}


@torch.no_grad()
def latent_scale(vae: VQModel3D, crops: Crops, device, count: int = 32) -> float:
    """1 / standard deviation of the latents of some training crops."""
    places = [(i, i) for i in range(min(count, len(crops)))]
    latents = [vae.encode(crops[place]["ct"][None].to(device)).latents.float().flatten() for place in places]
    return float(1 / torch.cat(latents).std())


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
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=12))],
    )
    set_seed(args.seed)
    path, record = find_checkpoint(args)

    # 1. Networks and data
    with opening("--config", args.config, "a configuration"):
        config = load_config(args.config)
    size, spacing = tuple(config["mask_unet"]["sample_size"]), float(config["spacing"])
    if args.pretrained_model_name_or_path:
        with opening("--pretrained_model_name_or_path", args.pretrained_model_name_or_path, "a pipeline with a vae"):
            vae = VQModel3D.from_pretrained(args.pretrained_model_name_or_path, subfolder="vae")
    else:
        vae = VQModel3D.from_config(config["vae"])
    vae.train().to(memory_format=torch.channels_last_3d)
    if vae.rescaler is not None:
        vae.rescaler.requires_grad_(args.train_rescaler)
    elif args.train_rescaler:
        raise SystemExit("--train_rescaler: this autoencoder has none, for its window_sampling is none.")
    if args.decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quantizer.requires_grad_(False)
    if args.gradient_checkpointing:
        vae.enable_gradient_checkpointing()
    judges = Discriminators(args.discriminator_width)
    perceptual = Perceptual(args.perceptual_network).to(accelerator.device) if args.perceptual_network else None
    crops, held_out = (Crops(args, size, spacing, vae, split) for split in ("train", "validation"))
    per_class = class_weights(crops, args.organ_balance).to(accelerator.device)

    # 2. Optimizers, schedule, average
    adam = dict(
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        weight_decay=args.adam_weight_decay,
        eps=args.adam_epsilon,
    )
    learning = [p for p in vae.parameters() if p.requires_grad]
    optimizer, judging = torch.optim.AdamW(learning, **adam), torch.optim.AdamW(judges.parameters(), **adam)
    schedule = get_scheduler(
        args.lr_scheduler,
        optimizer,
        num_warmup_steps=args.lr_warmup_steps * accelerator.num_processes,
        num_training_steps=args.max_train_steps * accelerator.num_processes,
    )
    average = EMAModel(vae.parameters(), decay=args.ema_decay) if args.use_ema else None
    vae, judges, optimizer, judging, schedule = accelerator.prepare(vae, judges, optimizer, judging, schedule)
    plain, plain_judges = accelerator.unwrap_model(vae), accelerator.unwrap_model(judges)
    if average is not None:
        average.to(accelerator.device)
        accelerator.register_for_checkpointing(average)

    # 3. Where a stopped run goes on
    if path is not None:
        accelerator.load_state(str(path))
        inner = schedule.scheduler  # the checkpoint brought its learning rate; the argument's counts
        inner.base_lrs = [args.learning_rate]
        optimizer.param_groups[0]["lr"] = args.learning_rate * inner.lr_lambdas[0](inner.last_epoch)
        logger.info(f"resumed from {path}")
    step, before, started = record["step"], record["seconds"], time.monotonic()
    first = step * args.gradient_accumulation_steps
    places = Places(len(crops), args.train_batch_size, accelerator, args.seed, first)
    loader = DataLoader(crops, batch_sampler=places, num_workers=args.dataloader_num_workers)
    if args.report_to:
        accelerator.init_trackers(STAGE, {key: str(value) for key, value in vars(args).items()})
    pipe = GuideGenPipeline(vae=plain, sample_size=size, spacing=spacing)

    # 4. The loop
    logs = {}
    bar = tqdm(total=args.max_train_steps, initial=step, desc=STAGE, disable=not accelerator.is_main_process)
    for micro_step, batch in enumerate(loader, start=first):
        if step >= args.max_train_steps:
            break
        ct, labels = batch["ct"].to(accelerator.device), batch["labels"].to(accelerator.device)
        draw = torch.Generator().manual_seed(mix(args.seed, micro_step, accelerator.process_index, 1))
        slices = draw_slices(ct.shape, args.discriminator_frames, draw)
        adversarial = args.discriminator_weight > 0 and step >= args.discriminator_start
        with accelerator.accumulate(vae, judges):
            fake, vq_loss, _ = vae(ct, return_dict=False)
            fake = fake.float()
            seen, made = ct, fake
            if plain.rescaler is not None:
                window = plain.rescaler.sample_windows(ct, labels, draw)
                seen, made = plain.rescaler(ct, *window), plain.rescaler(fake, *window)
            reconstruction = F.l1_loss(made, seen)
            if args.mse_weight:
                reconstruction = reconstruction + args.mse_weight * squared_error(fake, ct, labels, per_class)
            if perceptual is not None:
                reconstruction = reconstruction + args.perceptual_weight * perceptual(seen, made, slices)
            loss = reconstruction + vq_loss
            logs = {"reconstruction": reconstruction.item(), "vq": vq_loss.item()}
            if adversarial:
                plain_judges.requires_grad_(False)
                with accelerator.autocast():
                    fooled = -sum(score.mean() for score in plain_judges(fake, slices))
                plain_judges.requires_grad_(True)
                weight = adaptive_weight(reconstruction, fooled, plain.decoder[-1].weight)
                loss = loss + args.discriminator_weight * weight * fooled
                logs |= {"gan": fooled.item(), "gan_weight": weight.item()}
            refuse_non_finite(f"the loss is {loss.item()},", [loss], step, micro_step)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(vae.parameters(), args.max_grad_norm)
            optimizer.step()
            judging.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"]  # one schedule for both
            schedule.step()
            optimizer.zero_grad()
            if adversarial:
                judged = hinge(judges(ct, slices), judges(fake.detach(), slices))
                accelerator.backward(judged)
                judging.step()
                judging.zero_grad()
                logs["judges"] = judged.item()
        if not accelerator.sync_gradients:
            continue
        step += 1
        if args.restart_steps and step % args.restart_steps == 0 and not args.decoder_only:
            restart_codes(accelerator, plain, average, ct, draw)
        if average is not None:
            average.step(plain.parameters())
        record |= {"step": step, "seconds": before + time.monotonic() - started}
        bar.update()
        bar.set_postfix({key: f"{value:.3g}" for key, value in logs.items()})
        if args.report_to:
            accelerator.log(logs, step=step)
        finished = step == args.max_train_steps
        if step % args.checkpointing_steps == 0 or finished:
            refuse_non_finite("the weights are", [*plain.parameters(), *plain_judges.parameters()], step, micro_step)
            save_checkpoint(accelerator, args, record)
        if step % args.validation_steps == 0 and not finished:
            look(accelerator, pipe, average, crops, held_out, args, record, logs)

    # 5. What was made, also where the last step was done by a run that was killed before this
    look(accelerator, pipe, average, crops, held_out, args, record, logs)
    if accelerator.is_main_process and args.push_to_hub:
        made, name = args.output_dir / "pipeline", args.hub_model_id or args.output_dir.name
        GuideGenPipeline.from_pretrained(made).save_pretrained(made, push_to_hub=True, repo_id=name)
    accelerator.end_training()


@torch.no_grad()
def restart_codes(accelerator: Accelerator, vae: VQModel3D, average: EMAModel | None, ct, draw) -> None:
    """Dead codes move onto latents of the first process; the averaged codebook moves with them at once."""
    codes = vae.quantizer.codebook
    before = codes.clone()
    with accelerator.autocast():
        latents = vae.encode(ct).latents.float()
    vae.quantizer.restart_dead_codes(latents, generator=draw)
    for tensor in (codes.data, vae.quantizer.usage):
        broadcast(tensor)
    if average is not None:
        place = next(i for i, p in enumerate(vae.parameters()) if p is codes)
        moved = (codes != before).any(1)
        average.shadow_params[place][moved] = codes[moved].to(average.shadow_params[place].dtype)


def look(accelerator, pipe, average, crops: Crops, held_out: Crops, args: argparse.Namespace, record, logs) -> None:
    """Score the autoencoder as it is now, measure its latents, and leave it as a pipeline."""
    if accelerator.is_main_process:
        with averaged(pipe.vae, average), accelerator.autocast():
            scores = validate(pipe.vae, held_out, args, record["step"])
            if not args.decoder_only:
                pipe.vae.register_to_config(scaling_factor=latent_scale(pipe.vae, crops, accelerator.device))
            made = {"processes": accelerator.num_processes, "hardware": hardware(accelerator)}
            save_pipeline(pipe, args, record | made | {"scores": scores})
        figures = ", ".join(f"{key} {value:.4g}" for key, value in (logs | scores).items())
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
