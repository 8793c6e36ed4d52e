"""Parameters of the shipped configurations, beside the paper's (GuideGen, arXiv 2403.07247)."""

import torch

from guidegen_diffusers import GuideGenPipeline, available_configs


def millions(*networks: torch.nn.Module) -> float:
    return sum(p.numel() for network in networks for p in network.parameters()) / 1e6


def main() -> None:
    print(f"{'configuration':<14}{'mask network':>14}{'U-Net':>10}{'semantic':>10}{'autoencoder':>13}{'CT side':>10}")
    for name in available_configs():
        with torch.device("meta"):
            pipe = GuideGenPipeline.from_config(name, tokenizer=None, text_encoder=None)
        parts = [millions(part) for part in (pipe.mask_unet, pipe.unet, pipe.semantic_encoder, pipe.vae)]
        columns = zip([*parts, sum(parts[1:])], (14, 10, 10, 13, 10), strict=True)
        print(f"{name:<14}" + "".join(f"{count:>{width - 2}.2f} M" for count, width in columns))
    print(f"{'the paper':<14}{'49.1 M':>14}{'':>33}{'196.8 M':>10}")


if __name__ == "__main__":
    main()
