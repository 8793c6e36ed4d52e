"""Stage III, LFG: train the latent diffusion that paints the CT, guided by the label map and the text.

    [z^A, z^T] = semantic_encoder(organs, tumour)
    z_t = sqrt(abar_t) z + sqrt(1 - abar_t) noise,  z the latents of Stage II before quantisation, at unit variance
    loss = w |unet([z_t, z^A, z^T], t, text) - target|^2

The target is the noise, or what the config's scheduler predicts in its place. w is 1, or what the label map asks for:
`--tumor_weight` where the tumour is, and more for small organs with `--organ_balance`. A weight that follows from what
the network is told moves no optimum. The semantic encoder learns with the U-Net; autoencoder and text encoder stay as
they are. Latents and label maps are written once, before training, to a folder named after the encoder's hash.

What is drawn in a step follows from (seed, step, process) alone: a run that was killed and resumed gives the weights
of one that was not.

    accelerate launch examples/train_lfg.py --config torso-6mm --vae out/cae/pipeline \\
        --text_encoder out/text-encoder --phantom 6000 --max_train_steps 20000 --use_ema --output_dir out/lfg
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
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration, set_seed
from diffusers import DDIMScheduler
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel, compute_snr
from huggingface_hub import snapshot_download
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer

from guidegen_diffusers import (
    Case,
    CaseDataset,
    ClinicalPrompt,
    GuideGenPipeline,
    LatentUNet3DConditionModel,
    SemanticEncoder3D,
    TorsoPhantom,
    VQModel3D,
    load_config,
)
from guidegen_diffusers.labels import CLASSES, NUM_CLASSES, TUMOR, split_tumor
from guidegen_diffusers.phantom import SEEDS, VERSION
from guidegen_diffusers.pipelines import guidegen_model_card
from guidegen_diffusers.prompts import NUM_STYLES


logger = get_logger(__name__)
STAGE = "LFG"
TUMOR_BIT = 128  # beside the organ's id in the cached maps


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train Stage III (LFG): label maps and text to CT.")
    parser.add_argument("--config", default="torso-6mm", help="names the networks: one of the package, or a JSON file")
    parser.add_argument("--pretrained_model_name_or_path", help="a pipeline whose LFG training goes on from")
    parser.add_argument("--vae", help="folder or Hub id of a pipeline with the autoencoder (train_cae.py)")
    parser.add_argument("--text_encoder", help="folder with tokenizer/ and text_encoder/, or any encoder on the Hub")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    data = parser.add_argument_group("data, one of")
    data.add_argument("--train_data_dir", help="a data set as `guidegen prepare` and `guidegen phantom` write it")
    data.add_argument("--dataset_name", help="the same on the Hub")
    data.add_argument("--phantom", type=int, metavar="N", help="the first N phantoms of the training seeds")
    data = parser.add_argument_group("what is shown")
    data.add_argument(
        "--cache_dir", type=Path, help="where latents and maps are kept, on every node (default: the output)"
    )
    data.add_argument("--raw_prompts", action="store_true", help="text as it is, no paraphrases of its attributes")
    data.add_argument("--canonical_share", type=float, default=0.5, help="share of canonical sentences")
    data.add_argument("--prompt_dropout", type=float, default=0.1)
    data.add_argument("--train_batch_size", type=int, default=1, help="cases a process and micro-step")
    data.add_argument("--dataloader_num_workers", type=int, default=0)
    data.add_argument("--organ_balance", type=float, default=0.0, help="power of its rarity that weighs an organ")
    data.add_argument("--tumor_weight", type=float, default=1.0, help="weight of a cell with tumour in the loss")
    data.add_argument("--high_noise_share", type=float, default=0.0, help="share of t from the upper half only")
    data.add_argument("--snr_gamma", type=float, help="weighs the loss by min-SNR (arXiv 2303.09556); 5 is usual")
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
    run.add_argument("--validation_sampling_steps", type=int, default=25)
    run.add_argument("--validation_guidance_scale", type=float, default=1.0)
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
    if args.vae is None and args.pretrained_model_name_or_path is None:
        parser.error("--vae: expected the pipeline that train_cae.py left.")
    if args.text_encoder is None and args.pretrained_model_name_or_path is None:
        parser.error("--text_encoder: expected a trained encoder (train_text_encoder.py) or one of the Hub.")
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
    """The cases that there are, phantoms or a data set, of one split."""

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
        return self.phantom.sample(None, SEEDS[self.split][index])


def cached(cases: Cases, vae: VQModel3D, folder: Path, workers: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Latents at unit variance, organ maps (with `TUMOR_BIT`) and texts; written once, whole or not at all."""
    digest = hashlib.sha256(json.dumps({k: v for k, v in vae.config.items() if k[0] != "_"}, sort_keys=True).encode())
    for name, tensor in sorted(vae.encoder.state_dict().items()):  # the decoder may be polished
        digest.update(name.encode() + tensor.cpu().float().contiguous().numpy().tobytes())
    folder = folder / f"{cases.name}-{digest.hexdigest()[:16]}"
    if not folder.exists():
        size = cases[0].labels.shape
        shape = (vae.config.latent_channels, *(n // vae.downscale_factor for n in size))
        folder.parent.mkdir(parents=True, exist_ok=True)
        need, free = len(cases) * int(2 * np.prod(shape) + np.prod(size)), shutil.disk_usage(folder.parent).free
        if need > free:
            raise SystemExit(
                f"--cache_dir: latents and maps of {len(cases)} cases take {need:,} bytes, {folder.parent} has "
                f"{free:,} free."
            )
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        latents = np.lib.format.open_memmap(partial / "latents.npy", "w+", np.float16, (len(cases), *shape))
        maps = np.lib.format.open_memmap(partial / "maps.npy", "w+", np.uint8, (len(cases), *size))
        texts = []
        loader = DataLoader(cases, batch_size=None, num_workers=workers, collate_fn=lambda case: case)
        for i, case in enumerate(tqdm(loader, "latents")):
            organs, tumor = split_tumor(case.labels)
            maps[i] = organs + TUMOR_BIT * tumor
            latents[i] = encode_ct(vae, case.ct)
            texts.append(case.prompt)
        latents.flush()
        maps.flush()
        (partial / "texts.json").write_text(json.dumps(texts))
        os.replace(partial, folder)
    texts = json.loads((folder / "texts.json").read_text())
    return np.load(folder / "latents.npy", mmap_mode="r"), np.load(folder / "maps.npy", mmap_mode="r"), texts


@torch.no_grad()
def encode_ct(vae: VQModel3D, ct: np.ndarray) -> np.ndarray:
    x = torch.from_numpy(ct.astype(np.float32)).to(vae.device) / vae.config.hu_scale
    return (vae.encode(x.clamp(-1, 1)[None, None]).latents[0].float() * vae.config.scaling_factor).cpu().numpy()


class Latents(Dataset):
    """Latents and maps, each with a sentence drawn anew for its place in the run."""

    def __init__(self, latents: np.ndarray, maps: np.ndarray, texts: list[str], args: argparse.Namespace):
        self.latents, self.maps, self.texts, self.args = latents, maps, texts, args

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
        maps = torch.from_numpy(self.maps[index].copy())
        return {
            "latents": torch.from_numpy(self.latents[index].astype(np.float32)),
            "organs": maps % TUMOR_BIT,
            "tumor": maps // TUMOR_BIT,
            "text": text,
        }


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


class Painter(nn.Module):
    """What learns, as one module: the semantic encoder and the U-Net that reads it."""

    def __init__(self, semantic_encoder: SemanticEncoder3D, unet: LatentUNet3DConditionModel):
        super().__init__()
        self.semantic_encoder, self.unet = semantic_encoder, unet

    def forward(self, noisy, t, organs, tumor, text, mask) -> torch.Tensor:
        semantic = self.semantic_encoder(organs, tumor).latents
        return self.unet(torch.cat([noisy, semantic.to(noisy.dtype)], dim=1), t, text, mask).sample


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
            f"--text_encoder: its states are {encoder.config.hidden_size} wide, the U-Net expects {width}."
        )
    return tokenizer, encoder.eval().requires_grad_(False)


@torch.no_grad()
def encode(tokenizer, encoder, texts: list[str], limit: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = tokenizer(texts, padding="longest", truncation=True, max_length=limit, return_tensors="pt").to(device)
    states = encoder(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
    return states, tokens["attention_mask"].bool()


def refuse_non_finite(what: str, values, step: int, batch: int) -> None:
    if not all(value.isfinite().all() for value in values):
        raise FloatingPointError(
            f"{STAGE}: {what} not finite at step {step}, batch {batch}; resume from the last checkpoint with a lower "
            "learning rate, or in bf16."
        )


def draw_timesteps(count: int, total: int, high_noise_share: float, draw: torch.Generator) -> torch.Tensor:
    """Uniform on 0..T-1; a share of them on the upper half alone."""
    low = torch.where(torch.rand(count, generator=draw) < high_noise_share, total // 2, 0)
    return low + (torch.rand(count, generator=draw) * (total - low)).long()


def class_weights(maps: np.ndarray, organ_balance: float, tumor_weight: float) -> torch.Tensor:
    """(N,) weights: of an organ, how many times smaller than the largest it is in all maps together, to a power."""
    weights = torch.ones(NUM_CLASSES)
    weights[TUMOR] = tumor_weight
    if organ_balance:  # else there is no need to read them all
        counts = sum(np.bincount(item.ravel() % TUMOR_BIT, minlength=NUM_CLASSES) for item in maps)
        largest = counts[1:TUMOR].max()
        weights[1:TUMOR] = torch.tensor([(largest / n) ** organ_balance if n else 1.0 for n in counts[1:TUMOR]])
    return weights


def cell_weights(organs: torch.Tensor, tumor: torch.Tensor, size: torch.Size, weights: torch.Tensor) -> torch.Tensor:
    """(B, X, Y, Z) maps to (B, 1, x, y, z): the largest weight of the classes that a cell holds."""
    classes = torch.where(tumor > 0, TUMOR, organs)
    return F.adaptive_max_pool3d(weights[classes.long()][:, None], size)


def lfg_loss(predicted, latents, noise, t, scheduler, snr_gamma: float | None, weights=1.0) -> torch.Tensor:
    """MSE against what the scheduler predicts; with `snr_gamma` each item weighs min(SNR, gamma) in units of x_0."""
    kind = scheduler.config.prediction_type
    target = {
        "epsilon": lambda: noise,
        "sample": lambda: latents,
        "v_prediction": lambda: scheduler.get_velocity(latents, noise, t),
    }[kind]()
    error = (weights * (predicted.float() - target).square()).flatten(1).mean(1)
    if snr_gamma is not None:
        snr = compute_snr(scheduler, t)
        in_x_0 = {"epsilon": snr, "sample": torch.ones_like(snr), "v_prediction": snr + 1}[kind]
        error = error * snr.clamp(max=snr_gamma) / in_x_0
    return error.mean()


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
def validate(pipe: GuideGenPipeline, cases: Cases, args: argparse.Namespace, step: int) -> dict[str, float]:
    """Held-out label maps painted: how far the mean HU of each class lies from the case's own; pictures of both."""
    pipe.set_progress_bar_config(disable=True)
    folder = args.output_dir / "validation" / f"step-{step}"
    folder.mkdir(parents=True, exist_ok=True)
    away: dict[str, list[float]] = {}
    for i in range(min(args.num_validation_cases, len(cases))):
        case = cases[i]
        made = pipe(
            case.prompt,
            mask=case,
            num_inference_steps=args.validation_sampling_steps,
            guidance_scale=args.validation_guidance_scale,
            raw_prompt=args.raw_prompts,
            generator=torch.Generator().manual_seed(i),
        ).cases[0]
        for c in CLASSES[1:]:
            inside = case.labels == c.id
            if inside.any():
                away.setdefault(c.name, []).append(abs(float(made.ct[inside].mean() - case.ct[inside].mean())))
        if i < 2:
            case.preview().save(folder / f"{i:02d}_case.png")
            made.preview().save(folder / f"{i:02d}_made.png")
    means = {name: float(np.mean(values)) for name, values in away.items()}
    return {"hu": float(np.mean(list(means.values()))), "hu_worst": max(means.values()), "hu_of": means}


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
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=12))],  # the others wait for the latents
    )
    set_seed(args.seed)
    path, record = find_checkpoint(args)

    # 1. Networks
    with opening("--config", args.config, "a configuration"):
        config = load_config(args.config)
    size, limit, spacing = tuple(config["mask_unet"]["sample_size"]), config["max_sequence_length"], config["spacing"]
    source = args.pretrained_model_name_or_path
    with opening("--vae", args.vae or source, "a pipeline with an autoencoder (train_cae.py)"):
        vae = VQModel3D.from_pretrained(args.vae or source, subfolder="vae").eval().requires_grad_(False)
    if source:
        with opening("--pretrained_model_name_or_path", source, "a pipeline with the networks of the LFG"):
            semantic_encoder = SemanticEncoder3D.from_pretrained(source, subfolder="semantic_encoder")
            unet = LatentUNet3DConditionModel.from_pretrained(source, subfolder="unet")
            scheduler = DDIMScheduler.from_pretrained(source, subfolder="scheduler")
    else:
        semantic_encoder = SemanticEncoder3D.from_config(config["semantic_encoder"])
        unet = LatentUNet3DConditionModel.from_config(config["unet"])
        scheduler = DDIMScheduler.from_config(config["scheduler"])
    ours, given = (
        (semantic_encoder.downscale_factor, unet.config.out_channels),
        (vae.downscale_factor, vae.config.latent_channels),
    )
    if given != ours:
        raise SystemExit(
            f"--vae: it shrinks {given[0]} times to {given[1]} channels, {args.config} expects {ours[0]} times to "
            f"{ours[1]}; give the autoencoder of the same config."
        )
    painter = Painter(semantic_encoder, unet).train().to(memory_format=torch.channels_last_3d)
    if args.gradient_checkpointing:
        semantic_encoder.enable_gradient_checkpointing()
        unet.enable_gradient_checkpointing()
    tokenizer, text_encoder = load_text_encoder(args.text_encoder or source, unet.config.cross_attention_dim)
    text_encoder.to(accelerator.device)
    vae.to(accelerator.device, memory_format=torch.channels_last_3d)
    average = EMAModel(painter.parameters(), decay=args.ema_decay) if args.use_ema else None

    # 2. Data
    with accelerator.main_process_first(), accelerator.autocast():
        latents, maps, texts = cached(
            Cases(args, size, spacing), vae, args.cache_dir or args.output_dir / "cache", args.dataloader_num_workers
        )
    per_class = class_weights(maps, args.organ_balance, args.tumor_weight).to(accelerator.device)
    held_out = Cases(args, size, spacing, "validation")

    # 3. Optimizer and schedule
    optimizer = torch.optim.AdamW(
        painter.parameters(),
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
    painter, optimizer, schedule = accelerator.prepare(painter, optimizer, schedule)
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
    loader = DataLoader(
        Latents(latents, maps, texts, args), batch_sampler=places, num_workers=args.dataloader_num_workers
    )
    if args.report_to:
        accelerator.init_trackers(STAGE, {key: str(value) for key, value in vars(args).items()})

    plain = accelerator.unwrap_model(painter)
    pipe = GuideGenPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=vae,
        semantic_encoder=plain.semantic_encoder,
        unet=plain.unet,
        scheduler=scheduler,
        sample_size=size,
        spacing=spacing,
        max_sequence_length=limit,
    )

    # 5. The loop
    logs = {}
    bar = tqdm(total=args.max_train_steps, initial=step, desc=STAGE, disable=not accelerator.is_main_process)
    for micro_step, batch in enumerate(loader, start=first):
        if step >= args.max_train_steps:
            break
        clean, organs, tumor = (batch[name].to(accelerator.device) for name in ("latents", "organs", "tumor"))
        draw = torch.Generator().manual_seed(mix(args.seed, micro_step, accelerator.process_index, 1))
        t = draw_timesteps(len(clean), scheduler.config.num_train_timesteps, args.high_noise_share, draw)
        t = t.to(clean.device)
        noise = torch.randn(clean.shape, generator=draw).to(clean.device)
        noisy = scheduler.add_noise(clean, noise, t)
        text, mask = encode(tokenizer, text_encoder, batch["text"], limit, clean.device)
        with accelerator.accumulate(painter):
            predicted = painter(noisy, t, organs, tumor, text, mask)
            weights = cell_weights(organs, tumor, clean.shape[2:], per_class)
            loss = lfg_loss(predicted, clean, noise, t, scheduler, args.snr_gamma, weights)
            refuse_non_finite(f"the loss at t {t.tolist()} is {loss.item()},", [loss], step, micro_step)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(painter.parameters(), args.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if not accelerator.sync_gradients:
            continue
        step += 1
        if average is not None:
            average.step(painter.parameters())
        record |= {"step": step, "seconds": before + time.monotonic() - started}
        logs = {"loss": loss.item(), "lr": schedule.get_last_lr()[0]}
        bar.update()
        bar.set_postfix({key: f"{value:.3g}" for key, value in logs.items()})
        if args.report_to:
            accelerator.log(logs, step=step)
        finished = step == args.max_train_steps
        if step % args.checkpointing_steps == 0 or finished:
            refuse_non_finite("the weights are", plain.parameters(), step, micro_step)
            save_checkpoint(accelerator, args, record)
        if step % args.validation_steps == 0 and not finished:
            look(accelerator, pipe, plain, average, held_out, args, record, logs)

    # 6. What was made, also where the last step was done by a run that was killed before this
    look(accelerator, pipe, plain, average, held_out, args, record, logs)
    if accelerator.is_main_process and args.push_to_hub:
        made, name = args.output_dir / "pipeline", args.hub_model_id or args.output_dir.name
        GuideGenPipeline.from_pretrained(made).save_pretrained(made, push_to_hub=True, repo_id=name)
    accelerator.end_training()


def look(accelerator, pipe, plain: Painter, average, held_out: Cases, args: argparse.Namespace, record, logs) -> None:
    """Score the networks as they are now, and leave them as a pipeline."""
    if accelerator.is_main_process:
        with averaged(plain, average), accelerator.autocast():
            scores = validate(pipe, held_out, args, record["step"])
            made = {"processes": accelerator.num_processes, "hardware": hardware(accelerator)}
            save_pipeline(pipe, args, record | made | {"scores": scores})
        scores.pop("hu_of")
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
