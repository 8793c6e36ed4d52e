"""The O(N) reverse step and KL of `CategoricalDDPMScheduler` against the N x N matrices of the D3PM paper (arXiv 2107.03006),

    q(x_s = k | x_t = j, x_0 = c) = q(x_t = j | x_s = k) q(x_s = k | x_0 = c) / q(x_t = j | x_0 = c)
    p(x_s = k | x_t = j) = sum_c q(x_s = k | x_t = j, x_0 = c) f_c,   f = softmax(logits)

written as one reads it: the first line for all k and c of every voxel, a (V, N, N) tensor; the product with f; one draw of
`torch.multinomial`; autograd for the KL. Both must first agree on a small grid. A second alternative, reported without a bar,
gathers the first line from a table by x_t, the best that N x N matrices can do.
"""

import argparse
import functools

import torch
from measure import MEGABYTE, extra_peak_memory, interleaved_times, print_table

from guidegen_diffusers import CategoricalDDPMScheduler


T = 600  # a middle timestep of 25 steps over 1000


def case(scheduler: CategoricalDDPMScheduler, size: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Logits (1, N, X, Y, Z), x_0 and x_t (1, X, Y, Z) of a cube."""
    num_classes = scheduler.config.num_classes
    logits = torch.randn(1, num_classes, size, size, size, device=device)
    original = torch.randint(0, num_classes, (1, size, size, size), dtype=torch.uint8, device=device)
    noise = scheduler.sample_noise(original.shape, device=device)
    noisy = scheduler.add_noise(original, noise, torch.tensor([T], device=device))
    return logits, original, noisy


def transitions(scheduler: CategoricalDDPMScheduler, s: int, device: torch.device) -> list[torch.Tensor]:
    """Q_t|s, Q_s and Q_t, (N, N): row the class before, column the class after."""
    n, abar = scheduler.config.num_classes, scheduler.alphas_cumprod
    rates = (abar[T] / abar[s], abar[s], abar[T])
    return [(rate * torch.eye(n) + (1 - rate) / n).to(device, torch.float32) for rate in rates]


def dense_posterior(noisy: torch.Tensor, q_step: torch.Tensor, q_s: torch.Tensor, q_t: torch.Tensor) -> torch.Tensor:
    """q(x_s = k | x_t, x_0 = c), (V, c, k)."""
    j = noisy.flatten().long()
    return q_step.T[j][:, None, :] * q_s / q_t.T[j][:, :, None]


def table_posterior(noisy: torch.Tensor, q_step: torch.Tensor, q_s: torch.Tensor, q_t: torch.Tensor) -> torch.Tensor:
    """The same, gathered from its value for every j."""
    table = q_step.T[:, None, :] * q_s / q_t.T[:, :, None]  # (j, c, k)
    return table[noisy.flatten().long()]


def dense_prediction(logits: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """p(x_s = k | x_t), (V, k)."""
    f = logits.movedim(1, -1).flatten(0, 3).softmax(-1)
    return (f[:, :, None] * q).sum(1)


def dense_step(posterior, matrices: list[torch.Tensor], logits: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
    p = dense_prediction(logits, posterior(noisy, *matrices))
    return torch.multinomial(p, 1).to(torch.uint8).view(noisy.shape)


def dense_kl(
    posterior, matrices: list[torch.Tensor], logits: torch.Tensor, original: torch.Tensor, noisy: torch.Tensor
) -> torch.Tensor:
    q = posterior(noisy, *matrices)
    c = original.flatten().long()
    pi = q[torch.arange(len(c), device=c.device), c]
    return (pi * (pi.log() - dense_prediction(logits, q).log())).sum(1).view(original.shape)


def our_kl(scheduler: CategoricalDDPMScheduler, logits, original, noisy) -> torch.Tensor:
    return scheduler.kl_divergence(logits, original, noisy, torch.tensor([T]))


def with_gradient(kl, logits: torch.Tensor, *labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = logits.detach().requires_grad_()
    loss = kl(logits, *labels).mean()
    return loss.detach(), torch.autograd.grad(loss, logits)[0]


def check_agreement(scheduler: CategoricalDDPMScheduler, device: torch.device) -> None:
    logits, original, noisy = case(scheduler, 8, device)
    s = scheduler.previous_timestep(T)
    matrices = transitions(scheduler, s, device)
    expected = scheduler.posterior(logits, T, noisy, s).movedim(1, -1).flatten(0, 3)
    loss, gradient = with_gradient(functools.partial(our_kl, scheduler), logits, original, noisy)
    for posterior in (dense_posterior, table_posterior):
        torch.testing.assert_close(dense_prediction(logits, posterior(noisy, *matrices)), expected, rtol=0, atol=1e-5)
        kl = functools.partial(dense_kl, posterior, transitions(scheduler, T - 1, device))
        dense_loss, dense_gradient = with_gradient(kl, logits, original, noisy)
        torch.testing.assert_close(dense_loss, loss, rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(dense_gradient, gradient, rtol=1e-2, atol=1e-3 * gradient.abs().max().item())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=64, help="side of the cube for the ratios")
    parser.add_argument("--large-size", type=int, default=128, help="side of the cube for our memory alone")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    args = parser.parse_args()
    torch.manual_seed(0)
    scheduler = CategoricalDDPMScheduler()
    scheduler.set_timesteps(25)
    check_agreement(scheduler, args.device)

    q_step = transitions(scheduler, scheduler.previous_timestep(T), args.device)
    q_loss = transitions(scheduler, T - 1, args.device)

    def our_step(logits, original, noisy):
        return scheduler.step(logits, T, noisy)

    def our_loss(*inputs):
        return with_gradient(functools.partial(our_kl, scheduler), *inputs)

    def naive_step(posterior, logits, original, noisy):
        return dense_step(posterior, q_step, logits, noisy)

    def naive_loss(posterior, *inputs):
        return with_gradient(functools.partial(dense_kl, posterior, q_loss), *inputs)

    small, inputs = case(scheduler, 16, args.device), case(scheduler, args.size, args.device)
    for f in (our_step,our_loss): print(f.__name__, extra_peak_memory(lambda: f(*inputs), lambda: f(*small), args.device)/1e6)
    for f in (naive_step, naive_loss):
      for p in (dense_posterior, table_posterior):
        print(f.__name__, extra_peak_memory(lambda: f(p,*inputs), lambda: f(p,*small), args.device)/1e6)
    for a,b in ((our_step,naive_step),(our_loss,naive_loss)):
      for p in (dense_posterior, table_posterior):
        print(a.__name__, p.__name__, interleaved_times(lambda: a(*inputs), lambda: b(p, *inputs), 5, args.device))


if __name__ == "__main__":
    main()
