"""Pipelines go to the Hub and come back, each way in a fresh process, through a Hub that lives on this machine.

This guards `_registration`, which leans on private tables of diffusers: a pipeline that loads from a folder may still
fail to load from a Hub id.
"""

import json
import os
import pickle
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard

from .loopback_hub import LoopbackHub


MAKE = """
import torch
from diffusers import DDIMScheduler
from guidegen_diffusers import GuideGenPipeline, LatentSpread
def make():
    torch.manual_seed(0)
    spread = LatentSpread(num_components=2)
    torch.nn.init.normal_(spread.components)
    pipe = GuideGenPipeline.from_config("tiny", latent_spread=spread)
    pipe.register_modules(scheduler=DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction"))
    return pipe
"""

PUSH = f"""
import sys
{MAKE}
pipe = make()
pipe.push_to_hub("someone/torso")
pipe.save_pretrained(sys.argv[1] + "/torso-b", push_to_hub=True, repo_id="someone/torso-b", max_shard_size="200KB")
pipe.vae.push_to_hub("someone/vae")
pipe.mask_scheduler.push_to_hub("someone/scheduler")
"""

PULL = (
    MAKE
    + """
import hashlib, json
import guidegen_diffusers
from diffusers import DiffusionPipeline
from guidegen_diffusers import CategoricalDDPMScheduler, GuideGenPipeline, VQModel3D

def draw(pipe):
    seed = torch.Generator().manual_seed(0)
    out = pipe("A patient.", num_inference_steps=2, mask_num_inference_steps=3, generator=seed)
    return hashlib.sha256(out.ct.tobytes() + out.labels.tobytes()).hexdigest()

report = {"drawn": [], "classes": []}
for loader, name in (
    (GuideGenPipeline, "someone/torso"), (DiffusionPipeline, "someone/torso"), (DiffusionPipeline, "someone/torso-b"),
):
    pipe = loader.from_pretrained(name, use_safetensors=True)
    report["drawn"].append(draw(pipe))
    report["classes"].append(type(pipe).__name__)
    ours = (pipe.unet, pipe.vae, pipe.mask_scheduler, pipe.latent_spread)
    assert {type(part).__module__.split(".")[0] for part in ours} == {"guidegen_diffusers"}
case = pipe("A patient.", output="mask", mask_num_inference_steps=1).cases[0]
report["model"] = case.provenance["model"]
pipe.push_to_hub("someone/by-diffusion-pipeline")
report["vae"] = VQModel3D.from_pretrained("someone/vae").config.num_codes
report["scheduler"] = CategoricalDDPMScheduler.from_pretrained("someone/scheduler").config.num_classes
report["drawn"].append(draw(make()))
print("REPORT" + json.dumps(report))
"""
)

REFUSE = """
from guidegen_diffusers import GuideGenPipeline
try:
    GuideGenPipeline.from_pretrained("someone/pickled")
except Exception as error:
    print("REFUSED", type(error).__name__, error)
"""


def run(script, hub, home, *arguments):
    """A fresh interpreter that knows only this Hub, with a cache of its own."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], env=hub.environment(home), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with LoopbackHub() as hub:
        run(PUSH, hub, tmp_path_factory.mktemp("push"), tmp_path_factory.mktemp("saved"))
        yield hub


@pytest.fixture(scope="module")
def pulled(hub, tmp_path_factory):
    return json.loads(run(PULL, hub, tmp_path_factory.mktemp("pull")).split("REPORT")[1])


def test_a_pushed_pipeline_comes_back_the_same_by_either_class(pulled):
    assert pulled["classes"] == ["GuideGenPipeline"] * 3
    assert len(pulled["drawn"]) == 4
    assert len(set(pulled["drawn"])) == 1  # the last one never was on the Hub


def test_cases_name_the_hub_id_that_drew_them(pulled):
    assert pulled["model"] == "someone/torso-b"


def test_components_go_to_the_hub_alone(pulled):
    assert (pulled["vae"], pulled["scheduler"]) == (32, 21)


def test_components_are_named_by_the_package_and_not_by_a_module_path(hub):
    index = json.loads(hub.files("someone/torso")["model_index.json"])
    assert index["mask_unet"] == ["guidegen_diffusers", "CategoricalUNet3DConditionModel"]
    assert index["vae"] == ["guidegen_diffusers", "VQModel3D"]
    assert index["sample_size"] == [16, 12, 24]
    assert {entry[0] for name, entry in index.items() if isinstance(entry, list) and name != "sample_size"} == {
        "guidegen_diffusers",
        "diffusers",
        "transformers",
    }


def test_only_safetensors_reach_the_hub(hub):
    for name in ("someone/torso", "someone/torso-b", "someone/vae"):
        files = hub.files(name)
        assert any(f.endswith(".safetensors") for f in files)
        assert not [f for f in files if f.endswith((".bin", ".pt", ".ckpt"))]


@pytest.mark.usefixtures("pulled")
@pytest.mark.parametrize("name", ["someone/torso", "someone/torso-b", "someone/by-diffusion-pipeline"])
def test_the_card_on_the_hub_is_ours_and_says_how_to_load(hub, name):
    card = ModelCard(hub.files(name)["README.md"].decode())
    assert card.data.library_name == "guidegen_diffusers"
    assert "import guidegen_diffusers" in card.text
    assert f'from_pretrained("{name}"' in card.text
    assert "16 x 12 x 24 voxels of 24 mm" in card.text


def test_what_is_saved_is_what_is_pushed(hub):
    """Shards included: the upload is the folder, not another save of the pipeline."""
    shards = [f for f in hub.files("someone/torso-b") if f.startswith("mask_unet/") and "-of-" in f]
    assert len(shards) > 1


def test_a_card_that_someone_wrote_stays(hub, tmp_path):
    script = """
import torch
from huggingface_hub import create_repo, upload_file
from guidegen_diffusers import GuideGenPipeline
create_repo("someone/written")
upload_file(path_or_fileobj=b"---\\nlicense: mit\\n---\\nMine.", path_in_repo="README.md", repo_id="someone/written")
GuideGenPipeline.from_config("tiny").push_to_hub("someone/written")
"""
    run(script, hub, tmp_path)
    assert "Mine." in hub.files("someone/written")["README.md"].decode()
    assert "model_index.json" in hub.files("someone/written")


def test_a_pickle_on_the_hub_is_refused_unopened(hub, tmp_path):
    script = """
import sys
from huggingface_hub import create_repo, upload_folder
create_repo("someone/pickled")
upload_folder(folder_path=sys.argv[1], repo_id="someone/pickled")
"""
    opened = tmp_path / "opened"

    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(opened),))

    folder = tmp_path / "pipeline"
    for path, content in hub.files("someone/torso").items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.parent.name == "unet" and target.suffix == ".safetensors":
            target, content = target.with_suffix(".bin"), pickle.dumps(Trap())
        target.write_bytes(content)
    run(script, hub, tmp_path / "push", folder)
    said = run(REFUSE, hub, tmp_path / "pull")
    assert "REFUSED" in said
    assert "safetensors" in said
    assert not opened.exists()


@pytest.mark.usefixtures("pulled")
def test_what_was_pulled_loads_again_without_the_hub(hub, tmp_path):
    load = 'from guidegen_diffusers import GuideGenPipeline; GuideGenPipeline.from_pretrained("someone/torso")'
    run(load, hub, tmp_path)
    offline = {**hub.environment(tmp_path), "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", load], env=offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
