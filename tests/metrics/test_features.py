"""Feature networks turn volumes into vectors, the same however they are batched, and say what they are."""

import re
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from guidegen_diffusers import Segmenter3D, TorsoPhantom
from guidegen_diffusers.labels import CLASSES, TUMOR
from guidegen_diffusers.metrics import (
    PAINT_HU,
    SegmenterFeatures,
    SliceFeatures,
    VideoFeatures,
    frechet_distance,
    paint_labels,
)
from guidegen_diffusers.metrics.features import plane_slices


@pytest.fixture
def segmenter():
    torch.manual_seed(0)
    return Segmenter3D(spacing=24.0, block_out_channels=(4, 8, 12))


@pytest.fixture(scope="module")
def cases():
    phantom = TorsoPhantom((16, 12, 24), 24.0)
    return [phantom.sample("kidney cancer", seed) for seed in range(5)]


def state_file(folder, network, suffix=".pth"):
    path = folder / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    else:
        torch.save(network.state_dict(), path)
    return path


# ------------------------------------------------------------------------------------------------------------ labels


def test_every_class_is_painted_at_a_value_of_its_own():
    assert list(PAINT_HU) == [c.name for c in CLASSES]
    assert len(set(PAINT_HU.values())) == len(CLASSES)
    labels = np.arange(21, dtype=np.uint8).reshape(3, 7, 1)
    painted = paint_labels(labels)
    assert painted.dtype == np.int16
    assert painted.ravel().tolist() == list(PAINT_HU.values())
    assert np.unique(paint_labels(labels, (TUMOR,))).tolist() == [PAINT_HU["background"], PAINT_HU["tumor"]]
    with pytest.raises(ValueError, match="class ids"):
        paint_labels(labels + 5)


# --------------------------------------------------------------------------------------------------------- segmenter


def test_the_segmenters_features_are_its_deepest_averaged(segmenter, cases):
    features = SegmenterFeatures(segmenter)([case.ct for case in cases])
    assert features.shape == (5, 12)
    with torch.no_grad():
        deepest = segmenter(torch.from_numpy(cases[3].ct)[None]).features
    np.testing.assert_allclose(features[3], deepest.mean((2, 3, 4))[0].numpy(), rtol=1e-4, atol=1e-6)


def test_batches_change_nothing_and_volumes_may_come_one_by_one(segmenter, cases):
    whole = SegmenterFeatures(segmenter, batch_size=8)([case.ct for case in cases])
    single = SegmenterFeatures(segmenter, batch_size=2)(case.ct for case in cases)
    np.testing.assert_allclose(whole, single, rtol=1e-4, atol=1e-6)


def test_sides_that_do_not_halve_are_filled_with_air(segmenter):
    ct = np.random.default_rng(0).integers(-1000, 1000, (7, 9, 12)).astype(np.int16)
    filled = np.pad(ct, ((0, 1), (0, 3), (0, 0)), constant_values=-1000)
    network = SegmenterFeatures(segmenter)
    assert np.array_equal(network([ct]), network([filled]))


def test_unlike_sets_lie_further_apart_than_like_ones(segmenter, cases):
    network = SegmenterFeatures(segmenter)
    ct, maps, tumors = (
        network([read(case) for case in cases])
        for read in (
            lambda case: case.ct,
            lambda case: paint_labels(case.labels),
            lambda case: paint_labels(case.labels, (TUMOR,)),
        )
    )
    like = frechet_distance(ct[:3], ct[2:])
    assert frechet_distance(ct, maps) > like
    assert frechet_distance(maps, tumors) > frechet_distance(maps[:3], maps[2:])
    assert frechet_distance(ct, ct) < 1e-9


def test_a_network_says_what_it_is_and_other_weights_are_another_version(segmenter):
    network = SegmenterFeatures(segmenter)
    assert "Segmenter3D" in network.name
    assert "24 mm" in network.reads
    assert network.version == SegmenterFeatures(segmenter).version
    with torch.no_grad():
        segmenter.conv_in.bias[0] += 1
    assert network.version != SegmenterFeatures(segmenter).version


@pytest.mark.parametrize(
    ("volumes", "message"),
    [
        ([], "got none"),
        ([np.zeros((8, 8))], "volume 0: got shape (8, 8)"),
        ([np.zeros((8, 8, 8)), np.zeros((8, 8, 4))], "volume 1: got shape (8, 8, 4)"),
        ([np.zeros((8, 8, 8))] * 5 + [np.full((8, 8, 8), np.nan)], "volume 5: got NaN"),
    ],
)
def test_volumes_that_make_no_set_are_named(segmenter, volumes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SegmenterFeatures(segmenter)(volumes)


# ------------------------------------------------------------------------------------------------ slices and frames


def test_slices_stand_upright():
    volume = torch.zeros(3, 4, 5)
    volume[0, 3, 4] = 1  # left, front, top
    assert plane_slices(volume, "axial").shape == (5, 4, 3)
    assert plane_slices(volume, "axial")[4, 0, 0] == 1
    assert plane_slices(volume, "coronal").shape == (4, 5, 3)
    assert plane_slices(volume, "coronal")[3, 0, 0] == 1
    assert plane_slices(volume, "sagittal").shape == (3, 5, 4)
    assert plane_slices(volume, "sagittal")[0, 0, 3] == 1
    assert torch.equal(plane_slices(volume, "axial", 3), plane_slices(volume, "axial")[[0, 2, 4]])


def test_without_torchvision_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match="pip install torchvision"):
        SliceFeatures("resnet50", "weights.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_slices_of_three_planes_have_the_networks_features(tmp_path, cases, suffix):
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    plain = models.shufflenet_v2_x0_5(weights=None).eval()
    network = SliceFeatures("shufflenet_v2_x0_5", state_file(tmp_path, plain, suffix), num_slices=3, size=64)
    features = network(case.ct for case in cases[:2])
    assert {plane: f.shape for plane, f in features.items()} == dict.fromkeys(
        ("sagittal", "coronal", "axial"), (6, 1024)
    )
    several = SliceFeatures("shufflenet_v2_x0_5", tmp_path / f"weights{suffix}", 3, size=64, batch_size=2)
    np.testing.assert_allclose(several(c.ct for c in cases[:2])["axial"], features["axial"], rtol=1e-3, atol=1e-5)
    assert several.version == network.version


def test_the_last_layer_is_all_that_is_taken_off(tmp_path):
    models = pytest.importorskip("torchvision.models")
    from guidegen_diffusers.metrics.features import load_torchvision

    torch.manual_seed(0)
    plain = models.resnet18(weights=None, num_classes=7).eval()  # however many classes it was trained on
    network = load_torchvision("resnet18", state_file(tmp_path, plain))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(plain.fc(network(images)), plain(images))


def test_frames_are_read_by_a_video_network(tmp_path, cases):
    video = pytest.importorskip("torchvision.models.video")
    torch.manual_seed(0)
    path = state_file(tmp_path, video.r3d_18(weights=None))
    network = VideoFeatures("r3d_18", path, num_slices=8, size=32)
    features = network([cases[0].ct, cases[1].ct])
    assert features.shape == (2, 512)
    backwards = network([cases[0].ct[:, :, ::-1]])
    assert not np.allclose(backwards, features[:1])  # the order of the slices is read


def test_weights_that_do_not_fit_are_named(tmp_path):
    models = pytest.importorskip("torchvision.models")
    plain = models.shufflenet_v2_x0_5(weights=None)
    path = state_file(tmp_path, plain)
    with pytest.raises(ValueError, match="expected one of"):
        SliceFeatures("resnet5000", path)
    with pytest.raises(FileNotFoundError, match="nothing is downloaded"):
        SliceFeatures("shufflenet_v2_x0_5", tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="resnet18"):
        SliceFeatures("resnet18", path)
    with pytest.raises(ValueError, match="no linear layer"):
        SliceFeatures("squeezenet1_1", path)
    with pytest.raises(ValueError, match="expected the state of torchvision's shufflenet_v2_x1_0"):
        SliceFeatures("shufflenet_v2_x1_0", path)
