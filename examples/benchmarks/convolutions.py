"""`Conv3d` against `nn.Conv3d` in the networks of a shipped configuration, one volume in float32 on a CPU: a step of
Stage I's network, a step of Stage III's and the decoder of Stage II, random weights. `nn.Conv3d` takes a slow kernel
there. That both give the same is checked first.
"""

import argparse
import copy
from functools import partial

import torch
from measure import interleaved_times, print_table, row
from torch import nn

from guidegen_diffusers import GuideGenPipeline
from guidegen_diffusers.models.conv_3d import Conv3d


def with_torchs(network: nn.Module) -> nn.Module:
    """A copy whose convolutions are torch's."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, Conv3d):
            module.__class__ = nn.Conv3d
    return network


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description="Convolutions of one volume on a CPU.")
    parser.add_argument("--config", default="torso-6mm")
    parser.add_argument("--threads", type=int, default=1, help="(default: 1)")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    pipe = GuideGenPipeline.from_config(args.config)
    text = torch.randn(1, 8, pipe.unet.config.cross_attention_dim)
    labels = pipe.mask_scheduler.sample_noise((1, *pipe.sample_size))
    cells = [size // pipe.vae.downscale_factor for size in pipe.sample_size]
    state = torch.randn(1, pipe.unet.config.in_channels, *cells)
    latents = torch.randn(1, pipe.vae.config.latent_channels, *cells)
    calls = {
        "a step of the mask U-Net": (pipe.mask_unet, lambda network: network(labels, 500, text).sample),
        "a step of the latent U-Net": (pipe.unet, lambda network: network(state, 500, text).sample),
        "the decoder": (pipe.vae, lambda network: network.decode(latents).sample),
    }
    rows = []
    for what, (network, call) in calls.items():
        torchs = with_torchs(network)
        expected = call(torchs)
        difference = (call(network) - expected).abs().max() / expected.abs().max()
        if difference > 1e-3:
            raise SystemExit(f"{what}: the two differ by {difference:.1e} of the range.")
        ours, alternative, ratio = interleaved_times(
            partial(call, network), partial(call, torchs), args.repeats, torch.device("cpu")
        )
        rows.append(row(what, ours, alternative, "ms", ratio, ">= 1"))
    print_table(f"{args.config}, one volume, float32, {args.threads} thread(s), against nn.Conv3d", rows)


if __name__ == "__main__":
    main()
