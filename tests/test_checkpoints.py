"""Bundled pipelines are found by name, load whole, and stay within what a repository bears."""

import json

import pytest
from safetensors import safe_open

from guidegen_diffusers import GuideGenPipeline, available_checkpoints, bundled_checkpoint


def test_an_unknown_name_is_named():
    with pytest.raises(ValueError, match="got 'torso-7mm'"):
        bundled_checkpoint("torso-7mm")


def test_all_bundles_together_are_at_most_40_mb():
    files = [f for name in available_checkpoints() for f in bundled_checkpoint(name).rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 40_000_000


@pytest.mark.parametrize("name", available_checkpoints())
def test_a_bundle_is_half_precision_with_a_card_and_the_record_of_its_training(name):
    folder = bundled_checkpoint(name)
    for file in folder.rglob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            whole = [key for key in tensors.keys() if tensors.get_slice(key).get_dtype() == "F32"]  # noqa: SIM118
        assert all(key.startswith("quantizer.") for key in whole), file
    assert (folder / "README.md").is_file()
    for stage in ("tcss", "cae", "lfg"):
        record = json.loads((folder / f"training_{stage}.json").read_text())
        assert record["step"] > 0
        assert record["seconds"] > 0
        assert "seed" in record["arguments"]


@pytest.mark.parametrize("name", available_checkpoints())
def test_a_bundle_loads_whole(name):
    pipe = GuideGenPipeline.from_pretrained(bundled_checkpoint(name))
    assert all(part is not None for part in pipe.components.values())
