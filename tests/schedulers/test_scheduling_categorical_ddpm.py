"""Categorical diffusion is exact: against N x N Bayes in float64, against closed-form marginals, against
frequencies."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.utils._python_dispatch import TorchDispatchMode

from guidegen_diffusers import CategoricalDDPMScheduler
from guidegen_diffusers.schedulers.scheduling_categorical_ddpm import _draw_class


SHAPE = (3, 4, 5)


def bayes(scheduler, t, s):
    """q(x_s = k | x_t = j, x_0 = c) as a table (k, j, c), by Bayes from N x N transition matrices in float64."""
    n, abar = scheduler.config.num_classes, scheduler.alphas_cumprod

    def transition(alpha):
        return alpha * torch.eye(n, dtype=torch.float64) + (1 - alpha) / n

    t_given_s, s_given_0 = transition(abar[t] / abar[s]), transition(abar[s])
    t_given_0 = s_given_0 @ t_given_s
    # q(x_t = j | x_s = k) q(x_s = k | x_0 = c) / q(x_t = j | x_0 = c)
    return t_given_s[:, :, None] * s_given_0.T[:, None, :] / t_given_0.T[None]


def evidence(scheduler, t, x_t):
    """log q(x_t | x_0 = k) of each voxel, (B, N, X, Y, Z)."""
    n, abar = scheduler.config.num_classes, scheduler.alphas_cumprod[t]
    one_hot = F.one_hot(x_t.long(), n).movedim(-1, 1).double()
    return (abar * one_hot + (1 - abar) / n).log()


def some_step(draw_t, draw_s, total):
    t = 1 + draw_t % total
    return t, draw_s % t


steps = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6))


@settings(max_examples=60)
@given(
    step=steps,
    num_classes=st.integers(2, 24),
    total=st.sampled_from([1, 2, 10, 1000]),
    prediction_type=st.sampled_from(["sample", "leave_one_out"]),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    seed=st.integers(0, 2**31),
    spread=st.sampled_from([0.1, 1.0, 8.0]),
)
def test_posterior_kl_and_gradient_equal_brute_force_bayes(
    step, num_classes, total, prediction_type, shape, seed, spread
):
    torch.manual_seed(seed)
    scheduler = CategoricalDDPMScheduler(total, num_classes=num_classes, prediction_type=prediction_type)
    t, s = some_step(*step, total)
    logits = (torch.randn(2, num_classes, *shape, dtype=torch.float64) * spread).requires_grad_()
    x_t, x_0 = scheduler.sample_noise((2, *shape)), scheduler.sample_noise((2, *shape))
    x_0[0] = x_t[0]

    table = bayes(scheduler, t, s)
    full = logits + evidence(scheduler, t, x_t) if prediction_type == "leave_one_out" else logits
    expected = torch.einsum("kbxyzc,bcxyz->bkxyz", table[:, x_t.long()], full.softmax(1))
    posterior = scheduler.posterior(logits, t, x_t, s)
    torch.testing.assert_close(posterior, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(posterior.sum(1), torch.ones(2, *shape, dtype=torch.float64), rtol=0, atol=1e-9)

    true = table[:, x_t.long(), x_0.long()].movedim(0, 1)
    brute = (torch.special.xlogy(true, true) - torch.special.xlogy(true, expected)).sum(1)
    times = torch.full((2,), t), torch.full((2,), s)
    kl = scheduler.kl_divergence(logits, x_0, x_t, *times)
    torch.testing.assert_close(kl, brute, rtol=1e-6, atol=1e-9)
    weight = torch.rand_like(kl)
    gradient = torch.autograd.grad((kl * weight).sum(), logits)[0]
    brute_gradient = torch.autograd.grad((brute * weight).sum(), logits)[0]
    torch.testing.assert_close(gradient, brute_gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_stays_close_to_float64(dtype):
    scheduler = CategoricalDDPMScheduler()
    logits = (3 * torch.randn(1, 21, *SHAPE)).to(dtype)
    x_t, x_0 = scheduler.sample_noise((1, *SHAPE)), scheduler.sample_noise((1, *SHAPE))
    for t in (1, 2, 40, 500, 1000):
        exact = scheduler.posterior(logits.double(), t, x_t, t - 1)
        torch.testing.assert_close(scheduler.posterior(logits, t, x_t, t - 1).double(), exact, rtol=0, atol=2e-6)
        times = torch.tensor([t])
        exact = scheduler.kl_divergence(logits.double(), x_0, x_t, times)
        torch.testing.assert_close(
            scheduler.kl_divergence(logits, x_0, x_t, times).double(), exact, rtol=1e-4, atol=1e-5
        )


class LargestTensor(TorchDispatchMode):
    """Watches every operation, forward and backward, and keeps the largest number of elements that one returned."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        held = {x.untyped_storage().data_ptr() for x in args if isinstance(x, torch.Tensor)}  # views are not new
        returned = result if isinstance(result, (list, tuple)) else [result]
        fresh = [x for x in returned if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in held]
        self.largest = max([self.largest, *(x.numel() for x in fresh)])
        return result


def test_no_tensor_is_larger_than_the_logits_and_a_step_makes_none_of_their_size():
    """No N x N tensor, and no one-hot of the volume."""
    scheduler = CategoricalDDPMScheduler()
    scheduler.set_timesteps(10)
    logits = torch.randn(1, 21, 40, 40, 40, requires_grad=True)
    x_t, x_0 = scheduler.sample_noise((1, 40, 40, 40)), scheduler.sample_noise((1, 40, 40, 40))
    with LargestTensor() as step, torch.no_grad():
        scheduler.step(logits, 500, x_t)
    assert step.largest <= logits.numel() / 3
    with LargestTensor() as noise:
        scheduler.add_noise(x_0, x_t, torch.tensor([500]))
    assert noise.largest == x_0.numel()
    with LargestTensor() as loss:
        scheduler.kl_divergence(logits, x_0, x_t, torch.tensor([500])).mean().backward()
    assert loss.largest == logits.numel()  # the gradient


def test_a_second_backward_pass_raises_instead_of_giving_a_wrong_gradient():
    scheduler = CategoricalDDPMScheduler()
    logits = torch.randn(1, 21, *SHAPE, requires_grad=True)
    x_t, x_0 = scheduler.sample_noise((1, *SHAPE)), scheduler.sample_noise((1, *SHAPE))
    loss = scheduler.kl_divergence(logits, x_0, x_t, torch.tensor([500])).mean()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_receive_a_gradient_of_their_own_kind(dtype):
    scheduler = CategoricalDDPMScheduler()
    logits = torch.randn(2, 21, *SHAPE).to(dtype).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    x_t, x_0 = scheduler.sample_noise((2, *SHAPE)), scheduler.sample_noise((2, *SHAPE))
    for x in (logits, exact):
        scheduler.kl_divergence(x, x_0, x_t, torch.tensor([20, 700])).sum().backward()
    assert logits.grad.dtype == dtype
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=2e-2, atol=1e-3)


def test_blocks_of_voxels_do_not_show():
    """More voxels than a block holds, none of the sizes a multiple of it."""
    scheduler = CategoricalDDPMScheduler(num_classes=3)
    logits = torch.randn(2, 3, 41, 37, 29, dtype=torch.float64, requires_grad=True)
    x_t, x_0 = scheduler.sample_noise((2, 41, 37, 29)), scheduler.sample_noise((2, 41, 37, 29))
    table = bayes(scheduler, 300, 100)
    expected = torch.einsum("kbxyzc,bcxyz->bkxyz", table[:, x_t.long()], logits.softmax(1))
    torch.testing.assert_close(scheduler.posterior(logits, 300, x_t, 100), expected)
    kl = scheduler.kl_divergence(logits, x_0, x_t, torch.tensor([300, 300]), torch.tensor([100, 100]))
    kl.sum().backward()
    true = table[:, x_t.long(), x_0.long()].movedim(0, 1)
    torch.testing.assert_close(kl, (true * (true.log() - expected.log())).sum(1))
    assert (logits.grad.abs().sum(1) > 0).all()


def test_channels_last_logits_give_the_same():
    scheduler = CategoricalDDPMScheduler()
    scheduler.set_timesteps(10)
    logits, x_t = torch.randn(2, 21, 8, 6, 4), scheduler.sample_noise((2, 8, 6, 4))
    last = logits.contiguous(memory_format=torch.channels_last_3d)
    a = scheduler.step(logits, 500, x_t, torch.Generator().manual_seed(0))
    b = scheduler.step(last, 500, x_t, torch.Generator().manual_seed(0))
    assert torch.equal(a.prev_sample, b.prev_sample)


def test_kl_vanishes_only_for_the_true_clean_map():
    scheduler = CategoricalDDPMScheduler()
    x_0, x_t = scheduler.sample_noise((1, *SHAPE)), scheduler.sample_noise((1, *SHAPE))
    right = 60.0 * F.one_hot(x_0.long(), 21).movedim(-1, 1)
    wrong = 60.0 * F.one_hot((x_0.long() + 1) % 21, 21).movedim(-1, 1)
    for t in (1, 300, 900):
        times = torch.tensor([t])
        assert scheduler.kl_divergence(right, x_0, x_t, times).abs().max() < 2e-6
        assert scheduler.kl_divergence(wrong, x_0, x_t, times).mean() > 1e-6


def test_kl_at_the_last_step_and_the_auxiliary_loss_are_cross_entropy():
    scheduler = CategoricalDDPMScheduler()
    logits = (200 * torch.randn(2, 21, *SHAPE)).requires_grad_()  # far beyond where exp underflows
    x_0, x_t = scheduler.sample_noise((2, *SHAPE)), scheduler.sample_noise((2, *SHAPE))
    expected = F.cross_entropy(logits, x_0.long(), reduction="none")
    gradient = torch.autograd.grad(expected.sum(), logits)[0]
    losses = (
        scheduler.kl_divergence(logits, x_0, x_t, torch.tensor([1, 1])),
        scheduler.kl_divergence(logits, x_0, x_t, torch.tensor([700, 20]), torch.tensor([0, 0])),
        scheduler.cross_entropy(logits, x_0, x_t, torch.tensor([700, 20])),
    )
    for loss in losses:
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(torch.autograd.grad(loss.sum(), logits)[0], gradient)


def test_class_weights_weigh_the_loss_and_shift_the_logits_by_their_logarithm():
    scheduler = CategoricalDDPMScheduler(num_classes=4)
    logits = torch.randn(2, 4, *SHAPE, dtype=torch.float64, requires_grad=True)
    x_0, x_t = scheduler.sample_noise((2, *SHAPE)), scheduler.sample_noise((2, *SHAPE))
    weights = torch.tensor([1.0, 0.5, 2.0, 10.0], dtype=torch.float64)
    shifted = logits + weights.log()[:, None, None, None]
    expected = F.cross_entropy(shifted, x_0.long(), weights, reduction="none")
    loss = scheduler.cross_entropy(logits, x_0, x_t, torch.tensor([700, 20]), weights)
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(x.sum(), logits)[0] for x in (loss, expected)]
    torch.testing.assert_close(*gradients)


def test_with_class_weights_the_loss_is_still_least_at_the_probabilities_of_the_data():
    """One voxel in ten is of a class that counts ten times: logits that fit tell one in ten, not one in two."""
    scheduler = CategoricalDDPMScheduler(num_classes=2)
    x_0 = (torch.arange(1000) % 10 == 0).byte().view(1, 10, 10, 10)
    rare = torch.tensor([[0.0, 0.0]], requires_grad=True)
    optimizer = torch.optim.LBFGS([rare], max_iter=50)

    def loss():
        optimizer.zero_grad()
        logits = rare[..., None, None, None].expand(1, 2, 10, 10, 10)
        value = scheduler.cross_entropy(logits, x_0, x_0, torch.tensor([5]), torch.tensor([1.0, 10.0])).mean()
        value.backward()
        return value

    optimizer.step(loss)
    assert abs(rare.softmax(1)[0, 1].item() - 0.1) < 1e-3


def test_each_item_of_a_batch_has_its_own_time():
    scheduler = CategoricalDDPMScheduler()
    logits = torch.randn(3, 21, *SHAPE)
    x_0, x_t = scheduler.sample_noise((3, *SHAPE)), scheduler.sample_noise((3, *SHAPE))
    times = torch.tensor([1, 400, 1000])
    together = scheduler.kl_divergence(logits, x_0, x_t, times)
    for i in range(3):
        one = slice(i, i + 1)
        torch.testing.assert_close(together[one], scheduler.kl_divergence(logits[one], x_0[one], x_t[one], times[one]))


@pytest.mark.parametrize(("timesteps", "t"), [([1000, 700, 20], 700), ([1000, 999, 20, 3], 20), ([900, 899, 1], 900)])
@pytest.mark.parametrize("prediction_type", ["sample", "leave_one_out"])
def test_steps_draw_from_the_posterior(timesteps, t, prediction_type):
    scheduler = CategoricalDDPMScheduler(num_classes=5, prediction_type=prediction_type)
    scheduler.set_timesteps(timesteps=timesteps)
    generator = torch.Generator().manual_seed(0)
    voxels = 400_000
    logits = torch.randn(1, 5, 1, 1, 1, generator=generator).expand(1, 5, voxels, 1, 1)
    x_t = torch.full((1, voxels, 1, 1), 2, dtype=torch.uint8)
    expected = scheduler.posterior(logits[:, :, :1].double(), t, x_t[:, :1], scheduler.previous_timestep(t)).flatten()
    drawn = scheduler.step(logits, t, x_t, generator).prev_sample
    frequency = torch.bincount(drawn.flatten(), minlength=5).double() / voxels
    chi_square = (voxels * (frequency - expected) ** 2 / expected).sum().item()
    assert chi_square < 23.5  # 4 degrees of freedom, p = 1e-4


def rare_somewhere(shape=(32, 32, 32), low=-9.0, high=-2.2):
    """Class 1 may lie anywhere in the lower half of the grid, 10 % of it, and next to nowhere in the upper half."""
    rare = torch.full(shape, low)
    rare[: shape[0] // 2] = high
    return torch.stack([torch.zeros(shape), rare])[None]


def drawn_whole(logits, seed, state=None, **config):
    scheduler = CategoricalDDPMScheduler(num_classes=logits.shape[1], whole_class=1, **config)
    scheduler.set_timesteps(timesteps=[900, 100])
    state = torch.zeros(1, *logits.shape[2:], dtype=torch.uint8) if state is None else state
    return scheduler.step(logits, 900, state, torch.Generator().manual_seed(seed)).pred_original_sample[0]


def test_a_whole_class_comes_in_one_piece_as_large_as_expected_and_somewhere_else_each_time():
    logits = rare_somewhere()
    scheduler = CategoricalDDPMScheduler(num_classes=2)
    state = torch.zeros(1, 32, 32, 32, dtype=torch.uint8)
    expected = scheduler.original_logits(logits, 900, state).softmax(1)[0, 1].sum().item()
    centres = []
    for seed in range(12):
        x = drawn_whole(logits, seed)
        pieces, count = ndimage.label(x.numpy())
        assert count == 1
        assert x.sum() == pytest.approx(expected, abs=1)
        centres.append(ndimage.center_of_mass(pieces))
    assert max(c[0] for c in centres) < 17  # where it may be
    assert min(torch.tensor(centres).std(0)) > 2  # anywhere there


def test_what_is_certain_of_a_whole_class_is_drawn_as_it_is_far_pieces_included():
    rare = torch.full((24, 24, 24), -12.0)
    rare[2:6, 2:6, 2:6] = 12.0
    rare[18:21, 18:21, 18:21] = 12.0
    x = drawn_whole(torch.stack([torch.zeros_like(rare), rare])[None], 0)
    assert torch.equal(x.bool(), rare > 0)


@pytest.mark.parametrize("low", [math.log(0.3 / 4096), math.log(8e-4)])
def test_a_whole_class_is_none_where_less_than_a_voxel_is_expected_or_nothing_but_a_trace_everywhere(low):
    logits = torch.stack([torch.zeros(16, 16, 16), torch.full((16, 16, 16), low)])[None]
    assert not any(drawn_whole(logits, seed).any() for seed in range(20))


def test_a_whole_class_keeps_its_size_and_its_place_from_step_to_step_whatever_else_f_comes_to_like():
    scheduler = CategoricalDDPMScheduler(num_classes=2, whole_class=1)
    scheduler.set_timesteps(6)
    open_at_first = rare_somewhere(high=-4.5)
    doubtful, tempted = torch.full_like(open_at_first, -12.0), open_at_first.clone()
    doubtful[:, 0] = 0  # a piece that noise hides from the network
    tempted[0, 1, :2, :2, :2] = 12  # and one that noise feigns
    draw, x = torch.Generator().manual_seed(1), scheduler.sample_noise((1, 32, 32, 32))
    found = []
    seen = [open_at_first, doubtful, tempted, doubtful, tempted, doubtful]
    for t, logits in zip(scheduler.timesteps, seen, strict=True):
        out = scheduler.step(logits, t, x, draw)
        x = out.prev_sample
        found.append(out.pred_original_sample[0].numpy())
    assert len({int(piece.sum()) for piece in found}) == 1
    assert found[0].sum() > 50
    large = [ndimage.center_of_mass(ndimage.binary_opening(piece)) for piece in found]
    assert all(math.dist(place, large[0]) < 2.5 for place in large)
    assert (found[-1] == x[0].numpy()).all()


def test_the_place_of_a_whole_class_follows_f_as_the_anatomy_takes_shape():
    scheduler = CategoricalDDPMScheduler(num_classes=2, whole_class=1)
    scheduler.set_timesteps(8)
    logits = torch.zeros(1, 2, 24, 24, 24)
    logits[:, 1] = -12
    at_first, later = logits.clone(), logits.clone()
    at_first[0, 1, 9:12, 10:13, 10:13] = 2
    later[0, 1, 12:15, 10:13, 10:13] = 2
    draw, x = torch.Generator().manual_seed(0), scheduler.sample_noise((1, 24, 24, 24))
    for t in scheduler.timesteps:
        x = scheduler.step(at_first if t == scheduler.timesteps[0] else later, t, x, draw).prev_sample
    assert ndimage.center_of_mass(x[0].numpy()) == pytest.approx((13, 11, 11), abs=0.7)


def test_a_new_run_draws_its_piece_anew():
    scheduler, logits = CategoricalDDPMScheduler(num_classes=2, whole_class=1), rare_somewhere()
    state = torch.zeros(1, 32, 32, 32, dtype=torch.uint8)
    scheduler.set_timesteps(timesteps=[900, 100])
    first, again, fresh = (
        scheduler.step(logits, 900, state, torch.Generator().manual_seed(seed)).pred_original_sample
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, fresh)


def test_the_other_classes_are_drawn_as_if_the_whole_one_were_not():
    logits = torch.randn(1, 4, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    logits[:, 1] = -30
    state = torch.randint(0, 4, (1, 20, 20, 20), dtype=torch.uint8)
    scheduler = CategoricalDDPMScheduler(num_classes=4)
    scheduler.set_timesteps(timesteps=[900, 100])
    plain = scheduler.step(logits, 900, state, torch.Generator().manual_seed(3)).pred_original_sample[0]
    assert torch.equal(plain, drawn_whole(logits, 3, state))


def test_volumes_are_kept_where_f_comes_to_expect_others():
    def logits(shares):
        return torch.tensor(shares).log().view(1, 4, 1, 1, 1) + torch.randn(1, 4, 16, 16, 16, generator=seeded(5))

    at_first, later = logits([0.6, 0.3, 0.02, 0.08]), logits([0.9, 0.08, 0.001, 0.019])
    expected = at_first.softmax(1).sum((0, 2, 3, 4))
    for keep, near in ((True, pytest.approx(expected.tolist(), rel=0.1)), (False, None)):
        scheduler = CategoricalDDPMScheduler(num_classes=4, keep_volumes=keep)
        scheduler.set_timesteps(8)
        draw, x = seeded(0), scheduler.sample_noise((1, 16, 16, 16), seeded(1))
        for t in scheduler.timesteps:
            out = scheduler.step(at_first if t == scheduler.timesteps[0] else later, t, x, draw)
            x = out.prev_sample
            if t == scheduler.timesteps[3]:
                drawn = out.pred_original_sample.flatten().bincount(minlength=4).tolist()
        assert (drawn == near) is keep


def test_a_thin_class_keeps_its_volume_through_the_argmax():
    """A sheet of which f is never sure: what f expects is right, the likeliest voxels are too few."""
    away = (torch.arange(32) - 15.7).abs()
    odds = (1.5 - away).view(1, 1, 32, 1, 1) + 0.5 * torch.randn((1, 1, 32, 24, 24), generator=seeded(0))
    logits = torch.cat([torch.zeros_like(odds), odds - 1.5], 1)
    expected, found = logits.softmax(1)[:, 1].sum().item(), []
    for keep in (False, True):
        scheduler = CategoricalDDPMScheduler(num_classes=2, keep_volumes=keep)
        scheduler.set_timesteps(timesteps=[500])
        found.append((scheduler.step(logits, 500, torch.zeros(1, 32, 24, 24).byte()).prev_sample == 1).sum().item())
    assert found[0] < 0.8 * expected
    assert found[1] == pytest.approx(expected, rel=0.05)


def test_a_whole_class_keeps_its_volume_for_itself():
    logits = rare_somewhere(high=-4.5)
    fewer = logits.clone()
    fewer[:, 1] -= 3
    runs = []
    for keep in (False, True):
        scheduler = CategoricalDDPMScheduler(num_classes=2, whole_class=1, keep_volumes=keep)
        scheduler.set_timesteps(timesteps=[900, 500, 100])
        draw, x = seeded(4), torch.zeros(1, 32, 32, 32, dtype=torch.uint8)
        for t in scheduler.timesteps:
            x = scheduler.step(logits if t == 900 else fewer, t, x, draw).prev_sample
        runs.append(x)
    assert torch.equal(*runs)


def test_a_spread_is_drawn_once_and_its_volumes_are_kept():
    logits = torch.tensor([0.7, 0.15, 0.15]).log().view(1, 3, 1, 1, 1).expand(1, 3, 16, 16, 16)
    spread = [[0.0, 0.0], [0.3, 0.2], [0.3, 0.0]]
    scheduler = CategoricalDDPMScheduler(num_classes=3, keep_volumes=True, volume_spread=spread)
    scheduler.set_timesteps(6)
    shares = []
    for seed in range(8):
        draw, x = seeded(seed), scheduler.sample_noise((1, 16, 16, 16), seeded(seed))
        found = []
        for t in scheduler.timesteps[:-1]:
            out = scheduler.step(logits, t, x, draw)
            x = out.prev_sample
            found.append(out.pred_original_sample.flatten().bincount(minlength=3))
        found = torch.stack(found).float()
        shares.append(found.mean(0) / 4096)
        assert (found / found.mean(0) - 1).abs().max() < 0.2  # from step to step
    assert torch.stack(shares)[:, 1:].std(0).min() > 0.02  # from case to case


@pytest.mark.parametrize("spread", [[[0.1, 0.1]] * 20, [[0.1]] * 21, [[-0.1, 0.1]] * 21])
def test_a_spread_that_cannot_be_is_an_error(spread):
    with pytest.raises(ValueError, match="volume_spread: got .* expected two numbers of at least 0 for each of 21"):
        CategoricalDDPMScheduler(keep_volumes=True, volume_spread=spread)
    with pytest.raises(ValueError, match="volume_spread: .* and keep_volumes=True"):
        CategoricalDDPMScheduler(volume_spread=[[0.1, 0.1]] * 21)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_evidence_is_believed_as_far_as_told_in_sampling_and_in_full_in_training():
    logits, x_t = torch.randn(1, 21, *SHAPE), torch.randint(0, 21, (1, *SHAPE), dtype=torch.uint8)
    losses = []
    for weight in (0.0, 0.4, 1.0):
        scheduler = CategoricalDDPMScheduler(prediction_type="leave_one_out", evidence_weight=weight)
        scheduler.set_timesteps(timesteps=[600])
        half = logits + weight * evidence(scheduler, 600, x_t).float()
        assert torch.equal(scheduler.step(logits, 600, x_t).prev_sample, half.argmax(1).to(torch.uint8))
        losses.append(scheduler.cross_entropy(logits, x_t, x_t, torch.tensor([600])))
    assert torch.equal(losses[0], losses[2])
    with pytest.raises(ValueError, match="evidence_weight: got 1.5, expected 0..1"):
        CategoricalDDPMScheduler(evidence_weight=1.5)


@pytest.mark.parametrize("whole_class", [21, -1])
def test_a_whole_class_that_cannot_be_is_an_error(whole_class):
    with pytest.raises(ValueError, match=f"whole_class: got {whole_class}, expected a class below 21"):
        CategoricalDDPMScheduler(whole_class=whole_class)


def test_the_last_step_takes_the_argmax_and_draws_nothing():
    scheduler = CategoricalDDPMScheduler()
    scheduler.set_timesteps(4)
    logits, x_t = torch.randn(2, 21, *SHAPE), scheduler.sample_noise((2, *SHAPE))
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    previous, original = scheduler.step(logits, 250, x_t, generator, return_dict=False)
    assert torch.equal(previous, logits.argmax(1).to(torch.uint8))
    assert torch.equal(previous, original)
    assert torch.equal(generator.get_state(), state)


@given(seed=st.integers(0, 2**31), classes=st.integers(2, 21))
def test_a_class_of_weight_0_is_never_drawn(seed, classes):
    """Not even by the largest and smallest uniform numbers, where a rounded cumulative sum could slip."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(classes, 1000, generator=generator) * (torch.rand(classes, 1000, generator=generator) < 0.5)
    weights[0] += weights.sum(0) == 0
    for u in (0.0, 2.0**-24, 0.5, 1 - 2.0**-24):
        drawn = _draw_class(weights.clone(), torch.full((1000,), u))
        assert (weights.gather(0, drawn[None].long()) > 0).all()


def test_sampling_with_the_true_posterior_of_a_known_map_ends_in_it():
    scheduler = CategoricalDDPMScheduler()
    scheduler.set_timesteps(7)
    x_0 = scheduler.sample_noise((1, 8, 8, 8))
    logits = 50.0 * F.one_hot(x_0.long(), 21).movedim(-1, 1)
    x = scheduler.sample_noise(x_0.shape)
    for t in scheduler.timesteps:
        x = scheduler.step(logits, t, x).prev_sample
    assert torch.equal(x, x_0)


@settings(max_examples=15)
@given(t=st.integers(0, 1000), num_classes=st.integers(2, 30))
def test_forward_marginals_match_the_closed_form(t, num_classes):
    scheduler = CategoricalDDPMScheduler(num_classes=num_classes)
    generator = torch.Generator().manual_seed(t)
    voxels = 100_000
    x_0 = torch.ones(1, voxels, 1, 1, dtype=torch.uint8)
    noise = scheduler.sample_noise(x_0.shape, generator)
    x_t = scheduler.add_noise(x_0, noise, torch.tensor([t]), generator)
    abar = scheduler.alphas_cumprod[t].item()
    expected = abar + (1 - abar) / num_classes
    error = 5 * math.sqrt(expected * (1 - expected) / voxels) + 1e-9
    assert abs((x_t == 1).double().mean().item() - expected) <= error


def test_add_noise_at_0_returns_x_0_and_at_T_returns_almost_only_noise():
    scheduler = CategoricalDDPMScheduler()
    x_0, noise = scheduler.sample_noise((2, 9, 9, 9)), scheduler.sample_noise((2, 9, 9, 9))
    x_t = scheduler.add_noise(x_0, noise, torch.tensor([0, 1000]))
    assert torch.equal(x_t[0], x_0[0])
    assert torch.equal(x_t[1], noise[1])
    assert scheduler.alphas_cumprod[-1] < 1e-5


def test_the_schedule_is_the_papers_cosine():
    scheduler = CategoricalDDPMScheduler()

    def f(t):
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    assert scheduler.alphas_cumprod[0] == 1
    assert len(scheduler.alphas_cumprod) == 1001
    for t in (1, 10, 500, 990):
        assert scheduler.alphas_cumprod[t].item() == pytest.approx(f(t) / f(0), rel=1e-12)
    assert scheduler.betas.max() == pytest.approx(0.999)


@given(count=st.integers(1, 1000))
def test_any_number_of_steps_runs_from_T_to_0(count):
    scheduler = CategoricalDDPMScheduler()
    scheduler.set_timesteps(count)
    timesteps = scheduler.timesteps.tolist()
    assert len(timesteps) == len(set(timesteps)) == count
    assert timesteps[0] == 1000
    assert timesteps == sorted(timesteps, reverse=True)
    assert [scheduler.previous_timestep(t) for t in timesteps] == [*timesteps[1:], 0]


def test_guidance_acts_on_log_probabilities():
    scheduler = CategoricalDDPMScheduler()
    uncond, cond = torch.randn(2, 1, 21, *SHAPE, dtype=torch.float64) * 4
    for g in (0.0, 1.0, 2.5):
        log_u, log_c = uncond.log_softmax(1), cond.log_softmax(1)
        expected = (log_u + g * (log_c - log_u)).softmax(1)
        torch.testing.assert_close(scheduler.guide(uncond, cond, g).softmax(1), expected)


def test_leave_one_out_adds_the_evidence_of_x_t_and_nothing_else():
    scheduler = CategoricalDDPMScheduler(prediction_type="leave_one_out")
    logits, x_t = torch.randn(1, 21, *SHAPE, dtype=torch.float64), scheduler.sample_noise((1, *SHAPE))
    expected = (logits + evidence(scheduler, 400, x_t)).softmax(1)
    torch.testing.assert_close(scheduler.original_logits(logits, 400, x_t).softmax(1), expected)
    plain = CategoricalDDPMScheduler()
    assert plain.original_logits(logits, 400, x_t) is logits


@pytest.mark.parametrize("config", [{}, {"whole_class": 20, "keep_volumes": True}])
def test_an_item_is_the_same_alone_and_in_a_batch_under_its_own_generator(config):
    scheduler = CategoricalDDPMScheduler(**config)
    logits = torch.randn(3, 2, 21, *SHAPE)

    def run(items):
        scheduler.set_timesteps(5)
        generators = [torch.Generator().manual_seed(i) for i in items]
        x = scheduler.sample_noise((len(items), *SHAPE), generators)
        for i, t in enumerate([1000, 800]):
            x = scheduler.step(logits[items, i], t, x, generators).prev_sample
        return x

    together = run([0, 1, 2])
    for i in range(3):
        assert torch.equal(run([i])[0], together[i])
    assert not torch.equal(together[0], together[1])


def test_the_state_is_uint8_all_the_way():
    scheduler = CategoricalDDPMScheduler()
    scheduler.set_timesteps(3)
    x = scheduler.sample_noise((1, *SHAPE))
    for t in scheduler.timesteps:
        assert x.dtype == torch.uint8
        x = scheduler.step(torch.randn(1, 21, *SHAPE), t, x).prev_sample
    assert x.dtype == torch.uint8
    assert x.shape == (1, *SHAPE)


def test_config_survives_a_round_trip(tmp_path):
    settings = dict(
        num_train_timesteps=500,
        num_classes=7,
        cosine_offset=0.01,
        max_beta=0.999,
        prediction_type="leave_one_out",
        whole_class=6,
        keep_volumes=True,
        volume_spread=[[0.1, 0.2]] * 7,
        evidence_weight=0.5,
    )
    scheduler = CategoricalDDPMScheduler(**settings)
    scheduler.save_pretrained(tmp_path)
    again = CategoricalDDPMScheduler.from_pretrained(tmp_path)
    assert {k: v for k, v in again.config.items() if k[0] != "_"} == settings
    assert torch.equal(again.alphas_cumprod, scheduler.alphas_cumprod)
    assert CategoricalDDPMScheduler.from_config(scheduler.config).config.num_classes == 7


def test_it_has_the_face_of_a_diffusers_scheduler():
    scheduler = CategoricalDDPMScheduler()
    assert len(scheduler) == 1000
    assert scheduler.order == 1
    assert scheduler.init_noise_sigma == 1.0
    x = scheduler.sample_noise((1, *SHAPE))
    assert scheduler.scale_model_input(x, 5) is x
    scheduler.set_timesteps(2, device="cpu")
    output = scheduler.step(torch.randn(1, 21, *SHAPE), scheduler.timesteps[0], x)
    assert output[0] is output.prev_sample


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.set_timesteps(0), "expected 1..1000"),
        (lambda s: s.set_timesteps(1001), "expected 1..1000"),
        (lambda s: s.set_timesteps(), "either"),
        (lambda s: s.set_timesteps(timesteps=[10, 20]), "decreasing"),
        (lambda s: s.set_timesteps(timesteps=[10, 0]), "decreasing"),
        (lambda s: s.set_timesteps(timesteps=[]), "decreasing"),
        (lambda s: s.step(torch.zeros(1, 21, 2, 2, 2), 500, torch.zeros(1, 2, 2, 2).byte()), "set_timesteps"),
        (
            lambda s: (s.set_timesteps(2), s.step(torch.zeros(1, 21, 1, 1, 1), 7, torch.zeros(1, 1, 1, 1).byte())),
            "got 7",
        ),
        (lambda s: s.posterior(torch.zeros(1, 21, 2, 2, 2), 5, torch.zeros(1, 2, 2, 2), 4), "torch.uint8"),
        (lambda s: s.posterior(torch.zeros(1, 20, 2, 2, 2), 5, torch.zeros(1, 2, 2, 2).byte(), 4), "21"),
        (lambda s: s.posterior(torch.zeros(1, 21, 2, 2, 2), 5, torch.zeros(1, 2, 2, 3).byte(), 4), "(1, 2, 2, 3)"),
        (lambda s: s.posterior(torch.zeros(1, 21, 2, 2, 2), 5, torch.zeros(1, 2, 2, 2).byte(), 5), "s < t"),
        (
            lambda s: s.cross_entropy(
                torch.zeros(1, 21, 1, 1, 1), *[torch.zeros(1, 1, 1, 1).byte()] * 2, torch.tensor([5]), torch.zeros(21)
            ),
            "above 0",
        ),
        (lambda s: s.sample_noise((2, 3, 3, 3), [torch.Generator()]), "list of 1"),
        (lambda s: CategoricalDDPMScheduler(num_classes=300), "uint8"),
        (lambda s: CategoricalDDPMScheduler(prediction_type="epsilon"), "leave_one_out"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        call(CategoricalDDPMScheduler())
