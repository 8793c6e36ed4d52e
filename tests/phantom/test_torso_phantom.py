"""A phantom is a pure function of prompt, seed and grid; one seed is one body, whatever its tumour, race and grid."""

import hashlib
import itertools
import os
import random
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from guidegen_diffusers import Case
from guidegen_diffusers.labels import CLASSES, TUMOR
from guidegen_diffusers.phantom import SEEDS, VERSION, TorsoPhantom
from guidegen_diffusers.phantom.torso_phantom import torso_size
from guidegen_diffusers.prompts import RACES, SITES

from .patients import IDS, ORGANS, same, someone, volume


LARGE = ("spleen", "kidney", "liver", "stomach", "lung", "small_bowel", "colon", "urinary_bladder", "heart", "aorta")
# voxels of spleen to gallbladder, and of the tumour, in the case below: whoever changes them raises VERSION
VOXELS = {
    1: [686, 1410, 5670, 992, 350, 20593, 2812, 260, 2889, 512, 2171, 2802, 2056, 47, 136, 197, 1089, 419, 122, 63],
}


# ------------------------------------------------------------------------------------------------ a pure function


def test_the_same_prompt_and_seed_give_the_same_bytes_and_another_seed_another_body(phantom):
    prompt = someone(site="left_kidney")
    first = phantom.sample(prompt, 5)
    assert same(first, phantom.sample(prompt, 5))
    assert same(first, TorsoPhantom().sample(prompt, np.int64(5)))
    other = phantom.sample(prompt, 6)
    assert (other.labels != first.labels).mean() > 0.02
    assert (other.ct != first.ct).mean() > 0.5


def test_another_process_gives_the_same_bytes(phantom):
    code = """if True:
        import hashlib
        from guidegen_diffusers.phantom import TorsoPhantom
        for seed, text in enumerate(("", "A woman with a tumor of the left kidney, T3 N1 M1.")):
            case = TorsoPhantom().sample(text, seed)
            print(hashlib.sha256(case.labels.tobytes() + case.ct.tobytes()).hexdigest(), case.prompt)
    """
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    for seed, text in enumerate(("", "A woman with a tumor of the left kidney, T3 N1 M1.")):
        case = phantom.sample(text, seed)
        digest = hashlib.sha256(case.labels.tobytes() + case.ct.tobytes()).hexdigest()
        assert done.stdout.splitlines()[seed] == f"{digest} {case.prompt}"


def test_the_global_generators_are_neither_used_nor_changed(phantom):
    cases = []
    for seed in (1, 2):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        cases.append(phantom.sample(None, 3))
        after = random.getstate(), np.random.get_state(), torch.get_rng_state()
        assert before[0] == after[0]
        assert all(np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True))
        assert torch.equal(before[2], after[2])
    assert same(*cases)
    assert cases[0].attributes == cases[1].attributes


def test_labels_alone_are_those_that_the_ct_shows(phantom):
    whole, labels = (phantom.sample(someone(site="right_kidney"), 12, ct=ct) for ct in (True, False))
    assert labels.ct is None
    assert np.array_equal(labels.labels, whole.labels)


def test_a_sample_leaves_nothing_behind_for_the_next(phantom):
    prompt = someone(site="transverse_colon", t=4, n=3, m=1)
    alone = TorsoPhantom().sample(prompt, 11)
    phantom.sample(None, 99)
    assert same(phantom.sample(prompt, 11), alone)


def test_another_anatomy_has_another_version(phantom):
    """Whoever learned from phantoms relies on it that a version's seeds stay what they are."""
    case = phantom.sample(someone("female", "51-60", site="right_lower_lung", n=1, m=1), 2024)
    assert case.provenance["version"] == VERSION
    assert np.bincount(case.labels.ravel(), minlength=21)[1:] == pytest.approx(VOXELS[VERSION], rel=0.02, abs=3)


def test_splits_share_no_seed():
    assert set(SEEDS) == {"train", "validation", "test"}
    for one, other in itertools.combinations(SEEDS.values(), 2):
        assert max(one.start, other.start) >= min(one.stop, other.stop)
    assert all(len(seeds) >= 1_000_000 and seeds.start >= 0 and seeds.step == 1 for seeds in SEEDS.values())


# ------------------------------------------------------------------------------------------------------- one body


@pytest.mark.parametrize("site", SITES[:-1])
def test_a_tumor_changes_the_labels_nowhere_else(phantom, site):
    for seed in (30, 31):
        healthy = phantom.sample(someone(), seed).labels
        ill = phantom.sample(someone(site=site, t=3, n=2, m=1), seed).labels
        tumor = ill == TUMOR
        assert tumor.any()
        assert np.array_equal(healthy[~tumor], ill[~tumor])


def test_a_tumor_changes_the_ct_nowhere_else(phantom):
    """No vessel far away is drawn otherwise because something grew."""
    healthy = phantom.sample(someone(), 30)
    for site in SITES[:-1]:
        for stage in (dict(t=2), dict(t=4, n=2, m=1)):
            ill = phantom.sample(someone(site=site, **stage), 30)
            far = ~ndimage.binary_dilation(ill.labels == TUMOR, np.ones((3, 3, 3)))  # the scanner blurs by a voxel
            assert np.array_equal(healthy.ct[far], ill.ct[far]), (site, stage)


def test_race_changes_nothing(phantom):
    """The negative control: a model that sees race in a phantom has learned something that is not there."""
    for site, seed in (("none", 40), ("left_upper_lung", 41), ("ascending_colon", 42)):
        first, *others = (phantom.sample(someone(race=race, site=site), seed) for race in RACES)
        assert all(same(first, other) for other in others)


def test_a_coarse_grid_shows_the_anatomy_of_the_fine_one(crowd, fine):
    for coarse, detailed in zip((crowd[0], crowd[3], crowd[4], crowd[7]), fine, strict=True):
        assert coarse.attributes == detailed.attributes
        brought = coarse.grid.resample_labels(detailed.labels, detailed.affine)
        for name in LARGE:
            assert volume(coarse, name) == pytest.approx(volume(detailed, name), rel=0.1), name
            a, b = coarse.labels == IDS[name], brought == IDS[name]
            assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.9, name


def test_a_small_field_of_view_shows_the_middle_of_the_large_one(phantom):
    prompt = someone(site="left_kidney")
    large, small = phantom.sample(prompt, 50).labels, TorsoPhantom((40, 32, 56), 6.0).sample(prompt, 50).labels
    organs = (large < TUMOR)[12:-12, 8:-8, 20:-20]
    assert (large[12:-12, 8:-8, 20:-20] == small)[organs].mean() > 0.999


# ---------------------------------------------------------------------------------------------------------- a case


def test_a_case_is_saved_and_comes_back_with_ct_and_labels_on_one_centered_ras_affine(tmp_path):
    case = TorsoPhantom((24, 20, 36), 16.0).sample(someone(site="left_kidney"), 7)
    assert nib.aff2axcodes(case.affine) == ("R", "A", "S")
    np.testing.assert_allclose(case.grid.center, 0, atol=1e-9)
    np.testing.assert_allclose(case.grid.spacing, 16)
    assert (case.ct.dtype, case.labels.dtype) == (np.int16, np.uint8)
    again = Case.load(case.save(tmp_path / "case"))
    assert same(again, case)
    np.testing.assert_allclose(again.affine, case.affine)


def test_a_case_says_what_it_shows(phantom):
    case = phantom.sample(someone("female", "71-80", "asian", "left_kidney", t=3, n=1, m=0, size="large"), 8)
    assert case.synthetic
    assert case.provenance["seed"] == 8
    expected = dict(sex="female", age="71-80", race="asian", sites=["left_kidney"], t=3, n=1, m=0, size="large")
    assert case.attributes == expected
    assert all(word in case.prompt.lower() for word in ("asian", "female", "kidney"))


def test_text_is_read_and_what_it_leaves_open_is_drawn_by_the_seed(phantom):
    cases = [phantom.sample("An asian woman with a tumor of the left kidney.", seed) for seed in range(8)]
    assert {(c.attributes["sex"], c.attributes["race"], *c.attributes["sites"]) for c in cases} == {
        ("female", "asian", "left_kidney")
    }
    assert len({c.attributes["age"] for c in cases}) > 2
    assert len({c.attributes["t"] for c in cases}) > 2
    drawn = [phantom.sample(None, seed).attributes for seed in range(8)]
    assert len({a["sites"][0] for a in drawn}) > 4
    assert all(len(a["sites"]) == 1 and a["sites"][0] in SITES for a in drawn)


# ----------------------------------------------------------------------------------------------------------- grids


@pytest.mark.parametrize(
    ("size", "spacing"),
    [((16, 12, 24), 24), ((40, 30, 20), 5), ((32, 32, 32), 9), ((4, 4, 4), 6), ((4, 4, 4), 50), ((5, 4, 90), 4)],
)
def test_any_grid_shows_what_fits_it(size, spacing):
    for i, site in enumerate(SITES):
        stage = {} if site == "none" else dict(t=i % 5, n=3, m=1)
        case = TorsoPhantom(size, spacing).sample(someone(site=site, **stage), i)
        assert case.labels.shape == case.ct.shape == size
        np.testing.assert_allclose(case.grid.spacing, spacing)


@settings(max_examples=30)
@given(size=st.tuples(*[st.integers(4, 30)] * 3), spacing=st.floats(3, 50), seed=st.integers(0, 2**63 - 1))
@example(size=(4, 4, 4), spacing=50.0, seed=0)
@example(size=(4, 4, 4), spacing=50.0, seed=2**63 - 1)
def test_any_grid_and_seed_gives_a_case(size, spacing, seed):
    case = TorsoPhantom(size, spacing).sample(someone(site=SITES[seed % 11], m=1), seed)
    assert case.labels.shape == size
    assert case.provenance["seed"] == seed


@given(spacing=st.floats(0.5, 50))
def test_the_torso_s_own_grid_spans_it_at_any_spacing(spacing):
    size = torso_size(spacing)
    extent = np.array(size) * spacing
    assert (np.abs(extent - (384, 288, 576)) <= np.maximum(spacing / 2, 4 * spacing - 288)).all()
    assert TorsoPhantom(size, spacing).sample_size == size


def test_the_torso_s_own_grid_is_that_of_the_configurations():
    assert torso_size(6) == (64, 48, 96)
    assert torso_size(3) == (128, 96, 192)


@pytest.mark.parametrize("size", [(64, 48), (64, 48, 96, 1), (0, 48, 96), (64, -48, 96), (64, 3, 96), (6.5, 8, 8)])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match=r"sample_size: got .* expected three whole numbers"):
        TorsoPhantom(size, 6.0)


@pytest.mark.parametrize("spacing", [0, -6.0, 0.1, 100, float("nan"), float("inf")])
def test_a_spacing_that_is_none_is_refused(spacing):
    with pytest.raises(ValueError, match=r"spacing: got .* expected 0.5 to 50 mm"):
        TorsoPhantom((8, 8, 8), spacing)
    with pytest.raises(ValueError, match=r"spacing: got .* expected 0.5 to 50 mm"):
        torso_size(spacing)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 1.0, True, np.True_, "1", None])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(ValueError, match=r"seed: got .* expected a whole number from 0 to 2\*\*63 - 1"):
        TorsoPhantom((8, 8, 8), 12.0).sample(someone(), seed)


# --------------------------------------------------------------------------------------------------------- 300 cases


@pytest.mark.slow
def test_every_structure_is_there_in_300_cases(phantom):
    expected = {c.id for c in CLASSES} - {TUMOR}
    missing = {}
    for seed in SEEDS["validation"][:300]:
        if lost := expected - set(np.unique(phantom.sample(None, seed).labels).tolist()):
            missing[seed] = sorted(ORGANS[i - 1] for i in lost)
    assert not missing
