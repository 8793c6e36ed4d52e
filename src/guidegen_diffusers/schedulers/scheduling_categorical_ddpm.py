"""Categorical diffusion over label maps with a uniform kernel (GuideGen Stage I; multinomial diffusion, arXiv
2102.05379; D3PM, arXiv 2107.03006), in closed form.

Notation of the paper: N classes, t = 1..T, `abar` the cosine schedule with abar_0 = 1, and for one reverse step s < t

    alpha = abar_t / abar_s,   a = abar_s,   w = (1 - a) / N,   j = x_t,   f = p(x_0 | x_t),
    Z_same = alpha a + (1 - alpha a) / N,   Z_diff = (1 - alpha a) / N,   Z_k = Z_same if k = j else Z_diff,
    L_k = alpha [k = j] + (1 - alpha) / N,   S = f_j / Z_same + (1 - f_j) / Z_diff,

    p(x_s = k | x_t) = L_k (w S + a f_k / Z_k)                                                    (posterior)
    KL(pi || p) = sum_k pi_k log( ((w + a [k = c]) / Z_c) / (w S + a f_k / Z_k) ),  c = x_0         (kl_divergence)

with pi_k = L_k (w + a [k = c]) / Z_c the true posterior. A state is a `uint8` label map. Nothing of size N x N is ever
made, and everything of size N is made for a block of voxels at a time, forward and backward.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput

from .layout import Layout, spread_volumes
from .posterior_kl import PosteriorKL
from .reverse_kernel import ReverseKernel, logits_block, voxel_blocks


__all__ = ["CategoricalDDPMScheduler", "CategoricalDDPMSchedulerOutput"]

Generators = torch.Generator | list[torch.Generator] | None
_ROUNDS = 5  # of weighing classes until their volumes are those that are kept
_FEWEST = 1.0  # voxels that count; of fewer, a ratio says nothing


@dataclass
class CategoricalDDPMSchedulerOutput(BaseOutput):
    """
    Args:
        prev_sample (`torch.Tensor` of shape `(B, X, Y, Z)`, `uint8`): x_s, the next state.
        pred_original_sample (`torch.Tensor` of shape `(B, X, Y, Z)`, `uint8`):
            the x_0 that the step went through: a draw from f, at the last step its argmax.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor


def _draw_class(weights: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """A class for each voxel with probability in proportion to `weights` (N, V), from uniform `u` (V,) in [0, 1).

    Sums run in one order throughout, so that rounding never picks a class of weight 0. Overwrites `weights`.
    """
    for k in range(1, len(weights)):
        weights[k] += weights[k - 1]
    threshold, drawn = u * weights[-1], torch.zeros_like(u, dtype=torch.uint8)
    for cumulative in weights[:-1]:
        drawn += cumulative <= threshold
    return drawn


class CategoricalDDPMScheduler(SchedulerMixin, ConfigMixin):
    """
    Uniform-kernel categorical diffusion for label maps.

    Timesteps count as in the paper, t = T..1, and each step goes to the next timestep of the list (the last one to
    0), so any decreasing subset of 1..T is exact. The network's output is a volume of logits `(B, N, X, Y, Z)`.

    Args:
        num_train_timesteps (`int`, defaults to 1000): T.
        num_classes (`int`, defaults to 21): N.
        cosine_offset (`float`, defaults to 0.008): s of the cosine schedule.
        max_beta (`float`, defaults to 0.999): the ceiling of beta_t.
        prediction_type (`str`, defaults to `"sample"`):
            `"sample"`: the logits are those of p(x_0 | x_t), as in the paper. `"leave_one_out"`: the logits of a voxel
            leave out what its own x_t says, and the scheduler adds that evidence, log q(x_t | x_0), exactly.
        whole_class (`int`, *optional*): a class whose voxels are drawn together, in one piece. The first step draws
            how many there are and where they lie; later steps keep the number, and the place follows f. Drawn voxel
            by voxel, a long step scatters them over all places that are likely, and the next step takes the crumbs
            for noise; drawn anew in each step, a small piece is lost before x_t shows it.
        keep_volumes (`bool`, defaults to `False`): weigh the classes in each step so that f expects as many voxels of
            each as it did at the first, and at the last so that they are the likeliest there. The number should not
            drift, but in long steps it does: drawn voxel by voxel, a thin organ looks to the next step like less.
        volume_spread (`list[list[float]]`, *optional*): how much volumes vary beside what the condition says, which
            `keep_volumes` alone would rule out: for each class two standard deviations of its log-volume, one that all
            classes have in common, as with the size of a body, and its own. Classes of spread 0 take what is left.
        evidence_weight (`float`, defaults to 1.0): with `"leave_one_out"`, how much of what a voxel's own x_t says a
            step believes. Long steps leave errors in x_t that its noise level does not tell of; believed in full they
            end as rough edges.
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        num_classes: int = 21,
        cosine_offset: float = 0.008,
        max_beta: float = 0.999,
        prediction_type: str = "sample",
        whole_class: int | None = None,
        keep_volumes: bool = False,
        volume_spread: list[list[float]] | None = None,
        evidence_weight: float = 1.0,
    ):
        if not 2 <= num_classes <= 256:
            raise ValueError(f"num_classes: got {num_classes}, expected 2..256 (states are uint8).")
        if prediction_type not in ("sample", "leave_one_out"):
            raise ValueError(f"prediction_type: got {prediction_type!r}, expected 'sample' or 'leave_one_out'.")
        if whole_class is not None and not 0 <= whole_class < num_classes:
            raise ValueError(f"whole_class: got {whole_class}, expected a class below {num_classes}, or None.")
        if volume_spread is not None and (
            not keep_volumes
            or len(volume_spread) != num_classes
            or any(len(row) != 2 or min(row) < 0 for row in volume_spread)
        ):
            raise ValueError(
                f"volume_spread: got {volume_spread} with keep_volumes={keep_volumes}, expected two numbers of at "
                f"least 0 for each of {num_classes} classes, and keep_volumes=True."
            )
        if not 0 <= evidence_weight <= 1:
            raise ValueError(f"evidence_weight: got {evidence_weight}, expected 0..1.")
        t = torch.arange(num_train_timesteps + 1, dtype=torch.float64)
        f = torch.cos((t / num_train_timesteps + cosine_offset) / (1 + cosine_offset) * math.pi / 2) ** 2
        self.betas = (1 - f[1:] / f[:-1]).clamp(max=max_beta)  # beta_1..beta_T
        self.alphas_cumprod = torch.cat([torch.ones(1, dtype=torch.float64), (1 - self.betas).cumprod(0)])  # abar_0..T
        self.num_inference_steps: int | None = None
        self.timesteps = torch.arange(num_train_timesteps, 0, -1)
        self._layouts: dict[int, Layout] = {}  # by item of the batch

    def __len__(self) -> int:
        return self.config.num_train_timesteps

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[int] | None = None,
    ) -> None:
        """Spread `num_inference_steps` evenly over T..1 (T included), or take `timesteps` as they are given."""
        total = self.config.num_train_timesteps
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError("set_timesteps: pass either `num_inference_steps` or `timesteps`.")
        if timesteps is None:
            if not 1 <= num_inference_steps <= total:
                raise ValueError(f"num_inference_steps: got {num_inference_steps}, expected 1..{total}.")
            timesteps = [round(total * (1 - i / num_inference_steps)) for i in range(num_inference_steps)]
        timesteps = [int(t) for t in timesteps]
        if (
            not timesteps
            or sorted(set(timesteps), reverse=True) != timesteps
            or timesteps[-1] < 1
            or timesteps[0] > total
        ):
            raise ValueError(f"timesteps: got {timesteps}, expected decreasing integers within {total}..1.")
        self.num_inference_steps = len(timesteps)
        self.timesteps = torch.tensor(timesteps, device=device)
        self._previous = dict(zip(timesteps, [*timesteps[1:], 0], strict=True))
        self._layouts = {}

    def previous_timestep(self, timestep: int | torch.Tensor) -> int:
        """The timestep that a step from `timestep` goes to; 0 after the last."""
        if self.num_inference_steps is None:
            raise ValueError("previous_timestep: the scheduler has no steps yet, call `set_timesteps` first.")
        timestep = int(timestep)
        if timestep not in self._previous:
            raise ValueError(
                f"timestep: got {timestep}, expected one of `scheduler.timesteps` {list(self._previous)}."
            )
        return self._previous[timestep]

    def scale_model_input(self, sample: torch.Tensor, timestep: int | torch.Tensor | None = None) -> torch.Tensor:
        """The sample as it is; here for interchangeability."""
        return sample

    def sample_noise(
        self, shape: Sequence[int], generator: Generators = None, device: str | torch.device | None = None
    ) -> torch.Tensor:
        """x_T of sampling: uniform classes, `uint8`; one generator for all items, or one for each."""
        n = self.config.num_classes
        return _draw(shape, generator, device, lambda s, **kw: torch.randint(0, n, s, dtype=torch.uint8, **kw))

    def add_noise(
        self,
        original_samples: torch.Tensor,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
        generator: Generators = None,
    ) -> torch.Tensor:
        """x_t ~ q(x_t | x_0): a voxel keeps x_0 with probability abar_t, else takes `noise` (of `sample_noise`)."""
        device = original_samples.device
        times = timesteps.cpu().long()
        if times.min() < 0 or times.max() > len(self):
            raise ValueError(f"timesteps: got {times.tolist()}, expected numbers in 0..{len(self)}.")
        keep = self.alphas_cumprod[times].float().to(device)
        u = _draw(original_samples.shape, generator, device, torch.rand)
        return torch.where(u < keep.view(-1, *[1] * (original_samples.ndim - 1)), original_samples, noise)

    @staticmethod
    def guide(logits_uncond: torch.Tensor, logits_cond: torch.Tensor, guidance_scale: float) -> torch.Tensor:
        """log f_u + g (log f_c - log f_u). Raw logits serve, off by a constant a voxel that softmax drops."""
        return torch.lerp(logits_uncond, logits_cond, guidance_scale)

    def original_logits(self, model_output: torch.Tensor, timestep: int, sample: torch.Tensor) -> torch.Tensor:
        """Logits of p(x_0 | x_t), whatever the prediction type."""
        shift = self._kernel(int(timestep), 0).loo_shift
        if not shift:
            return model_output
        index = sample.long()[:, None]
        return model_output.scatter_add(1, index, model_output.new_full((1, 1, 1, 1, 1), shift).expand(index.shape))

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        generator: Generators = None,
        return_dict: bool = True,
    ) -> CategoricalDDPMSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """Draw x_s ~ p(x_s | x_t): c ~ f, then x_s ~ pi(. | j, c), which is one of three roads: j, c or any class.

        With a `whole_class` or `keep_volumes` the steps of one batch belong together, from the first timestep on.

        Args:
            model_output (`torch.Tensor` of shape `(B, N, X, Y, Z)`): the network's logits.
            timestep (`int`): t, one of `timesteps`.
            sample (`torch.Tensor` of shape `(B, X, Y, Z)`, `uint8`): x_t.
            generator: one for all items, or a list with one for each.
        """
        self._check(model_output, sample)
        t = int(timestep)
        s = self.previous_timestep(t)
        kernel = self._kernel(t, s)
        kernel = replace(kernel, loo_shift=kernel.loo_shift * self.config.evidence_weight)
        device = model_output.device
        if s > 0:
            u = _draw(sample.shape, generator, device, torch.rand).flatten(1)  # picks c
            v = _draw(sample.shape, generator, device, torch.rand).flatten(1)  # picks the road
            anything = self.sample_noise(sample.shape, generator, device).flatten(1)
            diff, same = kernel.true_posterior(self.config.num_classes)
            # "any class" is what all classes share of pi; the rest goes to j and, where c differs, to c
            any_diff, any_same = self.config.num_classes * diff[2], self.config.num_classes * same[2]
            to_j = any_diff + diff[0] - diff[2]
        if t == self.timesteps[0]:
            self._layouts = {}
        logits, state = model_output.flatten(2), sample.flatten(1)
        previous, original = torch.empty_like(state), torch.empty_like(state)
        for b in range(len(state)):
            own = generator[b] if isinstance(generator, list) else generator
            piece, weight = self._keep_layout(b, logits[b], state[b], kernel, sample.shape[1:], own)
            for block in voxel_blocks(state.shape[1], device):
                j = state[b, block]
                x = logits_block(logits[b], block, j.long(), kernel)
                if weight is not None:
                    x = x + weight
                if piece is not None:
                    x = x.clone()
                    x[self.config.whole_class] = -math.inf
                c = x.max(0).indices.to(torch.uint8) if s == 0 else _draw_class((x - x.amax(0)).exp_(), u[b, block])
                if piece is not None:
                    c.masked_fill_(piece[block], self.config.whole_class)
                original[b, block] = c
                if s == 0:
                    continue
                road = v[b, block]
                stays = torch.where(c == j, road >= any_same, (road >= any_diff) & (road < to_j))
                previous[b, block] = torch.where(stays, j, torch.where(road < any_diff, anything[b, block], c))
        previous = original if s == 0 else previous
        previous, original = previous.view_as(sample), original.view_as(sample)
        if not return_dict:
            return previous, original
        return CategoricalDDPMSchedulerOutput(prev_sample=previous, pred_original_sample=original)

    def _keep_layout(self, item, logits, state, kernel, shape, generator) -> tuple[torch.Tensor | None, ...]:
        """Where x_0 is the whole class, (V,) boolean, and what to add to the logits, (N, 1), for the volumes that are
        kept; each None where the settings do not ask for it. The first step decides on the layout."""
        whole, keep = self.config.whole_class, self.config.keep_volumes
        if whole is None and not keep:
            return None, None
        f = None if whole is None else self._of_class(whole, logits, state, kernel).view(shape)
        if item in self._layouts:
            self._layouts[item].follow(f)
        else:
            volumes = sum(x.softmax(0).sum(1) for x in _logits_blocks(logits, state, kernel))
            self._layouts[item] = self._decide(volumes.float(), f, generator)
        layout = self._layouts[item]
        piece = None if f is None else layout.draw_piece(f).flatten()
        return piece, self._volume_weight(layout.volumes, logits, state, kernel) if keep else None

    def _decide(self, volumes: torch.Tensor, f: torch.Tensor | None, generator) -> Layout:
        """The layout of an item, of which f expects `volumes` (N,)."""
        if self.config.volume_spread is not None:
            spread = torch.tensor(self.config.volume_spread, device=volumes.device)
            normal = _draw((1 + len(volumes),), generator, volumes.device, torch.randn)
            volumes = spread_volumes(volumes, spread, normal)
        if f is None:
            return Layout(volumes)
        return Layout.decide(volumes, f, self.config.whole_class, _draw((1,), generator, "cpu", torch.rand).double())

    def _volume_weight(self, volumes: torch.Tensor, logits, state, kernel) -> torch.Tensor:
        """What to add to the logits, (N, 1), for a step to give `volumes` (N,): what f expects, and at the last step,
        which takes the likeliest class of each voxel, how many of these there are.

        Each class is weighed by the volume that it should have over the one that it has, over and over. The number of
        the likeliest is slow to follow, and in jumps: there weights move twice as far, by at most e, and half as far
        again once they went too far. A whole class, whose volume is kept as it is, is left alone.
        """
        blocks, count = _logits_blocks(logits, state, kernel), _likeliest if kernel.is_last else _expected
        blocks = [block if kernel.is_last else _odds(block) for block in blocks]
        weight = blocks[0].new_zeros((len(logits), 1))
        pace, before = torch.full_like(volumes, 2.0), torch.zeros_like(volumes)
        for _ in range(_ROUNDS):
            there = sum(count(block, weight) for block in blocks)
            more = (volumes.clamp(min=_FEWEST) / there.clamp(min=_FEWEST)).log()
            if self.config.whole_class is not None:
                more[self.config.whole_class] = 0
            if kernel.is_last:
                pace = torch.where(more * before < 0, pace / 2, pace)
                before, more = more, (pace * more).clamp(-1, 1)
            weight = weight + more[:, None]
        return weight

    @staticmethod
    def _of_class(k: int, logits, state, kernel) -> torch.Tensor:
        """f of one class, (V,)."""
        return torch.cat([x.softmax(0)[k].float() for x in _logits_blocks(logits, state, kernel)])

    def posterior(
        self, model_output: torch.Tensor, timestep: int, sample: torch.Tensor, previous_timestep: int
    ) -> torch.Tensor:
        """p(x_s = k | x_t) of every class and voxel, `(B, N, X, Y, Z)`, in at least float32."""
        self._check(model_output, sample)
        kernel = self._kernel(int(timestep), int(previous_timestep))
        logits, state = model_output.flatten(2), sample.flatten(1)
        dtype = torch.float64 if model_output.dtype == torch.float64 else torch.float32
        out = torch.empty(logits.shape, dtype=dtype, device=logits.device)
        for b in range(len(state)):
            for block in voxel_blocks(state.shape[1], logits.device):
                j = state[b, block].long()
                q = kernel.mixture(logits_block(logits[b], block, j, kernel).softmax(0), j)
                out[b, :, block] = (q * kernel.move).scatter_(0, j[None], q.gather(0, j[None]) * kernel.stay)
        return out.view(model_output.shape)

    def kl_divergence(
        self,
        model_output: torch.Tensor,
        original_samples: torch.Tensor,
        noisy_samples: torch.Tensor,
        timesteps: torch.Tensor,
        previous_timesteps: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """KL(q(x_s | x_t, x_0) || p_theta(x_s | x_t)) in nats a voxel, `(B, X, Y, Z)`; s = t - 1 unless given.

        At s = 0 it is the cross-entropy -log f_c. Differentiable (once) in the logits.
        """
        previous = timesteps - 1 if previous_timesteps is None else previous_timesteps
        pairs = list(zip(timesteps.tolist(), previous.tolist(), strict=True))
        return self._loss(model_output, original_samples, noisy_samples, pairs, clean=[s == 0 for _, s in pairs])

    def cross_entropy(
        self,
        model_output: torch.Tensor,
        original_samples: torch.Tensor,
        noisy_samples: torch.Tensor,
        timesteps: torch.Tensor,
        class_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The auxiliary loss -log p(x_0 | x_t) in nats a voxel, `(B, X, Y, Z)`.

        With `class_weights` (N,) a voxel of class c counts w_c times, and log w_k is added to each logit inside the
        loss: rare classes are heard, and the network's probabilities stay those of the data.
        """
        pairs = [(t, 0) for t in timesteps.tolist()]
        if class_weights is not None:
            if class_weights.shape != (self.config.num_classes,) or not (class_weights > 0).all():
                raise ValueError(
                    f"class_weights: got {class_weights}, expected {self.config.num_classes} numbers above 0."
                )
            class_weights = class_weights.to(model_output.device)
        clean = [True] * len(pairs)
        return self._loss(model_output, original_samples, noisy_samples, pairs, clean, class_weights)

    def _loss(self, logits, original, noisy, pairs, clean, weights=None) -> torch.Tensor:
        self._check(logits, noisy)
        self._check(logits, original)
        if len(pairs) != len(logits):
            raise ValueError(f"timesteps: got {len(pairs)}, expected one for each of the {len(logits)} items.")
        kernels = [self._kernel(t, s) for t, s in pairs]
        loss = PosteriorKL.apply(logits.flatten(2), original.flatten(1), noisy.flatten(1), kernels, clean, weights)
        return loss.view(original.shape)

    def _kernel(self, t: int, s: int) -> ReverseKernel:
        if not 0 <= s < t <= self.config.num_train_timesteps:
            raise ValueError(
                f"timesteps: got t = {t}, s = {s}, expected 0 <= s < t <= {self.config.num_train_timesteps}."
            )
        abar_s, abar_t = float(self.alphas_cumprod[s]), float(self.alphas_cumprod[t])
        leave_one_out = self.config.prediction_type == "leave_one_out"
        return ReverseKernel.between(abar_s, abar_t, self.config.num_classes, leave_one_out)

    def _check(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        expected = (logits.shape[0], self.config.num_classes, *logits.shape[2:])
        if logits.ndim != 5 or tuple(logits.shape) != expected:
            raise ValueError(f"model_output: got shape {tuple(logits.shape)}, expected (B, {expected[1]}, X, Y, Z).")
        shape = (expected[0], *expected[2:])
        if labels.shape != shape or labels.dtype != torch.uint8:
            raise ValueError(f"sample: got {tuple(labels.shape)} {labels.dtype}, expected {shape} torch.uint8.")
        if labels.device.type == "cpu" and labels.max() >= expected[1]:  # elsewhere the look would stall the device
            raise ValueError(f"sample: got class {labels.max()}, expected classes below {expected[1]}.")


def _logits_blocks(logits: torch.Tensor, state: torch.Tensor, kernel: ReverseKernel) -> Iterator[torch.Tensor]:
    """Logits of f, (N, V) a block of voxels."""
    return (logits_block(logits, b, state[b].long(), kernel) for b in voxel_blocks(len(state), state.device))


def _odds(logits: torch.Tensor) -> torch.Tensor:
    """exp of logits (N, V), the likeliest class of each voxel 1."""
    return (logits - logits.amax(0)).exp_()


def _expected(odds: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Voxels of each class, (N,), that probabilities in proportion to odds (N, V) times e^weight (N, 1) expect: two
    products of a matrix and a vector in place of a softmax."""
    weight = weight.exp()
    return weight[:, 0] * (odds @ (weight.T @ odds)[0].reciprocal())


def _likeliest(logits: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Voxels of each class, (N,), of which it is the likeliest by logits (N, V) and weight (N, 1)."""
    likeliest = (logits + weight).max(0).indices  # on a CPU several times as fast as argmax
    return likeliest.bincount(minlength=len(logits))


def _draw(shape: Sequence[int], generator: Generators, device: str | torch.device | None, sampler) -> torch.Tensor:
    """`randn_tensor` for other distributions: item b comes from generator b where a list is given."""
    device = torch.device(device or "cpu")
    if isinstance(generator, list) and len(generator) != shape[0]:
        raise ValueError(f"generator: got a list of {len(generator)}, expected one for each of the {shape[0]} items.")
    if not isinstance(generator, list):
        source = device if generator is None else generator.device
        return sampler(tuple(shape), generator=generator, device=source).to(device)
    items = [sampler((1, *shape[1:]), generator=g, device=g.device) for g in generator]
    return torch.cat(items).to(device)
