"""Why the CT stage's steps lead: the standard deviation that DDIM ends with on unit Gaussian latents, whose best noise
prediction is known, sqrt(1 - abar_t) z_t. Exact arithmetic ends near 1 with any spacing; a rounded or slightly wrong
prediction does not where the first step divides by sqrt(abar_t) close to 0, as it does at t = 999.
"""

import torch
from diffusers import DDIMScheduler

from guidegen_diffusers import load_config


ERRORS = {
    "exact": lambda noise, generator: noise,
    "bf16": lambda noise, generator: noise.bfloat16().float(),
    "1 % error": lambda noise, generator: noise + 0.01 * torch.randn(noise.shape, generator=generator),
}


def final_std(spacing: str, steps: int, error: str) -> float:
    scheduler = DDIMScheduler.from_config({**load_config("tiny")["scheduler"], "timestep_spacing": spacing})
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(200_000, generator=generator)
    for t in scheduler.timesteps:
        noise = ERRORS[error]((1 - scheduler.alphas_cumprod[t]).sqrt() * z, generator)
        z = scheduler.step(noise, t, z).prev_sample
    return z.std().item()


def main() -> None:
    print(f"{'spacing':<10}{'steps':>6}" + "".join(f"{error:>12}" for error in ERRORS))
    for spacing in ("leading", "trailing", "linspace"):
        for steps in (20, 50, 200):
            row = "".join(f"{final_std(spacing, steps, error):>12.2f}" for error in ERRORS)
            print(f"{spacing:<10}{steps:>6}{row}")


if __name__ == "__main__":
    main()
