"""Nearest code by blocks of rows (`nearest_code`) against the dense table of distances, `torch.cdist(...).argmin(1)`,
at the sizes of the paper: 32^3 latents and 8192 codes of 8 dimensions. That the codes found are as near is checked.
"""

import argparse
from functools import partial

import torch
from measure import extra_peak_memory, interleaved_times, print_table, row

from guidegen_diffusers.models.vector_quantizer import nearest_code


def dense(vectors: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    return torch.cdist(vectors, codes).argmin(1)


def check_agreement(vectors: torch.Tensor, codes: torch.Tensor) -> None:
    """Equal distances rather than equal indices: rounding decides between codes that are equally near."""
    ours, theirs = ((vectors - codes[find(vectors, codes)]).norm(dim=1) for find in (nearest_code, dense))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def main() -> None:
    parser = argparse.ArgumentParser(description="Nearest code by blocks against the dense table of distances.")
    parser.add_argument("--size", type=int, default=32, help="side of the cube of latents (default: 32)")
    parser.add_argument("--codes", type=int, default=8192, help="codes of the codebook (default: 8192)")
    parser.add_argument("--repeats", type=int, default=9, help="pairs of timings (default: 9)")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: 1)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    codes = torch.rand(args.codes, 8, device=args.device) * 2 - 1
    vectors, few = (torch.randn(n, 8, device=args.device) for n in (args.size**3, 1000))
    check_agreement(vectors, codes)

    calls = partial(nearest_code, vectors, codes), partial(dense, vectors, codes)
    *seconds, ratio = interleaved_times(*calls, args.repeats, args.device)
    warm_ups = partial(nearest_code, few, codes), partial(dense, few, codes)
    ours, theirs = (
        extra_peak_memory(call, warm_up, args.device) for call, warm_up in zip(calls, warm_ups, strict=True)
    )
    limit = 64e6
    rows = [
        row("time", *seconds, "ms", ratio, ">= 1"),
        row("extra memory", ours, theirs, "MB"),
        row("extra memory / 64 MB", ours, limit, "MB", ours and ours / limit, "<= 1"),
    ]
    print_table(
        f"{args.size}^3 vectors x {args.codes} codes x 8, float32, {args.device}, threads: {args.threads}; "
        f"medians of {args.repeats}",
        rows,
    )


if __name__ == "__main__":
    main()
