"""The decoder of `VQModel3D` in tiles against the whole volume at once, with the autoencoder of the configuration
"torso-3mm" and random weights: how far the two differ at most, relative to the range of the whole volume, for tiles
that share more and more latents; and the memory of both beyond the output for 1, 2 and 4 times the latents.
"""

import argparse
from functools import partial

import torch
from measure import extra_peak_memory, print_table, row

from guidegen_diffusers import VQModel3D, load_config


@torch.no_grad()
def decode(vae: VQModel3D, tile: tuple[int, int] | None, latents: torch.Tensor) -> torch.Tensor:
    """In tiles of (latents a side, latents shared), or whole."""
    vae.disable_tiling()
    if tile is not None:
        vae.enable_tiling(*tile)
    return vae.decode(latents).sample


def difference_rows(
    vae: VQModel3D, tile_size: int, overlaps: list[int], device: torch.device
) -> list[tuple[str, ...]]:
    length = 2 * tile_size - 4
    latents = torch.randn(1, vae.config.latent_channels, length, length, 6, device=device)
    whole = decode(vae, None, latents)
    value_range = (whole.max() - whole.min()).item()
    rows = []
    for overlap in overlaps:
        difference = (decode(vae, (tile_size, overlap), latents) - whole).abs().max().item()
        what = f"difference / range, tiles of {tile_size} sharing {overlap}"
        bar = "<= 1e-3" if overlap == overlaps[-1] else ""
        rows.append(row(what, difference, value_range, "", difference / value_range, bar))
    return rows


def memory_rows(vae: VQModel3D, tile_size: int, device: torch.device) -> list[tuple[str, ...]]:
    tile = (tile_size, tile_size // 4)
    rows, tiled = [], []
    for times in (1, 2, 4):
        shape = (tile_size * 3 // 2 * times, tile_size, tile_size)
        latents = torch.randn(1, vae.config.latent_channels, *shape, device=device)
        small = latents[:, :, :tile_size]
        output = latents[:, :1].numel() * vae.downscale_factor**3 * latents.element_size()
        extra = [
            extra_peak_memory(partial(decode, vae, way, latents), partial(decode, vae, way, small), device)
            for way in (tile, None)
        ]
        beyond = [value and value - output for value in extra]
        rows.append(row(f"memory beyond the output, {'x'.join(map(str, shape))} latents", *beyond, "MB"))
        tiled.append(beyond[0])
    growth = tiled[0] and max(tiled) / min(tiled)
    what = "memory beyond the output, tiled: largest (ours) / smallest"
    rows.append(row(what, tiled[0] and max(tiled), tiled[0] and min(tiled), "MB", growth, "<= 1.15"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Decoding in tiles against decoding whole.")
    parser.add_argument("--config", default="torso-3mm", help="whose autoencoder (default: torso-3mm)")
    parser.add_argument("--size", type=int, default=32, help="latents a side of the tiles compared (default: 32)")
    parser.add_argument(
        "--overlaps", type=int, nargs="+", default=[4, 8, 12, 16], help="latents shared; the last has the bar"
    )
    parser.add_argument(
        "--memory-size", type=int, default=24, help="latents a side of the tiles weighed (default: 24)"
    )
    parser.add_argument("--device", type=torch.device, default="cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    vae = VQModel3D(**load_config(args.config)["vae"]).eval().to(args.device)
    rows = difference_rows(vae, args.size, args.overlaps, args.device)
    rows += memory_rows(vae, args.memory_size, args.device)
    print_table(f"VQModel3D.decode of {args.config}, random weights, float32, {args.device}; ours: in tiles", rows)


if __name__ == "__main__":
    main()
