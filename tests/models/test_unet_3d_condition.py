"""Both U-Nets: labels go in by a gather and come out in place, and text counts where its mask says so."""

import copy

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch.utils._python_dispatch import TorchDispatchMode

from guidegen_diffusers.models.attention import Attention
from guidegen_diffusers.models.unet_3d_condition import (
    AttentionBlock3D,
    CategoricalUNet3DConditionModel,
    Detail,
    LatentUNet3DConditionModel,
    NeighborVotes,
)


BARE = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "cross_attention_levels": (False, False),
    "self_attention_levels": (False, False),
    "attention_head_dim": 8,
    "norm_num_groups": 4,
}
CROSS = {**BARE, "cross_attention_levels": (True, True)}
POOLED = {**BARE, "pool_text": True}
KNOWLEDGE = {**BARE, "cross_attention_levels": (False, True), "num_knowledge_queries": 3}
SELF = {**BARE, "self_attention_levels": (False, True), "coordinates": True}
FULL = {
    **CROSS,
    "self_attention_levels": (False, True),
    "num_knowledge_queries": 2,
    "pool_text": True,
    "coordinates": True,
}
DEEP = {
    **FULL,
    "block_out_channels": (8, 12, 16),
    "layers_per_block": 2,
    "cross_attention_levels": (False, True, True),
    "self_attention_levels": (False, False, True),
    "attention_head_dim": 4,
}
OPTIONS = pytest.mark.parametrize(
    "options",
    [BARE, CROSS, POOLED, KNOWLEDGE, SELF, FULL, DEEP],
    ids=["bare", "cross", "pooled", "knowledge", "self", "full", "deep"],
)
READING_TEXT = pytest.mark.parametrize(
    "options", [CROSS, POOLED, KNOWLEDGE, FULL], ids=["cross", "pooled", "knowledge", "full"]
)
CATEGORICAL, LATENT = CategoricalUNet3DConditionModel, LatentUNet3DConditionModel
VARIANTS = pytest.mark.parametrize("variant", [CATEGORICAL, LATENT], ids=["categorical", "latent"])
VOTES = {"patch_size": 2, "vote_windows": (3, 5)}
DETAIL = {**VOTES, "detail_channels": 8}
NETWORKS = pytest.mark.parametrize(
    ("variant", "patch"),
    [
        (CATEGORICAL, {}),
        (CATEGORICAL, {"patch_size": 2}),
        (CATEGORICAL, {"patch_size": 4}),
        (CATEGORICAL, VOTES),
        (CATEGORICAL, DETAIL),
        (LATENT, {}),
    ],
    ids=["categorical", "categorical-2", "categorical-4", "categorical-votes", "categorical-detail", "latent"],
)
PATCHES = pytest.mark.parametrize("patch_size", [1, 2, 4])
GRID = (8, 4, 12)  # of labels or latents, non-cubic


def unet(variant, options=FULL, **changes):
    stem = {"sample_size": GRID} if variant is CATEGORICAL else {"in_channels": 6, "out_channels": 4}
    torch.manual_seed(0)
    return variant(**{**stem, **options, **changes}).eval()


def trained(model):
    """What starts as nothing, the last layer of the detail, no longer is."""
    if getattr(model, "detail", None) is not None:
        torch.nn.init.normal_(model.detail.conv_out.weight, std=0.1)
    return model


def inputs(variant, grid=GRID, batch=2, seed=0):
    """A sample, a timestep an item, five text states and their mask."""
    generator = torch.Generator().manual_seed(seed)
    if variant is CATEGORICAL:
        sample = torch.randint(0, 21, (batch, *grid), generator=generator, dtype=torch.uint8)
    else:
        sample = torch.randn(batch, 6, *grid, generator=generator)
    timestep = torch.tensor([700, 20, 999])[:batch]
    text = torch.randn(batch, 5, 16, generator=generator)
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])[:batch].bool()
    return sample, timestep, text, mask


def run(model, *args):
    with torch.no_grad():
        out = model(*args)
    return out if isinstance(out, torch.Tensor) else out.sample


def loss_of(model, batch):
    """Cross-entropy of the clean labels, or the error of the noise."""
    out = model(*batch).sample
    if isinstance(model, CATEGORICAL):
        return torch.nn.functional.cross_entropy(out, batch[0].long())
    return (out - batch[0][:, :4]).square().mean()


# ---- shapes and errors


@OPTIONS
@pytest.mark.parametrize("grid", [(8, 4, 12), (4, 16, 8)])
def test_noise_has_the_shape_of_the_latents(options, grid):
    model, batch = unet(LATENT, options), inputs(LATENT, grid)
    out = run(model, *batch)
    assert out.shape == (2, 4, *grid)
    assert out.isfinite().all()
    with torch.no_grad():
        assert torch.equal(model(*batch, return_dict=False)[0], out)


@OPTIONS
@PATCHES
def test_logits_are_one_a_class_and_voxel(options, patch_size):
    grid = tuple(n * patch_size for n in (8, 4, 12))
    model, batch = unet(CATEGORICAL, options, patch_size=patch_size), inputs(CATEGORICAL, grid)
    out = run(model, *batch)
    assert out.shape == (2, 21, *grid)
    assert out.isfinite().all()
    with torch.no_grad():
        assert torch.equal(model(*batch, return_dict=False)[0], out)


def test_the_number_of_classes_is_free():
    model = unet(CATEGORICAL, num_classes=5, patch_size=2)
    sample, *rest = inputs(CATEGORICAL, (8, 4, 12))
    assert run(model, sample % 5, *rest).shape == (2, 5, 8, 4, 12)


@pytest.mark.parametrize(
    ("patch_size", "grid", "multiple"),
    [(1, (8, 5, 12), 2), (2, (8, 4, 14), 4), (4, (8, 20, 8), 8), (2, (8, 4, 11), 4), (4, (8, 8, 10), 8)],
)
def test_a_label_grid_that_does_not_divide_is_an_error(patch_size, grid, multiple):
    size = ", ".join(map(str, grid))
    with pytest.raises(ValueError, match=rf"\({size}\), expected multiples of {multiple}\."):
        unet(CATEGORICAL, patch_size=patch_size)(*inputs(CATEGORICAL, grid))


def test_a_latent_grid_that_does_not_divide_is_an_error():
    with pytest.raises(ValueError, match=r"\(8, 6, 12\), expected multiples of 4"):
        unet(LATENT, DEEP)(*inputs(LATENT, (8, 6, 12)))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.int8, torch.bool])
def test_labels_of_another_dtype_are_an_error(dtype):
    sample, *rest = inputs(CATEGORICAL)
    with pytest.raises(ValueError, match=rf"\(2, 8, 4, 12\) {dtype}, expected \(B, X, Y, Z\) torch.uint8"):
        unet(CATEGORICAL)(sample.to(dtype), *rest)


@pytest.mark.parametrize("variant", [CATEGORICAL, LATENT])
def test_a_sample_of_another_rank_is_an_error(variant):
    sample, *rest = inputs(variant)
    with pytest.raises(ValueError, match=r"sample: got"):
        unet(variant)(sample[0], *rest)


def test_another_number_of_channels_is_an_error():
    sample, *rest = inputs(LATENT)
    with pytest.raises(ValueError, match=r"sample: got shape \(2, 5, 8, 4, 12\), expected \(B, 6, x, y, z\)"):
        unet(LATENT)(sample[:, :5], *rest)


def layers_by_level(model):
    """(level, its layers) on the way down, in the middle and on the way up."""
    count, levels = model.config.layers_per_block, len(model.config.block_out_channels)
    down = [(level, model.down[level * count : (level + 1) * count]) for level in range(levels)]
    count += 1
    up = [(levels - 1 - i, model.up[i * count : (i + 1) * count]) for i in range(levels)]
    return [*down, (levels - 1, model.mid), *up]


@VARIANTS
def test_wrong_configs_are_errors(variant):
    with pytest.raises(ValueError, match="cross_attention_levels: got 1 entries, expected 2"):
        unet(variant, cross_attention_levels=(True,))
    with pytest.raises(ValueError, match="self_attention_levels: got 3 entries, expected 2"):
        unet(variant, self_attention_levels=(True, False, True))
    with pytest.raises(ValueError, match="attention_head_dim: got 5"):
        unet(variant, attention_head_dim=5)


@pytest.mark.parametrize("patch_size", [0, 3, 8])
def test_another_patch_size_is_an_error(patch_size):
    with pytest.raises(ValueError, match=f"patch_size: got {patch_size}, expected 1, 2 or 4"):
        unet(CATEGORICAL, patch_size=patch_size)


# ---- labels in, logits out


def stem_features(model, sample, *rest):
    """What the label embedding hands to the rest of the network, (B, C, x, y, z)."""
    features = []
    hook = model.down[0].register_forward_pre_hook(lambda module, args: features.append(args[0]))
    run(model, sample, *rest)
    hook.remove()
    return features[0]


@PATCHES
def test_the_patch_embedding_is_a_one_hot_times_the_table(patch_size):
    p, grid = patch_size, tuple(n * patch_size for n in (4, 2, 6))
    model, (sample, *rest) = unet(CATEGORICAL, CROSS, patch_size=p), inputs(CATEGORICAL, grid)
    table = model.label_embedding.weight.detach().double().view(p, p, p, 21, 8)
    one_hot = torch.nn.functional.one_hot(sample.long(), 21).double()
    expected = torch.zeros(2, 4, 2, 6, 8, dtype=torch.float64)
    for i in range(p):
        for j in range(p):
            for k in range(p):
                expected += one_hot[:, i::p, j::p, k::p] @ table[i, j, k]
    features = stem_features(model, sample, *rest)
    assert torch.allclose(features.double(), expected.movedim(-1, 1), atol=1e-5)


@PATCHES
def test_depth_to_space_puts_every_place_of_a_patch_in_its_place(patch_size):
    p, grid = patch_size, tuple(n * patch_size for n in (4, 2, 6))
    model, batch = unet(CATEGORICAL, patch_size=p), inputs(CATEGORICAL, grid)
    places = torch.arange(21.0 * p**3)
    with torch.no_grad():
        model.conv_out.weight.zero_()
        model.conv_out.bias.copy_(places)
    expected = places.view(1, 21, p, p, p).tile(2, 1, 4, 2, 6)
    assert torch.equal(run(model, *batch), expected)


@pytest.mark.parametrize("patch_size", [2, 4])
def test_writing_a_patch_is_the_inverse_of_reading_it(patch_size):
    """Features that hold a patch's labels, place by place, leave as those labels in those places."""
    p, grid = patch_size, tuple(n * patch_size for n in (4, 2, 6))
    widths = (p**3, 16)
    model = unet(CATEGORICAL, BARE, patch_size=p, block_out_channels=widths, norm_num_groups=8)
    sample, *rest = inputs(CATEGORICAL, grid)
    with torch.no_grad():
        # channel c of the stem is the label at place c; logit 0 of place c is channel c of the head
        place = torch.eye(p**3)[:, None]
        model.label_embedding.weight.copy_((place * torch.arange(21.0)[:, None]).flatten(0, 1))
        model.conv_out.weight.zero_()
        model.conv_out.bias.zero_()
        model.conv_out.weight[: p**3, :, 0, 0, 0] = torch.eye(p**3)
    features = stem_features(model, sample, *rest)
    model.conv_out.register_forward_pre_hook(lambda module, args: (features,))  # past the network in between
    logits = run(model, sample, *rest)
    assert torch.equal(logits[:, 0], sample.float())
    assert not logits[:, 1:].any()


class Operations(TorchDispatchMode):
    """Records the name of every operation, and the size and dtype of every tensor that it makes."""

    def __init__(self):
        super().__init__()
        self.names, self.made = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.names.append(str(func))
        self.made += [
            (x.numel(), x.dtype) for x in torch.utils._pytree.tree_leaves(out) if isinstance(x, torch.Tensor)
        ]
        return out


@PATCHES
def test_labels_never_become_a_one_hot(patch_size):
    grid = tuple(n * patch_size for n in GRID)
    model, batch = unet(CATEGORICAL, BARE, patch_size=patch_size), inputs(CATEGORICAL, grid)
    way_in, voxels = [], batch[0].numel()
    with Operations() as operations:
        model.down[0].register_forward_pre_hook(lambda *_: way_in.extend(operations.made))
        run(model, *batch)
    assert max(numel for numel, _ in way_in) <= 8 * voxels, "at most the features of the stem, 8 a voxel"
    assert max(numel for numel, dtype in way_in if dtype.is_floating_point) == 8 * voxels // patch_size**3
    assert (21 * voxels, torch.float32) in operations.made, "the logits are seen, so that a one-hot would be"


@PATCHES
def test_labels_are_read_as_they_stand(patch_size):
    """One voxel of another class changes the logits."""
    grid = tuple(n * patch_size for n in (4, 2, 6))
    model, (sample, *rest) = unet(CATEGORICAL, patch_size=patch_size), inputs(CATEGORICAL, grid)
    changed = sample.clone()
    changed[0, -1, 0, -2] = (changed[0, -1, 0, -2] + 1) % 21
    before, after = run(model, sample, *rest), run(model, changed, *rest)
    assert not torch.allclose(before[0], after[0], atol=1e-4)
    assert torch.allclose(before[1], after[1], atol=1e-5)


# ---- text and time


@VARIANTS
@READING_TEXT
def test_padding_tokens_change_nothing(variant, options):
    model, (sample, timestep, text, mask) = unet(variant, options), inputs(variant)
    padded = torch.where(mask[..., None], text, 100.0)
    out = run(model, sample, timestep, text, mask)
    assert torch.allclose(run(model, sample, timestep, padded, mask), out, atol=1e-5)
    assert not torch.allclose(run(model, sample, timestep, padded), out, atol=1e-3)
    for i, length in enumerate((4, 2)):
        item = slice(i, i + 1)
        alone = run(model, sample[item], timestep[item], text[item, :length])
        assert torch.allclose(alone, out[item], atol=1e-5), "masked is the same as absent"


@VARIANTS
@READING_TEXT
def test_tokens_that_count_change_the_output(variant, options):
    model, (sample, timestep, text, mask) = unet(variant, options), inputs(variant)
    other = text.clone()
    other[:, 1] += 1
    out, changed = run(model, sample, timestep, text, mask), run(model, sample, timestep, other, mask)
    assert not torch.allclose(out[0], changed[0], atol=1e-4)
    assert not torch.allclose(out[1], changed[1], atol=1e-4)


@VARIANTS
@READING_TEXT
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_a_mask_of_ones_is_no_mask(variant, options, dtype):
    model, (sample, timestep, text, mask) = unet(variant, options), inputs(variant)
    ones = torch.ones_like(mask, dtype=dtype)
    assert torch.allclose(run(model, sample, timestep, text, ones), run(model, sample, timestep, text), atol=1e-5)


@VARIANTS
def test_a_network_without_text_needs_none(variant):
    model, (sample, timestep, text, _) = unet(variant, SELF), inputs(variant)
    assert torch.equal(run(model, sample, timestep, None), run(model, sample, timestep, text))


@VARIANTS
@pytest.mark.parametrize("masked", [True, False])
def test_each_level_has_its_own_knowledge_queries_beside_the_text(variant, masked):
    model, (sample, timestep, text, mask) = unet(variant, CROSS, num_knowledge_queries=3), inputs(variant)
    mask = mask if masked else None
    assert list(model.knowledge) == ["0", "1"]
    seen = []
    for level, layers in layers_by_level(model):
        for layer in layers:
            hook = layer.attention.register_forward_pre_hook
            hook(lambda module, args, level=level: seen.append((level, *args[1:])))
    run(model, sample, timestep, text, mask)
    assert [level for level, *_ in seen] == [0, 1, 1, 1, 1, 1, 0, 0]
    for level, context, context_mask in seen:
        assert context.shape == (2, 5 + 3, 16)
        assert torch.equal(context[:, :5], text)
        with torch.no_grad():
            assert torch.equal(context, model.knowledge[str(level)](text, mask)[0])
        if masked:
            assert torch.equal(context_mask, torch.cat([mask, torch.ones(2, 3, dtype=torch.bool)], 1))
        else:
            assert context_mask is None


@VARIANTS
def test_knowledge_queries_change_the_output(variant):
    model, batch = unet(variant, KNOWLEDGE), inputs(variant)
    out = run(model, *batch)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.knowledge["1"].queries.copy_(torch.randn(3, 16, generator=torch.Generator().manual_seed(1)) * 3)
    assert not torch.allclose(run(other, *batch), out, atol=1e-5)
    without = unet(variant, KNOWLEDGE, num_knowledge_queries=0)
    assert without.load_state_dict(model.state_dict(), strict=False).missing_keys == []
    assert not torch.allclose(run(without, *batch), out, atol=1e-4)


def test_self_attention_sees_the_whole_grid_and_cross_attention_only_its_voxel():
    torch.manual_seed(0)
    x, text = torch.randn(1, 8, 2, 3, 4), torch.randn(1, 5, 16)
    other = x.clone()
    other[:, :, 0, 0, 0] *= -1
    for self_attention, cross_attention_dim in ((True, None), (False, 16), (True, 16)):
        block = AttentionBlock3D(8, 4, self_attention, cross_attention_dim)
        change = run(block, x, text, None) - run(block, other, text, None)
        elsewhere = change.flatten(2)[:, :, 1:]
        assert (elsewhere.abs().amax(1) > 1e-6).all() == self_attention
        assert elsewhere.any() == self_attention
        turned = run(block, x.permute(0, 1, 4, 2, 3), text, None)
        assert torch.allclose(turned, run(block, x, text, None).permute(0, 1, 4, 2, 3), atol=1e-5)


@VARIANTS
def test_attention_is_at_the_levels_that_ask_for_it(variant):
    model, batch = unet(variant, DEEP), inputs(variant)
    out, tokens = run(model, *batch), []
    for level, layers in layers_by_level(model):
        for layer in layers:
            cross, own = DEEP["cross_attention_levels"][level], DEEP["self_attention_levels"][level]
            assert (layer.attention is not None) == (cross or own)
            if layer.attention is not None:
                assert (layer.attention.cross_attention is not None) == cross
                assert (layer.attention.self_attention is not None) == own
                hook = layer.attention.register_forward_pre_hook
                hook(lambda module, args, level=level: tokens.append((level, tuple(args[0].shape[2:]))))
    own = model.mid[1].attention.self_attention
    with torch.no_grad():
        own.to_out.weight.zero_()
    assert not torch.allclose(run(model, *batch), out, atol=1e-5)
    assert set(tokens) == {(1, (4, 2, 6)), (2, (2, 1, 3))}


@VARIANTS
def test_coordinates_tell_places_apart(variant):
    """On a constant sample a network of 1-voxel reach cannot tell two inner voxels apart without coordinates."""
    features = {}
    for coordinates in (False, True):
        model = unet(variant, BARE, coordinates=coordinates)
        sample, *rest = inputs(variant, (8, 8, 8), batch=1)
        features[coordinates] = stem_features(model, torch.ones_like(sample), *rest)[0, :, 1:-1, 1:-1, 1:-1]
    middle = features[False][:, 2:3, 2:3, 2:3]
    assert torch.allclose(features[False], middle.expand_as(features[False]), atol=1e-6)
    for axis in (1, 2, 3):
        step = features[True].diff(dim=axis)
        assert step.abs().max() > 1e-3
        assert torch.allclose(step, step[:, :1, :1, :1].expand_as(step), atol=1e-5), "linear along every axis"


# ---- votes


def test_untrained_votes_change_nothing():
    with_votes, without = unet(CATEGORICAL, **VOTES), unet(CATEGORICAL, patch_size=2)
    without.load_state_dict({k: v for k, v in with_votes.state_dict().items() if not k.startswith("votes")})
    assert torch.equal(run(with_votes, *inputs(CATEGORICAL)), run(without, *inputs(CATEGORICAL)))


@pytest.mark.parametrize("window", [3, 5])
def test_votes_count_the_neighbours_of_each_class_and_not_the_voxel_itself(window):
    model = unet(CATEGORICAL, patch_size=2, vote_windows=(window,))
    sample, *rest = inputs(CATEGORICAL)
    before = run(model, sample, *rest)
    gains = torch.linspace(-1, 1, 21)
    with torch.no_grad():
        model.votes.gain.bias.copy_(gains)  # the same at all times
    added = run(model, sample, *rest) - before
    shown = torch.nn.functional.one_hot(sample.long(), 21).movedim(-1, 1).float()
    cube = torch.ones(21, 1, window, window, window)
    cube[:, :, window // 2, window // 2, window // 2] = 0
    counts = torch.nn.functional.conv3d(shown, cube, padding=window // 2, groups=21)
    assert counts.max() > 5
    torch.testing.assert_close(added, counts * gains.view(1, -1, 1, 1, 1), atol=1e-4, rtol=1e-5)


def test_the_gradient_of_votes_is_that_of_the_sum_written_out():
    votes = NeighborVotes((3, 5), 4, 8).double()
    torch.nn.init.normal_(votes.gain.weight)
    sample = torch.randint(0, 4, (2, 6, 5, 7), dtype=torch.uint8)
    logits = torch.randn(2, 4, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    time, weight = torch.randn(2, 8, dtype=torch.float64, requires_grad=True), torch.randn_like(logits)
    leaves = (logits, time, *votes.parameters())
    shown = torch.nn.functional.one_hot(sample.long(), 4).movedim(-1, 1).double()
    gains = votes.gain(torch.nn.functional.silu(time)).view(2, 2, 4, 1, 1, 1)
    expected = logits
    for i, window in enumerate(votes.windows):
        cube = torch.ones(4, 1, window, window, window, dtype=torch.float64)
        counts = torch.nn.functional.conv3d(shown, cube, padding=window // 2, groups=4) - shown
        expected = expected + gains[:, i] * counts
    expected = torch.autograd.grad((expected * weight).sum(), leaves)
    torch.testing.assert_close(torch.autograd.grad((votes(logits, sample, time) * weight).sum(), leaves), expected)


def test_gains_of_votes_follow_the_time():
    model = unet(CATEGORICAL, **VOTES)
    torch.nn.init.normal_(model.votes.gain.weight)
    sample, _, text, mask = inputs(CATEGORICAL)
    gains = []
    with torch.no_grad():
        for t in (100, 900):
            logits = torch.zeros(2, 21, *GRID)
            time = model.embed_time(sample, t, text, mask)
            gains.append(model.votes(logits, sample, time))
    assert not torch.allclose(*gains)


@pytest.mark.parametrize("windows", [(2,), (1,), (7,), (3, 4)])
def test_windows_that_have_no_middle_or_overflow_are_errors(windows):
    with pytest.raises(ValueError, match=r"vote_windows: got .*, expected 3 or 5 voxels a side"):
        unet(CATEGORICAL, vote_windows=windows)


# ---- detail


def test_untrained_detail_changes_nothing():
    with_detail, without = unet(CATEGORICAL, **DETAIL), unet(CATEGORICAL, **VOTES)
    without.load_state_dict({k: v for k, v in with_detail.state_dict().items() if not k.startswith("detail")})
    assert torch.equal(run(with_detail, *inputs(CATEGORICAL)), run(without, *inputs(CATEGORICAL)))


@pytest.mark.parametrize("channels", [6, -4])
def test_detail_that_does_not_divide_into_groups_is_an_error(channels):
    with pytest.raises(ValueError, match=rf"detail_channels: got {channels}, expected 0 or a multiple of"):
        unet(CATEGORICAL, detail_channels=channels)


def test_detail_learns_what_neighbours_in_another_patch_decide():
    """Where the voxel above is of class 1, the voxel is of class 2; the logits that come in say nothing."""
    torch.manual_seed(0)
    detail, time = Detail(8, 4, 16, 4), torch.randn(1, 16)
    sample = torch.randint(0, 2, (1, 8, 8, 8), dtype=torch.uint8)
    wanted = (2 * sample.roll(1, 3)).long()
    optimizer = torch.optim.Adam(detail.parameters(), lr=2e-2)
    for _ in range(60):
        logits = detail(torch.zeros(1, 4, 8, 8, 8), sample, time)
        loss = torch.nn.functional.cross_entropy(logits[..., 1:], wanted[..., 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unseen = torch.randint(0, 2, (1, 8, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        found = detail(torch.zeros(1, 4, 8, 8, 8), unseen, time).argmax(1)
    assert (found == 2 * unseen.roll(1, 3))[..., 1:].float().mean() > 0.95


def test_checkpointing_gives_the_gradients_of_detail():
    model, batch, gradients = trained(unet(CATEGORICAL, **DETAIL)).train(), inputs(CATEGORICAL), []
    calls = []
    model.detail.register_forward_pre_hook(lambda *_: calls.append(1))
    for checkpointing in (False, True):
        if checkpointing:
            model.enable_gradient_checkpointing()
        model.zero_grad()
        loss_of(model, batch).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert len(calls) == 1 + 2, "checkpointing runs it a second time"
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


@VARIANTS
def test_timesteps_of_every_kind_agree(variant):
    model, (sample, _, text, mask) = unet(variant), inputs(variant)
    out = run(model, sample, 321, text, mask)
    for timestep in (torch.tensor(321), torch.tensor([321]), torch.tensor([321, 321]), 321.0):
        assert torch.equal(run(model, sample, timestep, text, mask), out)
    assert not torch.allclose(run(model, sample, 21, text, mask), out, atol=1e-3)
    mixed = run(model, sample, torch.tensor([321, 21]), text, mask)
    assert torch.allclose(mixed[0], out[0], atol=1e-5)
    assert not torch.allclose(mixed[1], out[1], atol=1e-3)


@VARIANTS
@pytest.mark.parametrize("options", [FULL, DEEP], ids=["full", "deep"])
def test_an_item_of_a_batch_is_a_single_run(variant, options):
    model, batch = unet(variant, options), inputs(variant, batch=3)
    out = run(model, *batch)
    for i in range(3):
        assert torch.allclose(run(model, *(x[i : i + 1] for x in batch)), out[i : i + 1], atol=1e-5)


# ---- training


@VARIANTS
@OPTIONS
def test_gradient_checkpointing_gives_the_same_gradients(variant, options):
    model, batch = unet(variant, options).train(), inputs(variant)
    losses, gradients, calls = [], [], []
    model.down[0].register_forward_pre_hook(lambda *_: calls.append(1))
    for checkpointing in (False, True):
        if checkpointing:
            model.enable_gradient_checkpointing()
        model.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        losses.append(loss.item())
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert len(calls) == 1 + 2, "checkpointing runs the layer a second time"
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


@NETWORKS
@OPTIONS
def test_a_training_step_reaches_every_parameter_and_lowers_the_loss(variant, patch, options):
    grid = tuple(n * patch.get("patch_size", 1) for n in (4, 4, 8))
    model, batch = trained(unet(variant, options, **patch)).train(), inputs(variant, grid)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=2e-3), []
    for _ in range(3):
        loss = loss_of(model, batch)
        optimizer.zero_grad()
        loss.backward()
        silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert silent == []
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]


@VARIANTS
def test_an_ema_follows_the_model_and_copies_back(variant, tmp_path):
    model, batch = unet(variant), inputs(variant)
    ema = EMAModel(model.parameters(), decay=0.9, model_cls=variant, model_config=model.config)
    start = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    expected = start
    for _ in range(3):
        loss_of(model, batch).backward()
        optimizer.step()
        ema.step(model.parameters())
        decay = ema.cur_decay_value
        expected = [decay * e + (1 - decay) * p.detach() for e, p in zip(expected, model.parameters(), strict=True)]
    assert 0 < decay < 1
    trained = [p.detach().clone() for p in model.parameters()]
    ema.copy_to(model.parameters())
    assert all(torch.allclose(p, e, atol=1e-6) for p, e in zip(model.parameters(), expected, strict=True))
    assert not any(torch.equal(p, t) for p, t in zip(model.parameters(), trained, strict=True))
    ema.save_pretrained(tmp_path)
    loaded = EMAModel.from_pretrained(tmp_path, variant)
    assert loaded.optimization_step == 3
    assert torch.equal(run(variant.from_pretrained(tmp_path), *batch), run(model, *batch))


# ---- saving, dtypes, memory formats, kernels


@VARIANTS
@pytest.mark.parametrize("options", [BARE, FULL, DEEP], ids=["bare", "full", "deep"])
@pytest.mark.parametrize("max_shard_size", ["10GB", "100KB"])
def test_a_saved_model_gives_the_same_output(tmp_path, variant, options, max_shard_size):
    model, batch = unet(variant, options), inputs(variant)
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (max_shard_size == "100KB")
    assert not list(tmp_path.glob("*.bin"))
    loaded, info = variant.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == []
    assert not loaded.training
    assert torch.equal(run(loaded, *batch), run(model, *batch))


@VARIANTS
@OPTIONS
def test_a_config_survives_a_round_trip(tmp_path, variant, options):
    patch = {"patch_size": 4} if variant is CATEGORICAL else {}
    model = unet(variant, options, **patch)
    model.save_config(tmp_path)
    loaded = variant.from_config(variant.load_config(tmp_path))
    listed = {k: list(v) if isinstance(v, tuple) else v for k, v in model.config.items() if not k.startswith("_")}
    again = {k: list(v) if isinstance(v, tuple) else v for k, v in loaded.config.items() if not k.startswith("_")}
    assert again == listed
    assert (
        listed.items() >= {k: list(v) if isinstance(v, tuple) else v for k, v in {**options, **patch}.items()}.items()
    )
    shapes = {name: p.shape for name, p in model.named_parameters()}
    assert {name: p.shape for name, p in loaded.named_parameters()} == shapes


@VARIANTS
@OPTIONS
def test_bfloat16_runs(variant, options):
    model, (sample, timestep, text, mask) = unet(variant, options), inputs(variant)
    reference = run(model, sample, timestep, text, mask)
    model = model.to(torch.bfloat16)
    sample = sample.bfloat16() if sample.is_floating_point() else sample
    out = run(model, sample, timestep, text.bfloat16(), mask)
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()
    assert (out.float() - reference).square().mean().sqrt() < 0.05 * reference.std()


@VARIANTS
def test_bfloat16_autocast_runs_and_trains(variant):
    model, batch = unet(variant).train(), inputs(variant)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model, batch)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in model.parameters())


@NETWORKS
def test_channels_last_equals_contiguous(variant, patch):
    grid = tuple(n * patch.get("patch_size", 1) for n in (4, 2, 6))
    model, (sample, *rest) = trained(unet(variant, **patch)), inputs(variant, grid)
    out = run(model, sample, *rest)
    model = model.to(memory_format=torch.channels_last_3d)
    assert model.conv_out.weight.is_contiguous(memory_format=torch.channels_last_3d)
    if variant is LATENT:
        sample = sample.contiguous(memory_format=torch.channels_last_3d)
    assert torch.allclose(run(model, sample, *rest), out, atol=1e-4)


@VARIANTS
def test_a_compiled_graph_equals_eager(variant):
    model, batch = unet(variant), inputs(variant)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.allclose(run(compiled, *batch), run(model, *batch), atol=1e-5)


def fused_attentions(model, batch):
    """How often a fused attention kernel ran."""
    with Operations() as operations:
        run(model, *batch)
    return sum("_scaled_dot_product_" in name for name in operations.names)


@VARIANTS
def test_an_attention_backend_belongs_to_its_model_and_gives_the_same_output(variant):
    model, other, batch = unet(variant), unet(variant), inputs(variant)
    out = run(model, *batch)
    attentions = sum(isinstance(module, Attention) for module in model.modules())
    assert fused_attentions(model, batch) == attentions > 0
    try:
        model.set_attention_backend("_native_math")
        other.set_attention_backend("native")  # set last, it is also what models without a choice of their own take
        assert fused_attentions(model, batch) == 0
        assert fused_attentions(other, batch) == attentions
        assert torch.allclose(run(model, *batch), out, atol=1e-5)
    finally:
        model.reset_attention_backend()
        other.reset_attention_backend()
    assert fused_attentions(model, batch) == attentions
    assert torch.equal(run(model, *batch), out)


@VARIANTS
def test_modules_that_stay_whole_exist(variant):
    names = {type(module).__name__ for module in unet(variant).modules()}
    assert names >= {*variant._no_split_modules, *variant._repeated_blocks}
