"""The text-conditioned 3-D U-Net of GuideGen and its two variants, one for each diffusion stage.

`UNet3DConditionModel` is the body: residual blocks with the time in their second norm, cross-attention to the text at
the levels that ask for it, a skip from every layer. `CategoricalUNet3DConditionModel` (Stage I, TCSS) reads a `uint8`
label map and writes class logits; `LatentUNet3DConditionModel` (Stage III, LFG) reads noisy latents beside the
semantic latents and writes noise. Choices of ours where the paper is silent:

- labels are embedded by a gather, `patch_size`^3 voxels at a time, and logits leave by depth-to-space, so that with
  `patch_size` 2 or 4 the trunk runs on 1/8 or 1/64 of the voxels;
- `vote_windows`: to each voxel's logits is added, class by class, how many neighbours in cubes around it x_t shows,
  with gains that the time sets: neighbours tell a speck of noise from a small tumour where a patch hardly can;
- `detail_channels`: convolutions over all voxels correct the logits, which leave a patch through one narrow layer
  where what is a voxel thin, or just touches another organ, is lost;
- `num_knowledge_queries`: learned queries pool the text, once for each cross-attention level, beside its tokens;
- `pool_text`: the mean text state joins the time embedding; `coordinates`: voxel positions join the stem.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.utils import BaseOutput
from einops import rearrange
from torch import nn

from .attention import Attention
from .conv_3d import Conv3d
from .strict_model import StrictModelMixin


__all__ = [
    "CategoricalUNet3DConditionModel",
    "LatentUNet3DConditionModel",
    "UNet3DConditionModel",
    "UNet3DConditionOutput",
]


@dataclass
class UNet3DConditionOutput(BaseOutput):
    """
    Args:
        sample (`torch.Tensor` of shape `(B, C, X, Y, Z)`): class logits (Stage I) or predicted noise (Stage III).
    """

    sample: torch.Tensor


class ResBlock3D(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, time_channels: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels)
        self.conv1 = Conv3d(in_channels, out_channels, 3, padding=1)
        self.time_proj = nn.Linear(time_channels, 2 * out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels)
        self.conv2 = Conv3d(out_channels, out_channels, 3, padding=1)
        self.shortcut = Conv3d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        scale, shift = self.time_proj(F.silu(time))[..., None, None, None].chunk(2, dim=1)  # (B, C, 1, 1, 1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        return self.shortcut(x) + h


class AttentionBlock3D(nn.Module):
    """Self-attention over the voxels (optional), then cross-attention from the voxels to the text (optional)."""

    def __init__(self, channels: int, head_dim: int, self_attention: bool, cross_attention_dim: int | None):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels) if self_attention else None
        self.self_attention = Attention(channels, head_dim) if self_attention else None
        self.norm2 = nn.LayerNorm(channels) if cross_attention_dim else None
        self.cross_attention = Attention(channels, head_dim, cross_attention_dim) if cross_attention_dim else None

    def forward(self, x: torch.Tensor, text: torch.Tensor | None, mask: torch.Tensor | None) -> torch.Tensor:
        size = x.shape[2:]
        tokens = rearrange(x, "b c x y z -> b (x y z) c")
        if self.self_attention is not None:
            tokens = tokens + self.self_attention(self.norm1(tokens))
        if self.cross_attention is not None:
            tokens = tokens + self.cross_attention(self.norm2(tokens), text, mask)
        return rearrange(tokens, "b (x y z) c -> b c x y z", x=size[0], y=size[1])


class UNetLayer3D(nn.Module):
    """A residual block and, at levels that have it, attention: what is checkpointed and placed as one."""

    def __init__(
        self, in_channels, out_channels, time_channels, groups, head_dim, self_attention, cross_attention_dim
    ):
        super().__init__()
        self.resnet = ResBlock3D(in_channels, out_channels, time_channels, groups)
        has_attention = self_attention or cross_attention_dim
        self.attention = (
            AttentionBlock3D(out_channels, head_dim, self_attention, cross_attention_dim) if has_attention else None
        )

    def forward(self, x, time, text=None, mask=None):
        x = self.resnet(x, time)
        return x if self.attention is None else self.attention(x, text, mask)


class KnowledgeQueries(nn.Module):
    """Learned queries pool the text states into a few tokens, set beside the text for one level of the U-Net."""

    def __init__(self, count: int, text_dim: int, head_dim: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(count, text_dim) * text_dim**-0.5)
        self.pool = Attention(text_dim, head_dim, text_dim)
        self.norm = nn.LayerNorm(text_dim)
        self.proj = nn.Linear(text_dim, text_dim)

    def forward(self, text, mask):  # (B, M, text_dim), (B, M) or None
        summary = self.pool(self.queries.expand(len(text), -1, -1).to(text.dtype), text, mask)
        text = torch.cat([text, self.proj(self.norm(summary))], dim=1)
        mask = None if mask is None else F.pad(mask, (0, len(self.queries)), value=True)
        return text, mask


class NeighborVotes(nn.Module):
    """Class counts in cubes around each voxel, itself left out, added to the logits with gains that the time sets.

    Where neighbours are of one class, what x_t says for that class is linear in its count.
    """

    def __init__(self, windows: tuple[int, ...], num_classes: int, time_channels: int):
        super().__init__()
        if any(w % 2 == 0 or not 3 <= w <= 5 for w in windows):  # 7^3 voxels are more than a uint8 counts
            raise ValueError(f"vote_windows: got {list(windows)}, expected 3 or 5 voxels a side.")
        self.windows = tuple(windows)
        self.gain = nn.Linear(time_channels, len(windows) * num_classes)
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.gain.bias)

    def forward(self, logits: torch.Tensor, sample: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        gains = self.gain(F.silu(time)).unflatten(1, (len(self.windows), -1))
        return _AddVotes.apply(logits, gains.to(logits.dtype), sample, self.windows)


class _AddVotes(torch.autograd.Function):
    """logits + sum_w gain_w counts_w. Counts are made where they are used, a few classes at a time, and never kept."""

    @staticmethod
    def forward(ctx, logits, gains, sample, windows):  # (B, N, X, Y, Z), (B, W, N), (B, X, Y, Z)
        ctx.save_for_backward(gains, sample)
        ctx.windows = windows
        out = logits.clone()
        for b, classes in _class_blocks(logits):
            for w, count in enumerate(_count_neighbors(sample[b], classes, windows)):
                out[b, classes].addcmul_(count.to(out.dtype), gains[b, w, classes, None, None, None])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        gains, sample = ctx.saved_tensors
        sums = torch.zeros(gains.shape, dtype=torch.promote_types(grad.dtype, torch.float32), device=grad.device)
        for b, classes in _class_blocks(grad):
            item = grad[b, classes].flatten(1).to(sums.dtype)
            for w, count in enumerate(_count_neighbors(sample[b], classes, ctx.windows)):
                sums[b, w, classes] = torch.linalg.vecdot(item, count.flatten(1).to(sums.dtype))
        return grad, sums.to(gains.dtype), None, None


class Detail(nn.Module):
    """Residual blocks over every voxel's logits and x_t; what they find is added to the logits."""

    def __init__(self, channels: int, num_classes: int, time_channels: int, groups: int):
        super().__init__()
        self.logits_in = Conv3d(num_classes, channels, 1)
        self.label_embedding = nn.Embedding(num_classes, channels)
        self.blocks = nn.ModuleList([ResBlock3D(channels, channels, time_channels, groups) for _ in range(2)])
        self.norm_out = nn.GroupNorm(groups, channels)
        self.conv_out = Conv3d(channels, num_classes, 1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, logits: torch.Tensor, sample: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        shown = rearrange(self.label_embedding(sample.int()), "b x y z c -> b c x y z")
        x = self.logits_in(logits.log_softmax(1)) + shown
        for block in self.blocks:
            x = block(x, time)
        return logits + self.conv_out(F.silu(self.norm_out(x)))


def _class_blocks(logits: torch.Tensor) -> Iterator[tuple[int, slice]]:
    """Items and classes in turns small enough for a cache (CPU) or to hide the launches (GPU)."""
    size = 1 if logits.device.type == "cpu" else logits.shape[1]
    return ((b, slice(n, n + size)) for b in range(len(logits)) for n in range(0, logits.shape[1], size))


def _count_neighbors(sample: torch.Tensor, classes: slice, windows: tuple[int, ...]) -> list[torch.Tensor]:
    """(X, Y, Z) to how many neighbours of each voxel are of each class, a window each: (n, X, Y, Z) `uint8`."""
    ids = torch.arange(classes.start, classes.stop, device=sample.device, dtype=torch.uint8)
    shown = (sample == ids[:, None, None, None]).to(torch.uint8)
    return [box_sum(shown, w) - shown for w in windows]


def box_sum(x: torch.Tensor, window: int) -> torch.Tensor:
    """Sums over cubes of `window` voxels a side around each voxel; what lies outside counts 0."""
    for dim in (-3, -2, -1):
        total = x.clone()
        for shift in range(1, window // 2 + 1):
            size = x.shape[dim] - shift
            total.narrow(dim, 0, size).add_(x.narrow(dim, shift, size))
            total.narrow(dim, shift, size).add_(x.narrow(dim, 0, size))
        x = total
    return x


class UNet3DConditionModel(StrictModelMixin):
    """The body that both variants share, from stem features to head features; it is not used on its own."""

    _supports_gradient_checkpointing = True
    _no_split_modules = ["UNetLayer3D"]
    _repeated_blocks = ["AttentionBlock3D"]

    def __init__(
        self,
        block_out_channels: tuple[int, ...],
        layers_per_block: int,
        cross_attention_dim: int,
        cross_attention_levels: tuple[bool, ...],
        self_attention_levels: tuple[bool, ...],
        attention_head_dim: int,
        norm_num_groups: int,
        num_knowledge_queries: int,
        pool_text: bool,
        coordinates: bool,
    ):
        super().__init__()
        widths = list(block_out_channels)
        for name, levels in (("cross_attention", cross_attention_levels), ("self_attention", self_attention_levels)):
            if len(levels) != len(widths):
                raise ValueError(f"{name}_levels: got {len(levels)} entries, expected {len(widths)}, one a level.")
        time_channels = 4 * widths[0]
        self.time_proj = Timesteps(widths[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(widths[0], time_channels)
        self.text_embedding = nn.Linear(cross_attention_dim, time_channels) if pool_text else None
        self.position_embedding = Conv3d(3, widths[0], 1) if coordinates else None
        self.knowledge = nn.ModuleDict(
            {
                str(level): KnowledgeQueries(num_knowledge_queries, cross_attention_dim, attention_head_dim)
                for level, cross in enumerate(cross_attention_levels)
                if cross and num_knowledge_queries
            }
        )

        def layer(in_channels: int, out_channels: int, level: int) -> UNetLayer3D:
            text_dim = cross_attention_dim if cross_attention_levels[level] else None
            shared = (time_channels, norm_num_groups, attention_head_dim, self_attention_levels[level], text_dim)
            return UNetLayer3D(in_channels, out_channels, *shared)

        # Flat lists, so that offloading by blocks finds the layers. Every layer and every down-sampling on the way
        # down leaves a skip for a layer on the way up.
        self.down, self.downsample = nn.ModuleList(), nn.ModuleList()
        self.up, self.upsample = nn.ModuleList(), nn.ModuleList()
        skips, width, last = [widths[0]], widths[0], len(widths) - 1
        for level, out in enumerate(widths):
            for _ in range(layers_per_block):
                self.down.append(layer(width, out, level))
                width = out
                skips.append(width)
            if level < last:
                self.downsample.append(Conv3d(width, width, 3, stride=2, padding=1))
                skips.append(width)
        self.mid = nn.ModuleList([layer(width, width, last), layer(width, width, last)])
        for level in reversed(range(len(widths))):
            for _ in range(layers_per_block + 1):
                self.up.append(layer(width + skips.pop(), widths[level], level))
                width = widths[level]
            if level > 0:
                self.upsample.append(Conv3d(width, width, 3, padding=1))
        self.norm_out = nn.GroupNorm(norm_num_groups, widths[0])
        self.gradient_checkpointing = False

    def _check_grid(self, size: torch.Size, patch_size: int = 1) -> None:
        factor = patch_size * 2 ** len(self.downsample)
        if any(n % factor for n in size):
            raise ValueError(f"sample: got a grid of {tuple(size)}, expected multiples of {factor}.")

    def _checkpointed(self, module: nn.Module, *arguments) -> torch.Tensor:
        """The module's output; where checkpointing is on, backward makes what lies between anew."""
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(module, *arguments)
        return module(*arguments)

    def embed_time(
        self,
        sample: torch.Tensor,  # (B, ...)
        timestep: torch.Tensor | float | int,
        text: torch.Tensor | None,  # (B, M, cross_attention_dim)
        mask: torch.Tensor | None,  # (B, M)
    ) -> torch.Tensor:  # (B, time_channels), with the mean text state where it is pooled
        time = self.time_proj(torch.as_tensor(timestep, device=sample.device).expand(len(sample))).to(self.dtype)
        time = self.time_embedding(time)
        if self.text_embedding is None:
            return time
        weight = text.new_ones(text.shape[:2]) if mask is None else mask.to(text.dtype)
        mean = torch.einsum("bmc,bm->bc", text, weight) / weight.sum(1, keepdim=True).clamp(min=1)
        return time + self.text_embedding(mean)

    def trunk(
        self,
        x: torch.Tensor,  # (B, C_0, x, y, z): the stem's features
        time: torch.Tensor,  # (B, time_channels)
        text: torch.Tensor | None,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        if mask is not None:
            mask = mask.bool()
        if self.position_embedding is not None:
            axes = [torch.linspace(-1, 1, n, device=x.device, dtype=x.dtype) for n in x.shape[2:]]
            x = x + self.position_embedding(torch.stack(torch.meshgrid(*axes, indexing="ij"))[None])
        context = {int(level): pool(text, mask) for level, pool in self.knowledge.items()}

        def run(layer: UNetLayer3D, x: torch.Tensor, level: int) -> torch.Tensor:
            return self._checkpointed(layer, x, time, *context.get(level, (text, mask)))

        skips, last, per_level = [x], len(self.downsample), self.config.layers_per_block
        for i, layer in enumerate(self.down):
            x = run(layer, x, i // per_level)
            skips.append(x)
            if (i + 1) % per_level == 0 and i // per_level < last:
                x = self.downsample[i // per_level](x)
                skips.append(x)
        for layer in self.mid:
            x = run(layer, x, last)
        for i, layer in enumerate(self.up):
            up = i // (per_level + 1)
            x = run(layer, torch.cat([x, skips.pop()], dim=1), last - up)
            if (i + 1) % (per_level + 1) == 0 and up < last:
                x = self.upsample[up](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return F.silu(self.norm_out(x))


class CategoricalUNet3DConditionModel(UNet3DConditionModel):
    """
    Stage I (TCSS): a label map at step t, with the text, to the logits of the clean label map.

    With `patch_size=1` and widths 32-64-128-256 it is the paper's network.

    Args:
        sample_size (`tuple[int, int, int]`): the label grid X, Y, Z that the network is made for.
        num_classes (`int`, defaults to 21): N.
        patch_size (`int`, defaults to 1): 1, 2 or 4; voxels a side that the trunk sees as one.
        vote_windows (`tuple[int, ...]`, defaults to `()`): of 3 and 5; sides of the cubes whose neighbours vote.
        detail_channels (`int`, defaults to 0): width of the convolutions over all voxels that correct the logits.
        block_out_channels (`tuple[int, ...]`): widths of the levels; each level after the first halves the grid.
        layers_per_block (`int`, defaults to 2): residual blocks a level.
        cross_attention_dim (`int`, defaults to 768): width of the text states.
        cross_attention_levels, self_attention_levels (`tuple[bool, ...]`): the levels with attention, finest first.
        attention_head_dim (`int`, defaults to 32), norm_num_groups (`int`, defaults to 8).
        num_knowledge_queries (`int`, defaults to 0), pool_text, coordinates (`bool`): see the module's docstring.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: tuple[int, int, int] = (128, 128, 128),
        num_classes: int = 21,
        patch_size: int = 1,
        vote_windows: tuple[int, ...] = (),
        detail_channels: int = 0,
        block_out_channels: tuple[int, ...] = (32, 64, 128, 256),
        layers_per_block: int = 2,
        cross_attention_dim: int = 768,
        cross_attention_levels: tuple[bool, ...] = (True, False, True, False),
        self_attention_levels: tuple[bool, ...] = (False, False, False, False),
        attention_head_dim: int = 32,
        norm_num_groups: int = 8,
        num_knowledge_queries: int = 0,
        pool_text: bool = False,
        coordinates: bool = False,
    ):
        super().__init__(
            block_out_channels,
            layers_per_block,
            cross_attention_dim,
            cross_attention_levels,
            self_attention_levels,
            attention_head_dim,
            norm_num_groups,
            num_knowledge_queries,
            pool_text,
            coordinates,
        )
        if patch_size not in (1, 2, 4):
            raise ValueError(f"patch_size: got {patch_size}, expected 1, 2 or 4.")
        if detail_channels < 0 or detail_channels % norm_num_groups:
            raise ValueError(
                f"detail_channels: got {detail_channels}, expected 0 or a multiple of norm_num_groups, "
                f"{norm_num_groups}."
            )
        width = block_out_channels[0]
        # one row for each class at each place in the patch; a patch is the sum of its rows
        self.label_embedding = nn.EmbeddingBag(patch_size**3 * num_classes, width, mode="sum")
        kernel = 3 if patch_size == 1 else 1
        self.conv_out = Conv3d(width, patch_size**3 * num_classes, kernel, padding=kernel // 2)
        self.votes = NeighborVotes(vote_windows, num_classes, 4 * width) if vote_windows else None
        self.detail = Detail(detail_channels, num_classes, 4 * width, norm_num_groups) if detail_channels else None

    def forward(
        self,
        sample: torch.Tensor,  # (B, X, Y, Z) uint8, ids below num_classes (not checked: that would stall a GPU)
        timestep: torch.Tensor | int,
        encoder_hidden_states: torch.Tensor,  # (B, M, cross_attention_dim)
        encoder_attention_mask: torch.Tensor | None = None,  # (B, M)
        return_dict: bool = True,
    ) -> UNet3DConditionOutput | tuple[torch.Tensor]:
        p = self.config.patch_size
        if sample.ndim != 4 or sample.dtype != torch.uint8:
            raise ValueError(f"sample: got {tuple(sample.shape)} {sample.dtype}, expected (B, X, Y, Z) torch.uint8.")
        self._check_grid(sample.shape[1:], p)
        x = rearrange(_embed_patches(self.label_embedding, sample, p), "b x y z c -> b c x y z").to(self.dtype)
        text, mask = encoder_hidden_states, encoder_attention_mask
        time = self.embed_time(sample, timestep, text, mask)
        x = self.conv_out(self.trunk(x, time, text, mask))
        x = rearrange(x, "b c x y z -> b x y z c")  # as it lies: the gradient comes back in channels_last_3d, too
        logits = rearrange(x, "b x y z (n p q r) -> b n (x p) (y q) (z r)", p=p, q=p, r=p)
        if self.votes is not None:
            logits = self.votes(logits, sample, time)
        if self.detail is not None:
            logits = self._checkpointed(self.detail, logits, sample, time)
        return UNet3DConditionOutput(sample=logits) if return_dict else (logits,)


def _embed_patches(embedding: nn.EmbeddingBag, labels: torch.Tensor, p: int) -> torch.Tensor:
    """(B, X, Y, Z) `uint8` to (B, x, y, z, C): the sum of the rows of a patch's voxels."""
    patches = rearrange(labels, "b (x p) (y q) (z r) -> b x y z (p q r)", p=p, q=p, r=p).long()
    rows = patches + torch.arange(p**3, device=labels.device) * (embedding.num_embeddings // p**3)
    return embedding(rows.flatten(0, 3)).unflatten(0, rows.shape[:4])


class LatentUNet3DConditionModel(UNet3DConditionModel):
    """
    Stage III (LFG): [z_t, z^A, z^T] at step t, with the text, to the noise in z_t.

    Args:
        in_channels (`int`, defaults to 16): channels of z_t, z^A and z^T together.
        out_channels (`int`, defaults to 8): channels of z_t.
        block_out_channels ... coordinates: as in [`CategoricalUNet3DConditionModel`].
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 16,
        out_channels: int = 8,
        block_out_channels: tuple[int, ...] = (32, 64, 128, 256),
        layers_per_block: int = 2,
        cross_attention_dim: int = 768,
        cross_attention_levels: tuple[bool, ...] = (True, False, True, False),
        self_attention_levels: tuple[bool, ...] = (False, False, False, False),
        attention_head_dim: int = 32,
        norm_num_groups: int = 8,
        num_knowledge_queries: int = 0,
        pool_text: bool = False,
        coordinates: bool = False,
    ):
        super().__init__(
            block_out_channels,
            layers_per_block,
            cross_attention_dim,
            cross_attention_levels,
            self_attention_levels,
            attention_head_dim,
            norm_num_groups,
            num_knowledge_queries,
            pool_text,
            coordinates,
        )
        self.conv_in = Conv3d(in_channels, block_out_channels[0], 3, padding=1)
        self.conv_out = Conv3d(block_out_channels[0], out_channels, 3, padding=1)

    def forward(
        self,
        sample: torch.Tensor,  # (B, in_channels, x, y, z)
        timestep: torch.Tensor | int,
        encoder_hidden_states: torch.Tensor,  # (B, M, cross_attention_dim)
        encoder_attention_mask: torch.Tensor | None = None,  # (B, M)
        return_dict: bool = True,
    ) -> UNet3DConditionOutput | tuple[torch.Tensor]:
        if sample.ndim != 5 or sample.shape[1] != self.config.in_channels:
            raise ValueError(
                f"sample: got shape {tuple(sample.shape)}, expected (B, {self.config.in_channels}, x, y, z)."
            )
        self._check_grid(sample.shape[2:])
        text, mask = encoder_hidden_states, encoder_attention_mask
        time = self.embed_time(sample, timestep, text, mask)
        x = self.conv_out(self.trunk(self.conv_in(sample), time, text, mask))
        return UNet3DConditionOutput(sample=x) if return_dict else (x,)
