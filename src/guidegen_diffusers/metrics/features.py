"""Feature networks: volumes to vectors, for whatever compares sets of cases (`distances.py`, `memorization.py`).

A feature network is called with volumes (HU, all of one shape, RAS) and says its `name`, its `version` (a hash of its
weights) and what it `reads`: figures of different networks have nothing to do with one another, so all three belong
beside every figure. Label maps are read as CT that `paint_labels` paints. Weights are at hand or in a local file;
nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from ..labels import CLASSES, check_labels
from ..models import Segmenter3D


__all__ = ["PAINT_HU", "SegmenterFeatures", "SliceFeatures", "VideoFeatures", "paint_labels"]

AIR = -1000
# The HU that stand for each class where a label map is read as CT: about its own, and no two alike.
PAINT_HU = dict(
    background=AIR, spleen=120, kidney=180, liver=100, stomach=30, pancreas=80, lung=-800, small_bowel=50, duodenum=60,
    colon=-50, urinary_bladder=5, heart=140, vertebrae=350, ribs=500, adrenal_gland=70, portal_and_splenic_vein=160,
    esophagus=40, aorta=220, inferior_vena_cava=150, gallbladder=15, tumor=-10,
)  # fmt: skip
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}  # the axis that a plane's slices are counted along
WINDOWS = ((-1000.0, -400.0), (-150.0, 250.0), (-1000.0, 1000.0))  # HU: lung, soft tissue, everything
# what torchvision's published weights were trained with
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VIDEO_MEAN, VIDEO_STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)


def paint_labels(labels: np.ndarray, classes: Sequence[int] | None = None) -> np.ndarray:
    """A label map as `int16` HU, each class at its `PAINT_HU` and the background as air.

    With `classes` the others are left out: `classes=(TUMOR,)` paints the tumour alone.
    """
    shown = range(len(CLASSES)) if classes is None else classes
    table = np.array([PAINT_HU[c.name] if c.id in shown else AIR for c in CLASSES], np.int16)
    return table[check_labels(labels)]


# ---------------------------------------------------------------------------------------------------------- networks


class SegmenterFeatures:
    """The deepest features of a [`Segmenter3D`], averaged over the volume: 3-D, and made for CT.

    Called with volumes at the segmenter's spacing, it gives `float32` features (N, C).

    Args:
        segmenter (`Segmenter3D`): moved to `device`, and set to evaluate.
        device (`str` or `torch.device`, defaults to `"cpu"`).
        batch_size (`int`, defaults to 4): volumes at a time.
    """

    def __init__(self, segmenter: Segmenter3D, device: str | torch.device = "cpu", batch_size: int = 4):
        self.network, self.device, self.batch_size = segmenter.eval().to(device), device, batch_size
        self.name = "Segmenter3D, deepest level, mean over the volume"
        self.version = weights_version(segmenter)
        self.reads = f"HU of voxels of {segmenter.config.spacing:g} mm"

    @torch.no_grad()
    def __call__(self, volumes: Iterable[np.ndarray]) -> np.ndarray:
        factor = 2 ** (len(self.network.config.block_out_channels) - 1)
        found = []
        for ct in volume_batches(volumes, self.batch_size):
            features = self.network(pad_with_air(ct, factor).to(self.device)).features
            found.append(features.float().mean((2, 3, 4)).cpu().numpy())
        return np.concatenate(found)


class SliceFeatures:
    """Features of slices in three planes by an image classification network of torchvision, less its last layer.

    Called with volumes, it gives `float32` features of all slices for each plane, `{"axial": (N * slices, C), ...}`;
    the 2.5-D FID is the mean of `frechet_distance` over the three. Slices stand upright, are squared with air and
    resized; their channels are a lung, a soft tissue and a wide window, normalised as ImageNet's.

    Args:
        name (`str`): as in `torchvision.models`, "resnet50" or "inception_v3", say.
        weights: a local file of that network's state, `.safetensors` or a pickle of tensors.
        num_slices (`int`, *optional*): evenly spread, of each plane; all unless given.
        size (`int`, defaults to 224): side that slices are brought to.
        device (`str` or `torch.device`, defaults to `"cpu"`).
        batch_size (`int`, defaults to 32): slices at a time.
    """

    def __init__(
        self,
        name: str,
        weights: str | os.PathLike,
        num_slices: int | None = None,
        size: int = 224,
        device: str | torch.device = "cpu",
        batch_size: int = 32,
    ):
        self.network = load_torchvision(name, weights).to(device)
        self.num_slices, self.size, self.device, self.batch_size = num_slices, size, device, batch_size
        self.name, self.version = f"torchvision {name}", weights_version(self.network)
        self.reads = f"{num_slices or 'all'} slices of each plane in windows {WINDOWS}, {size} x {size}"

    @torch.no_grad()
    def __call__(self, volumes: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
        found: dict[str, list[np.ndarray]] = {plane: [] for plane in PLANES}
        for volume in volume_batches(volumes, 1):
            for plane, features in found.items():
                for slices in plane_slices(volume[0], plane, self.num_slices).split(self.batch_size):
                    images = _images(slices, self.size, IMAGE_MEAN, IMAGE_STD)
                    features.append(self.network(images.to(self.device)).float().cpu().numpy())
        return {plane: np.concatenate(features) for plane, features in found.items()}


class VideoFeatures:
    """Features of axial slices read as frames, bottom to top, by a video network of torchvision, less its last layer.

    Called with volumes, it gives `float32` features (N, C); their `frechet_distance` is an FVD. Frames are made as
    `SliceFeatures` makes slices, and normalised as Kinetics'.

    Args:
        name (`str`): as in `torchvision.models.video`, "r3d_18", say.
        weights: a local file of that network's state, `.safetensors` or a pickle of tensors.
        num_slices (`int`, *optional*): frames, evenly spread; all unless given.
        size (`int`, defaults to 112): side that frames are brought to.
        device (`str` or `torch.device`, defaults to `"cpu"`).
        batch_size (`int`, defaults to 1): volumes at a time.
    """

    def __init__(
        self,
        name: str,
        weights: str | os.PathLike,
        num_slices: int | None = None,
        size: int = 112,
        device: str | torch.device = "cpu",
        batch_size: int = 1,
    ):
        self.network = load_torchvision(name, weights, video=True).to(device)
        self.num_slices, self.size, self.device, self.batch_size = num_slices, size, device, batch_size
        self.name, self.version = f"torchvision {name}", weights_version(self.network)
        self.reads = f"{num_slices or 'all'} axial slices as frames in windows {WINDOWS}, {size} x {size}"

    @torch.no_grad()
    def __call__(self, volumes: Iterable[np.ndarray]) -> np.ndarray:
        found = []
        for batch in volume_batches(volumes, self.batch_size):
            clips = []
            for volume in batch:
                parts = plane_slices(volume, "axial", self.num_slices).split(32)  # fine slices fill the memory
                frames = torch.cat([_images(part, self.size, VIDEO_MEAN, VIDEO_STD) for part in parts])
                clips.append(frames.movedim(0, 1))  # (3, T, H, W)
            found.append(self.network(torch.stack(clips).to(self.device)).float().cpu().numpy())
        return np.concatenate(found)


def load_torchvision(name: str, weights: str | os.PathLike, video: bool = False) -> nn.Module:
    """A classification network of torchvision with weights of a local file, its last linear layer taken off."""
    try:
        from torchvision import models
    except ImportError as error:
        raise ImportError(
            "torchvision is not installed, expected it for 2-D and video networks: `pip install torchvision`, of the "
            "release that goes with your torch."
        ) from error
    known = models.list_models(module=models.video if video else models)
    if name not in known:
        raise ValueError(f"name: got {name!r}, expected one of {', '.join(known)}.")
    state = read_weights(weights)
    slow = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}  # drawing takes them a minute
    network = models.get_model(name, weights=None, **slow)
    heads = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not heads:
        raise ValueError(f"name: got {name!r}, which ends in no linear layer to take off; choose another network.")
    network.set_submodule(heads[-1], nn.Identity())
    state = {key: value for key, value in state.items() if not key.startswith(f"{heads[-1]}.")}
    expected = f"expected the state of torchvision's {name}."
    try:
        lacks, unknown = network.load_state_dict(state, strict=False)
    except RuntimeError as error:  # of another shape
        raise ValueError(f"{weights}: {' '.join(str(error).split())}; {expected}") from error
    for problem, keys in (("lacks", lacks), ("has unknown", unknown)):
        if keys:
            raise ValueError(f"{weights}: {problem} {len(keys)} parameter(s), the first is {keys[0]!r}; {expected}")
    return network.eval()


def read_weights(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file, expected weights on disk; nothing is downloaded.")
    if Path(path).suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)  # tensors only: no code runs


def weights_version(network: nn.Module) -> str:
    """The first twelve digits of the SHA-256 of a network's parameters and buffers, by name."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)} ".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


# ----------------------------------------------------------------------------------------------------------- volumes


def volume_batches(volumes: Iterable[np.ndarray], size: int) -> Iterator[torch.Tensor]:
    """Volumes as `float32` batches (B, X, Y, Z), read as they are needed; all must have one shape."""
    source, shape, count = iter(volumes), None, 0
    while batch := [np.asarray(volume) for volume in itertools.islice(source, size)]:
        for volume in batch:
            shape = shape or volume.shape
            if volume.ndim != 3 or volume.shape != shape:
                raise ValueError(f"volume {count}: got shape {volume.shape}, expected (X, Y, Z), the same for all.")
            if not np.isfinite(volume).all():
                raise ValueError(f"volume {count}: got NaN or infinite voxels, expected HU.")
            count += 1
        yield torch.from_numpy(np.stack(batch).astype(np.float32))
    if not count:
        raise ValueError("volumes: got none, expected at least one.")


def pad_with_air(ct: torch.Tensor, factor: int) -> torch.Tensor:
    """(B, X, Y, Z) with sides brought to multiples of `factor`."""
    return F.pad(ct, [n for side in reversed(ct.shape[1:]) for n in (0, -side % factor)], value=AIR)


def plane_slices(volume: torch.Tensor, plane: str, count: int | None = None) -> torch.Tensor:
    """The slices (S, H, W) of a volume (X, Y, Z), upright (front or head at the top); `count` evenly spread ones."""
    slices = volume.movedim(PLANES[plane], 0).transpose(1, 2).flip(1)
    return slices if count is None else slices[torch.linspace(0, len(slices) - 1, count).round().long()]


def windowed(hu: torch.Tensor) -> torch.Tensor:
    """Slices (S, H, W) in HU as images (S, 3, H, W) in [0, 1], a window each channel."""
    return torch.stack([((hu - low) / (high - low)).clamp(0, 1) for low, high in WINDOWS], dim=1)


def _images(slices: torch.Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Slices (S, H, W) squared with air, windowed, resized and normalised: (S, 3, size, size)."""
    height, width = slices.shape[1:]
    down, right = max(width - height, 0), max(height - width, 0)
    squared = F.pad(slices, (right // 2, right - right // 2, down // 2, down - down // 2), value=AIR)
    images = F.interpolate(windowed(squared), (size, size), mode="bilinear", antialias=True)
    return (images - images.new_tensor(mean)[:, None, None]) / images.new_tensor(std)[:, None, None]
