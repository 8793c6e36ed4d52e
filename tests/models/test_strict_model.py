"""Loading is complete and safe, or fails: no missing key, no surplus key, no pickle is ever opened."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from guidegen_diffusers import (
    CategoricalUNet3DConditionModel,
    LatentUNet3DConditionModel,
    SemanticEncoder3D,
    VQModel3D,
)
from guidegen_diffusers.models.strict_model import StrictModelMixin, refuse_pickles


WEIGHTS = "diffusion_pytorch_model.safetensors"
PICKLE = "diffusion_pytorch_model.bin"


def encoder():
    torch.manual_seed(0)
    return SemanticEncoder3D(block_out_channels=(8,), latent_channels=2, attention_head_dim=8)


def saved(folder):
    encoder().save_pretrained(folder)
    return folder


class BoobyTrap:
    """Touches a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def only_a_pickle(folder, name=PICKLE):
    """A saved model whose weights are a booby trap, and the file that would appear if it went off."""
    (saved(folder) / WEIGHTS).unlink()
    mark = folder / "opened"
    with open(folder / name, "wb") as file:
        pickle.dump(BoobyTrap(mark), file)
    return mark


def test_every_network_loads_strictly():
    for network in (CategoricalUNet3DConditionModel, LatentUNet3DConditionModel, SemanticEncoder3D, VQModel3D):
        assert issubclass(network, StrictModelMixin)


@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
def test_a_missing_key_is_an_error_that_names_it(tmp_path, low_cpu_mem_usage):
    weights = load_file(saved(tmp_path) / WEIGHTS)
    del weights["fusions.0.norm.weight"]
    save_file(weights, tmp_path / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 parameter.*'fusions\.0\.norm\.weight'"):
        SemanticEncoder3D.from_pretrained(tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)


@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
def test_a_surplus_key_is_an_error_that_names_it(tmp_path, low_cpu_mem_usage):
    weights = load_file(saved(tmp_path) / WEIGHTS)
    save_file({**weights, "fusions.7.norm.weight": torch.zeros(8)}, tmp_path / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"has unknown 1 parameter.*'fusions\.7\.norm\.weight'"):
        SemanticEncoder3D.from_pretrained(tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)


def test_a_missing_buffer_is_an_error(tmp_path):
    VQModel3D(block_out_channels=(8, 8), latent_channels=2, num_codes=4).save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    del weights["quantizer.usage"]
    save_file(weights, tmp_path / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"'quantizer\.usage'"):
        VQModel3D.from_pretrained(tmp_path)


def test_a_tensor_of_another_shape_is_an_error(tmp_path):
    weights = load_file(saved(tmp_path) / WEIGHTS)
    weights["organ_out.bias"] = torch.zeros(3)
    save_file(weights, tmp_path / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises((ValueError, RuntimeError), match=r"organ_out\.bias"):
        SemanticEncoder3D.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", [PICKLE, "diffusion_pytorch_model.fp16.bin", "model.pt", "model.ckpt"])
@pytest.mark.parametrize("use_safetensors", [None, True])
def test_a_pickle_is_refused_and_not_opened(tmp_path, name, use_safetensors):
    mark = only_a_pickle(tmp_path, name)
    with pytest.raises(OSError, match=rf"{name}.*safetensors"):
        SemanticEncoder3D.from_pretrained(tmp_path, use_safetensors=use_safetensors)
    assert not mark.exists()
    with open(tmp_path / name, "rb") as file:
        pickle.load(file)
    assert mark.exists(), "the trap works, so that the assertion above can fail"


def test_a_pickle_beside_foreign_safetensors_is_refused_and_not_opened(tmp_path):
    mark = only_a_pickle(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(OSError, match="safetensors"):
        SemanticEncoder3D.from_pretrained(tmp_path)
    assert not mark.exists()


def test_a_pickle_in_a_subfolder_is_refused_and_not_opened(tmp_path):
    mark = only_a_pickle(tmp_path / "semantic_encoder")
    with pytest.raises(OSError, match=r"semantic_encoder.*safetensors"):
        SemanticEncoder3D.from_pretrained(tmp_path, subfolder="semantic_encoder")
    assert not mark.exists()


def test_a_pickle_beside_its_safetensors_is_left_alone(tmp_path):
    mark = only_a_pickle(tmp_path)
    assert isinstance(SemanticEncoder3D.from_pretrained(saved(tmp_path)), SemanticEncoder3D)
    assert not mark.exists()


def test_asking_for_pickles_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="use_safetensors: got False"):
        SemanticEncoder3D.from_pretrained(saved(tmp_path), use_safetensors=False)


def test_loading_info_comes_on_request(tmp_path):
    model, info = SemanticEncoder3D.from_pretrained(saved(tmp_path), output_loading_info=True)
    assert isinstance(model, SemanticEncoder3D)
    assert info["missing_keys"] == info["unexpected_keys"] == []
    assert isinstance(SemanticEncoder3D.from_pretrained(tmp_path), SemanticEncoder3D)


@pytest.mark.parametrize("as_text", [False, True])
def test_a_subfolder_holds_a_model(tmp_path, as_text):
    saved(tmp_path / "semantic_encoder")
    folder = str(tmp_path) if as_text else tmp_path
    loaded = SemanticEncoder3D.from_pretrained(folder, subfolder="semantic_encoder")
    expected = encoder().state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert not any(parameter.is_meta for parameter in loaded.parameters())


def test_files_that_are_no_weights_do_not_matter(tmp_path):
    for name in ("optimizer.bin", "training_args.bin", "scheduler.pt"):
        (tmp_path / name).write_bytes(b"")
    refuse_pickles(tmp_path, None)
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(OSError, match=r"model\.bin"):
        refuse_pickles(tmp_path, None)
