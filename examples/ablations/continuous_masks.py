"""Ablation of Stage I: continuous diffusion on one-hot label maps, in place of categorical diffusion.

    x_0 in {-1, 1}^N,   x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps,   the network predicts x_0
    loss = mean square error, tumour voxels weighted;   sampling: DDIM, guidance on x_0, argmax at the end

Trunk, text, data, batches, times and weights of voxels are those of `train_tcss.py`, whose code this is, so that both
can be trained for equally many steps and held against each other. It ends with the table of `measure_pipeline.py`:

    python examples/ablations/continuous_masks.py --config examples/ablations/torso-12mm.json \\
        --text_encoder out/text-encoder --phantom 3000 --max_train_steps 1500 --output_dir out/continuous
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import DDIMScheduler
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from einops import rearrange
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from guidegen_diffusers import Case, CategoricalUNet3DConditionModel, TorsoPhantom, load_config
from guidegen_diffusers.grid import Grid
from guidegen_diffusers.labels import NUM_CLASSES, TUMOR


sys.path.insert(0, str(Path(__file__).parents[1]))
from measure_pipeline import figures, table, tasks
from train_tcss import (
    Cases,
    LabelMaps,
    Places,
    averaged,
    cached,
    draw_timesteps,
    encode,
    load_text_encoder,
    mix,
    refuse_non_finite,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train continuous diffusion on one-hot label maps.")
    parser.add_argument("--config", default="torso-6mm")
    parser.add_argument("--text_encoder", required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train_data_dir")
    parser.add_argument("--phantom", type=int)
    parser.add_argument("--cache_dir", type=Path)
    parser.add_argument("--canonical_share", type=float, default=0.6)
    parser.add_argument("--prompt_dropout", type=float, default=0.1)
    parser.add_argument("--high_noise_share", type=float, default=0.5)
    parser.add_argument("--tumor_weight", type=float, default=10.0)
    parser.add_argument("--train_batch_size", type=int, default=4)
    parser.add_argument("--max_train_steps", type=int, required=True)
    parser.add_argument("--learning_rate", type=float, default=4e-4)
    parser.add_argument("--lr_warmup_steps", type=int, default=200)
    parser.add_argument("--ema_decay", type=float, default=0.999)
    parser.add_argument("--mixed_precision", default="bf16", choices=("no", "bf16"))
    parser.add_argument("--per_site", type=int, default=5, help="test prompts of each site, of no tumour too")
    parser.add_argument("--num_inference_steps", type=int, default=25)
    parser.add_argument("--guidance_scale", type=float, default=1.0)
    args = parser.parse_args()
    args.dataset_name, args.raw_prompts, args.first_seed, args.free_text = None, False, 0, None
    return args


class ContinuousMaskUNet(nn.Module):
    """The trunk and the head of the mask network; its stem reads a number for each class and voxel of a patch."""

    def __init__(self, config: dict):
        super().__init__()
        self.unet = CategoricalUNet3DConditionModel.from_config(config | {"vote_windows": ()})
        self.patch = self.unet.config.patch_size
        self.stem = nn.Conv3d(self.patch**3 * NUM_CLASSES, self.unet.config.block_out_channels[0], 1)
        self.unet.label_embedding = None

    def forward(self, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        p = self.patch  # x (B, N, X, Y, Z)
        patches = rearrange(x, "b n (x p) (y q) (z r) -> b (n p q r) x y z", p=p, q=p, r=p)
        time = self.unet.embed_time(x, t, text, mask)
        x = self.unet.conv_out(self.unet.trunk(self.stem(patches), time, text, mask))
        return rearrange(x, "b (n p q r) x y z -> b n (x p) (y q) (z r)", p=p, q=p, r=p)


def one_hot(labels: torch.Tensor) -> torch.Tensor:
    return torch.stack([(labels == k).float() for k in range(NUM_CLASSES)], dim=1) * 2 - 1


@torch.no_grad()
def draw_cases(network, scheduler, tokenizer, encoder, limit: int, size, spacing: float, args) -> list[dict]:
    """Label maps of test prompts, each site as often, measured as `measure_pipeline.py` does."""
    scheduler.set_timesteps(args.num_inference_steps)
    rows, phantom, affine = [], TorsoPhantom(size, spacing), Grid.centered(size, spacing).affine
    for task in tqdm(tasks(args), "cases"):
        started, draw = time.monotonic(), torch.Generator().manual_seed(task["seed"])
        shown = ["", task["text"]] if args.guidance_scale > 1 else [task["text"]]
        text, mask = encode(tokenizer, encoder, shown, limit, "cpu")
        x = torch.randn(1, NUM_CLASSES, *size, generator=draw)
        for t in scheduler.timesteps:
            clean = network(x.expand(len(shown), -1, -1, -1, -1), t.expand(len(shown)), text, mask).float()
            if len(shown) > 1:
                clean = torch.lerp(*clean.chunk(2), args.guidance_scale)
            x = scheduler.step(clean.clamp(-1, 1), t, x).prev_sample
        case = Case(labels=x[0].argmax(0).to(torch.uint8).numpy(), affine=affine, prompt=task["text"])
        beside = phantom.sample(task["text"], task["seed"], ct=False)
        row = {"seconds": time.monotonic() - started, "made": figures(case, None), "phantom": figures(beside, None)}
        rows.append(task | row)
    return rows


def main() -> None:
    args = parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(mixed_precision=args.mixed_precision, cpu=not torch.cuda.is_available())
    set_seed(args.seed)
    config = load_config(args.config)
    size, spacing, limit = tuple(config["mask_unet"]["sample_size"]), config["spacing"], config["max_sequence_length"]
    network = ContinuousMaskUNet(config["mask_unet"]).train().to(memory_format=torch.channels_last_3d)
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        timestep_spacing="trailing",
        clip_sample=False,
    )
    tokenizer, encoder = load_text_encoder(args.text_encoder, config["mask_unet"]["cross_attention_dim"])
    average = EMAModel(network.parameters(), decay=args.ema_decay)
    labels, texts = cached(Cases(args, size, spacing), args.cache_dir or args.output_dir / "cache", 0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.learning_rate, weight_decay=1e-5)
    schedule = get_scheduler("constant_with_warmup", optimizer, num_warmup_steps=args.lr_warmup_steps)
    network, optimizer, schedule = accelerator.prepare(network, optimizer, schedule)
    loader = DataLoader(
        LabelMaps(labels, texts, args),
        batch_sampler=Places(len(texts), args.train_batch_size, accelerator, args.seed, 0),
    )
    started, total = time.monotonic(), scheduler.config.num_train_timesteps
    bar = tqdm(total=args.max_train_steps, desc="continuous")
    for step, batch in enumerate(loader):
        if step == args.max_train_steps:
            break
        clean = batch["labels"].to(accelerator.device)
        draw = torch.Generator().manual_seed(mix(args.seed, step, accelerator.process_index, 1))
        t = (draw_timesteps(len(clean), total, args.high_noise_share, draw) - 1).to(clean.device)
        x = one_hot(clean)
        noisy = scheduler.add_noise(x, torch.randn(x.shape, generator=draw).to(x.device), t)
        text, mask = encode(tokenizer, encoder, batch["text"], limit, clean.device)
        error = (network(noisy, t, text, mask) - x).square().mean(1)
        loss = (error * torch.where(clean == TUMOR, args.tumor_weight, 1.0)).mean()
        refuse_non_finite(f"the loss is {loss.item()},", [loss], step, step)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        average.step(network.parameters())
        bar.update()
        bar.set_postfix(loss=f"{loss.item():.4f}")
    record = {"steps": args.max_train_steps, "seconds": time.monotonic() - started, "arguments": vars(args)}
    (args.output_dir / "training.json").write_text(json.dumps(record, indent=2, default=str))
    with averaged(network, average), accelerator.autocast():
        rows = draw_cases(network, scheduler, tokenizer, encoder.cpu(), limit, size, spacing, args)
    card = table(rows, {})
    (args.output_dir / "measured.json").write_text(json.dumps({"card": card}, indent=2) + "\n")
    print("\n".join(f"{name:60}  {value}" for name, value in card.items()))


if __name__ == "__main__":
    main()
