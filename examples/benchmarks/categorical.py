"""The O(N) reverse step and KL of `CategoricalDDPMScheduler` against the N x N form of the D3PM paper (arXiv
2107.03006),

    q(x_s = k | x_t = j, x_0 = c) = q(x_t = j | x_s = k) q(x_s = k | x_0 = c) / q(x_t = j | x_0 = c)
    p(x_s = k | x_t = j) = sum_c q(x_s = k | x_t = j, x_0 = c) f_c,   f = softmax(logits)

as a reader writes it: the first line of every voxel for all c and k, a (V, N, N) tensor; its product with f; a draw of
`torch.multinomial`, or the KL and its gradient by autograd. That both say the same is checked on a small grid first. A
second alternative, shown without a bar, gathers the first line from a table by x_t: the least an N x N form can do.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from measure import extra_peak_memory, interleaved_times, print_table, row

from guidegen_diffusers import CategoricalDDPMScheduler


T = 600  # a middle timestep of 25 steps over 1000


def case(scheduler: CategoricalDDPMScheduler, size: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Logits (1, N, X, Y, Z), x_0 and x_t (1, X, Y, Z) of a cube."""
    n = scheduler.config.num_classes
    logits = torch.randn(1, n, size, size, size, device=device)
    original = torch.randint(0, n, (1, size, size, size), dtype=torch.uint8, device=device)
    noise = scheduler.sample_noise(original.shape, device=device)
    return logits, original, scheduler.add_noise(original, noise, torch.tensor([T]))


def transitions(scheduler: CategoricalDDPMScheduler, s: int, device: torch.device) -> list[torch.Tensor]:
    """Q_t|s, Q_s and Q_t, each (N, N) with a row for each class before and a column for each class after."""
    n, abar = scheduler.config.num_classes, scheduler.alphas_cumprod
    rates = (abar[T] / abar[s], abar[s], abar[T])
    return [(rate * torch.eye(n) + (1 - rate) / n).to(device, torch.float32) for rate in rates]


def dense_posterior(
    noisy: torch.Tensor, q_step: torch.Tensor, q_s: torch.Tensor, q_t: torch.Tensor
) -> torch.Tensor:  # (V, c, k)
    j = noisy.flatten().long()
    return q_step.T[j][:, None, :] * q_s / q_t.T[j][:, :, None]


def table_posterior(
    noisy: torch.Tensor, q_step: torch.Tensor, q_s: torch.Tensor, q_t: torch.Tensor
) -> torch.Tensor:  # (V, c, k)
    table = q_step.T[:, None, :] * q_s / q_t.T[:, :, None]  # (j, c, k)
    return table[noisy.flatten().long()]


def dense_prediction(logits: torch.Tensor, q: torch.Tensor) -> torch.Tensor:  # (V, k)
    f = logits.movedim(1, -1).flatten(0, 3).softmax(-1)
    return (f[:, :, None] * q).sum(1)


def dense_step(
    posterior: Callable[..., torch.Tensor],
    matrices: list[torch.Tensor],
    logits: torch.Tensor,
    original: torch.Tensor,
    noisy: torch.Tensor,
) -> torch.Tensor:
    p = dense_prediction(logits, posterior(noisy, *matrices))
    return torch.multinomial(p, 1).to(torch.uint8).view(noisy.shape)


def dense_kl(
    posterior: Callable[..., torch.Tensor],
    matrices: list[torch.Tensor],
    logits: torch.Tensor,
    original: torch.Tensor,
    noisy: torch.Tensor,
) -> torch.Tensor:
    q = posterior(noisy, *matrices)
    c = original.flatten().long()
    pi = q[torch.arange(len(c), device=c.device), c]
    return (pi * (pi.log() - dense_prediction(logits, q).log())).sum(1).view(noisy.shape)


def our_step(
    scheduler: CategoricalDDPMScheduler, logits: torch.Tensor, original: torch.Tensor, noisy: torch.Tensor
) -> torch.Tensor:
    return scheduler.step(logits, T, noisy).prev_sample


def our_kl(
    scheduler: CategoricalDDPMScheduler, logits: torch.Tensor, original: torch.Tensor, noisy: torch.Tensor
) -> torch.Tensor:
    return scheduler.kl_divergence(logits, original, noisy, torch.tensor([T]))


def gradient(kl: Callable[..., torch.Tensor], logits: torch.Tensor, *labels: torch.Tensor) -> torch.Tensor:
    logits = logits.detach().requires_grad_()
    return torch.autograd.grad(kl(logits, *labels).mean(), logits)[0]


def check_agreement(scheduler: CategoricalDDPMScheduler, device: torch.device) -> None:
    logits, _, noisy = inputs = case(scheduler, 8, device)
    s = scheduler.previous_timestep(T)
    p = scheduler.posterior(logits, T, noisy, s).movedim(1, -1).flatten(0, 3)
    kl, grad = our_kl(scheduler, *inputs), gradient(partial(our_kl, scheduler), *inputs)
    for posterior in (dense_posterior, table_posterior):
        q = posterior(noisy, *transitions(scheduler, s, device))
        torch.testing.assert_close(dense_prediction(logits, q), p, rtol=0, atol=1e-5)
        naive = partial(dense_kl, posterior, transitions(scheduler, T - 1, device))
        torch.testing.assert_close(naive(*inputs), kl, rtol=0, atol=1e-5)
        torch.testing.assert_close(gradient(naive, *inputs), grad, rtol=0, atol=1e-3 * grad.abs().max().item())


def main() -> None:
    parser = argparse.ArgumentParser(description="The categorical step and KL against their N x N form.")
    parser.add_argument("--size", type=int, default=64, help="side of the cube of the comparison (default: 64)")
    parser.add_argument("--large", type=int, default=128, help="side of the cube of our memory alone (default: 128)")
    parser.add_argument("--repeats", type=int, default=9, help="pairs of timings (default: 9)")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="of the CPU (default: 1; with more, every small kernel waits for the core that is busy elsewhere)",
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    scheduler = CategoricalDDPMScheduler()
    scheduler.set_timesteps(25)
    check_agreement(scheduler, args.device)

    step_matrices = transitions(scheduler, scheduler.previous_timestep(T), args.device)
    kl_matrices = transitions(scheduler, T - 1, args.device)
    dense, table = dense_posterior, table_posterior
    comparisons = (
        (
            "reverse step",
            partial(our_step, scheduler),
            partial(dense_step, dense, step_matrices),
            partial(dense_step, table, step_matrices),
        ),
        (
            "KL and its gradient",
            partial(gradient, partial(our_kl, scheduler)),
            partial(gradient, partial(dense_kl, dense, kl_matrices)),
            partial(gradient, partial(dense_kl, table, kl_matrices)),
        ),
    )

    small, middle = case(scheduler, 16, args.device), case(scheduler, args.size, args.device)
    size, rows = f"{args.size}^3", []
    for what, ours, naive, gathered in comparisons:
        for alternative, name, bars in ((naive, "N x N", (">= 25", ">= 20")), (gathered, "N x N table", ("", ""))):
            a, b = partial(ours, *middle), partial(alternative, *middle)
            *seconds, ratio = interleaved_times(a, b, args.repeats, args.device)
            rows.append(row(f"{what}, {size}: time, {name}", *seconds, "ms", ratio, bars[0]))
            a, b = (
                extra_peak_memory(partial(call, *middle), partial(call, *small), args.device)
                for call in (ours, alternative)
            )
            rows.append(row(f"{what}, {size}: extra memory, {name}", a, b, "MB", bar=bars[1]))
    del middle

    large = case(scheduler, args.large, args.device)
    logits_size = large[0].numel() * large[0].element_size()
    for what, ours, *_ in comparisons:
        extra = extra_peak_memory(partial(ours, *large), partial(ours, *small), args.device)
        ratio = extra and extra / logits_size
        rows.append(row(f"{what}, {args.large}^3: extra memory / logits", extra, logits_size, "MB", ratio, "<= 2.5"))
    print_table(
        f"{scheduler.config.num_classes} classes, t = {T}, float32, {args.device}, threads: {args.threads}; "
        f"medians of {args.repeats}",
        rows,
    )


if __name__ == "__main__":
    main()
