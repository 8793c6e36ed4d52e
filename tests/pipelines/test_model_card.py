"""The card is written from the pipeline itself."""

from huggingface_hub import ModelCard

from guidegen_diffusers import GuideGenPipeline
from guidegen_diffusers.pipelines.model_card import guidegen_model_card


def test_the_card_describes_this_pipeline(tiny):
    card = ModelCard(guidegen_model_card(tiny, "someone/torso"))
    assert card.data.library_name == "guidegen_diffusers"
    assert "synthetic" in card.data.tags
    assert card.data.license is None  # the weights are not ours to license
    for fact in ("# torso", "someone/torso", "16 x 12 x 24 voxels of 24 mm", "20 tumor", "0.13 M parameters"):
        assert fact in card.text


def test_the_card_tells_of_the_training_where_it_is_known(tiny):
    assert "for whoever trained them" in guidegen_model_card(tiny, "x")
    card = guidegen_model_card(tiny, "x", "## Training\n\nOn phantoms.")
    assert "On phantoms." in card
    assert "for whoever trained them" not in card


def test_a_pipeline_without_a_mask_network_has_a_card_too(tiny):
    tiny.mask_unet = tiny.mask_scheduler = None
    assert "voxels of 24 mm" in guidegen_model_card(tiny, "x")


def test_a_card_in_the_folder_stays(tiny, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    tiny.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    GuideGenPipeline.from_pretrained(tmp_path).save_pretrained(tmp_path / "other")
    assert "guidegen_diffusers" in (tmp_path / "other" / "README.md").read_text()
