"""A sentence becomes a pair, in every way that diffusers calls, saves, loads and moves a pipeline."""

import inspect

import nibabel as nib
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, EulerDiscreteScheduler
from diffusers.callbacks import PipelineCallback

from guidegen_diffusers import Case, ClinicalPrompt, Grid, GuideGenPipeline, LatentSpread, TorsoPhantom, load_config
from guidegen_diffusers.labels import TUMOR, split_tumor
from guidegen_diffusers.models.latent_spread import class_means, class_shares
from guidegen_diffusers.pipelines import pipeline_guidegen
from guidegen_diffusers.pipelines.pipeline_guidegen import _move_original, _original


# canonical and complete, so that nothing is left to draw
SENTENCE = (
    "The patient is a white male, 61-70 years old. In this CT scan, the patient's condition is described as a large "
    "lung cancer in the left upper lobe, with a TNM staging of T3N1M0."
)
FEW = dict(num_inference_steps=3, mask_num_inference_steps=4)


@pytest.fixture
def drawing(tiny) -> GuideGenPipeline:
    """One whose first CT step draws: every component there is."""
    spread = LatentSpread(num_components=3, latent_channels=tiny.vae.config.latent_channels)
    torch.nn.init.normal_(spread.components, generator=seeded(7))
    scheduler = DDIMScheduler.from_config(tiny.scheduler.config, prediction_type="v_prediction")
    tiny.register_modules(latent_spread=spread, scheduler=scheduler)
    return tiny


def seeded(*seeds):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return generators if len(generators) > 1 else generators[0]


def assert_same(a, b):
    assert np.array_equal(a.labels, b.labels)
    assert np.array_equal(a.ct, b.ct)


def almost_same(a, b):
    """Equal label maps, and CT within 2 HU: sums in a batch run in another order than alone."""
    return np.array_equal(a[0], b[0]) and np.abs(a[1].astype(int) - b[1]).max() <= 2


# -------------------- what comes out


def test_a_sentence_becomes_a_pair_on_one_affine(tiny, tmp_path):
    result = tiny(SENTENCE, generator=seeded(0), **FEW)
    assert result.ct.shape == result.labels.shape == (1, 16, 12, 24)
    assert (result.ct.dtype, result.labels.dtype) == (np.int16, np.uint8)
    assert np.abs(result.ct).max() <= 1500
    assert result.labels.max() <= TUMOR
    case = result.cases[0]
    assert np.array_equal(case.ct, result.ct[0])
    assert np.array_equal(case.labels, result.labels[0])
    np.testing.assert_allclose(np.diag(case.affine)[:3], 24.0)
    np.testing.assert_allclose(case.grid.center, 0, atol=1e-9)
    again = Case.load(case.save(tmp_path / "case"))
    assert again.prompt == SENTENCE
    assert again.synthetic


def test_the_record_says_how_to_draw_the_case_again(tiny):
    torch.manual_seed(3)
    cases = tiny([SENTENCE, "Another."], negative_prompt="nothing", **FEW).cases
    assert cases[0].provenance["seed"] != cases[1].provenance["seed"]
    again = tiny(
        cases[1].prompt,
        generator=seeded(cases[1].provenance["seed"]),
        negative_prompt=cases[1].provenance["negative_prompt"],
        **{key: cases[1].provenance[key] for key in ("guidance_scale", "mask_guidance_scale", *FEW)},
    ).cases[0]
    assert almost_same((again.labels, again.ct), (cases[1].labels, cases[1].ct))
    assert cases[1].provenance["versions"]["torch"] == torch.__version__
    assert cases[1].provenance["synthetic"] is True


def test_steps_and_guidance_come_from_the_call_then_from_the_config_then_from_the_paper(tiny, tmp_path):
    suited = {"num_inference_steps": 3, "mask_num_inference_steps": 2, "mask_guidance_scale": 1.5}
    GuideGenPipeline(**tiny.components, spacing=24.0, sampling=suited).save_pretrained(tmp_path / "model")
    pipe = GuideGenPipeline.from_pretrained(tmp_path / "model")
    pipe.set_progress_bar_config(disable=True)
    made = pipe("a", num_inference_steps=4).cases[0].provenance
    expected = suited | {"num_inference_steps": 4, "guidance_scale": 2.5}
    assert {name: made[name] for name in expected} == expected
    with pytest.raises(ValueError, match=r"sampling: got \['eta'\], expected of num_inference_steps"):
        GuideGenPipeline(sampling={"eta": 0.0})


def test_a_generator_that_was_used_before_is_no_seed(tiny):
    generator = seeded(4)
    first, second = (tiny(SENTENCE, output="mask", generator=generator, mask_num_inference_steps=1) for _ in range(2))
    assert first.cases[0].provenance["seed"] == 4
    assert second.cases[0].provenance["seed"] is None
    one = tiny(["a", "b"], output="mask", generator=seeded(4), negative_prompt=["x", "y"], mask_num_inference_steps=1)
    assert [(c.provenance["seed"], c.provenance["index"]) for c in one.cases] == [(4, 0), (4, 1)]
    assert [c.provenance["negative_prompt"] for c in one.cases] == ["x", "y"]


def test_the_record_names_an_untrained_pipeline(tiny):
    assert tiny(SENTENCE, output="mask", mask_num_inference_steps=1).cases[0].provenance["model"] == "tiny (untrained)"


@pytest.mark.parametrize("stage", ["mask_unet", "unet", "vae"])
def test_a_network_that_gives_nan_is_named_and_makes_no_case(tiny, stage):
    last = {"mask_unet": "conv_out.bias", "unet": "conv_out.bias", "vae": "decoder.0.bias"}[stage]
    getattr(tiny, stage).get_parameter(last).data.fill_(float("nan"))
    with pytest.raises(ValueError, match=f"{stage} gave NaN"):
        tiny(SENTENCE, **FEW)


@pytest.mark.parametrize("steps", [10, 50, 200])
def test_the_ct_stage_keeps_the_scale_of_latents_when_noise_is_predicted_roughly(tiny, steps):
    """The best denoiser of unit-variance latents, rounded to bf16: their variance stays one at any number of steps."""
    scheduler = tiny.scheduler
    scheduler.set_timesteps(steps)
    z = torch.randn(100_000, generator=seeded(0))
    for t in scheduler.timesteps:
        noise = (1 - scheduler.alphas_cumprod[t]) ** 0.5 * z
        z = scheduler.step(noise.bfloat16().float(), t, z).prev_sample
    assert z.std().item() == pytest.approx(1, abs=0.12)


def test_torch_manual_seed_makes_runs_repeat(tiny):
    torch.manual_seed(5)
    first = tiny(SENTENCE, **FEW)
    other = tiny(SENTENCE, **FEW)
    torch.manual_seed(5)
    assert_same(tiny(SENTENCE, **FEW), first)
    assert not np.array_equal(other.labels, first.labels)


def test_a_dict_is_a_tuple_is_a_tensor(tiny):
    result = tiny(SENTENCE, generator=seeded(0), **FEW)
    ct, labels, cases, prompts = tiny(SENTENCE, generator=seeded(0), return_dict=False, **FEW)
    assert prompts == result.prompts == [SENTENCE]
    assert np.array_equal(ct, result.ct)
    assert np.array_equal(labels, result.labels)
    assert np.array_equal(cases[0].ct, result.ct[0])
    tensors = tiny(SENTENCE, generator=seeded(0), output_type="pt", **FEW)
    assert torch.equal(tensors.ct, torch.from_numpy(result.ct))
    assert torch.equal(tensors.labels, torch.from_numpy(result.labels))


def test_latents_decode_to_the_ct(tiny):
    result = tiny(SENTENCE, generator=seeded(0), **FEW)
    latents = tiny(SENTENCE, generator=seeded(0), output_type="latent", **FEW)
    assert latents.cases is None
    assert latents.ct.shape == (1, 4, 8, 6, 12)
    assert np.array_equal(tiny.decode_latents(latents.ct).numpy(), result.ct)


def test_the_stored_scale_brings_latents_back(tiny):
    latents = torch.randn(1, 4, 8, 6, 12)
    plain = tiny.decode_latents(latents)
    tiny.vae.register_to_config(scaling_factor=4.0)
    assert torch.equal(tiny.decode_latents(4 * latents), plain)
    assert not torch.equal(tiny.decode_latents(latents), plain)


def test_a_batch_item_is_the_same_alone_under_its_own_generator(tiny):
    prompts = [SENTENCE, "short", ""]
    together = tiny(prompts, generator=seeded(1, 2, 3), **FEW)
    for i, prompt in enumerate(prompts):
        alone = tiny(prompt, generator=seeded(i + 1), **FEW)
        assert almost_same((alone.labels[0], alone.ct[0]), (together.labels[i], together.ct[i]))


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("t", [999, 700])
def test_a_move_is_of_x_0_whatever_the_network_predicts(kind, t):
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    scheduler.set_timesteps(10)
    output, sample, move = (torch.randn((1, 2, 4, 4, 4), dtype=torch.float64, generator=seeded(i)) for i in range(3))
    moved = _move_original(output, move, scheduler, torch.tensor(t))
    before, after = (scheduler.step(x, t, sample).pred_original_sample for x in (output, moved))
    assert torch.allclose(after - before, move, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_x_0_is_read_off_whatever_the_network_predicts(kind):
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    scheduler.set_timesteps(10)
    output, sample = (torch.randn((1, 2, 4, 4, 4), dtype=torch.float64, generator=seeded(i)) for i in range(2))
    expected = scheduler.step(output, 700, sample).pred_original_sample
    assert torch.allclose(_original(output, sample, scheduler, torch.tensor(700)), expected, atol=1e-5)


def test_the_first_ct_step_moves_x_0_by_a_draw_and_the_next_keep_its_class_means_until_z_t_shows_it(
    drawing, monkeypatch
):
    said, taken, originals, moves, kept_at = [], [], [], [], []
    unet, spread, scheduler = drawing.unet.forward, drawing.latent_spread.forward, drawing.scheduler
    step = scheduler.step

    def watched(output, t, sample, **settings):
        taken.append(output)
        originals.append(_original(output, sample, scheduler, t))
        return step(output, t, sample, **settings)

    monkeypatch.setattr(drawing.unet, "forward", lambda *a, **k: said.append(unet(*a, **k)[0]) or (said[-1],))
    monkeypatch.setattr(scheduler, "step", watched)
    monkeypatch.setattr(drawing.latent_spread, "forward", lambda *a: moves.append(spread(*a)) or moves[-1])
    keep = pipeline_guidegen.move_to_means
    monkeypatch.setattr(pipeline_guidegen, "move_to_means", lambda *a: kept_at.append(len(originals)) or keep(*a))
    settings = dict(num_inference_steps=10, mask_num_inference_steps=2, guidance_scale=1.0, output_type="latent")
    made = drawing(SENTENCE, generator=seeded(0), **settings)
    assert len(moves) == 1
    assert moves[0].std() > 0.1
    hidden = [i for i, t in enumerate(scheduler.timesteps) if scheduler.alphas_cumprod[t] < 0.25]
    assert 2 < len(hidden) < 10
    assert [0, *kept_at] == hidden
    assert torch.allclose(taken[0], _move_original(said[0], moves[0], scheduler, scheduler.timesteps[0]))
    for i, (a, b) in enumerate(zip(taken, said, strict=True)):
        assert torch.equal(a, b) == (i not in hidden), i
    shares = class_shares(torch.as_tensor(made.labels), originals[0].shape[2:])
    kept, *later = (class_means(original, shares) for original in originals)
    drawing.register_modules(latent_spread=None)
    originals.clear()
    drawing(SENTENCE, generator=seeded(0), **settings)
    plain, *drifted = (class_means(original, shares) for original in originals)
    assert (plain - kept).nan_to_num().abs().max() > 0.1
    for held, drift in [*zip(later, drifted, strict=True)][: len(kept_at)]:
        away = (drift - plain).nan_to_num().abs().mean()
        assert (held - kept).nan_to_num().abs().mean() < 0.25 * away


def test_a_spread_is_refused_where_noise_alone_says_no_x_0(drawing):
    epsilon = DDIMScheduler.from_config(drawing.scheduler.config, prediction_type="epsilon")
    drawing.register_modules(scheduler=epsilon)
    with pytest.raises(ValueError, match="latent_spread: got it with .* 'epsilon', expected 'v_prediction' or"):
        drawing(SENTENCE, generator=seeded(0), **FEW)
    assert drawing(SENTENCE, output="mask", generator=seeded(0), **FEW).ct is None


def test_a_spread_of_nothing_draws_nothing(drawing):
    drawing.latent_spread.components.zero_()
    settings = FEW | {"num_inference_steps": 1}
    made = drawing(SENTENCE, generator=seeded(0), **settings)
    drawing.register_modules(latent_spread=None)
    assert_same(drawing(SENTENCE, generator=seeded(0), **settings), made)


def test_what_the_first_ct_step_draws_is_saved_and_goes_with_the_volumes_generator(drawing, tmp_path):
    drawing.save_pretrained(tmp_path)
    again = GuideGenPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    both = drawing([SENTENCE] * 2, generator=list(seeded(3, 4)), **FEW)
    alone = again(SENTENCE, generator=seeded(4), **FEW)
    assert almost_same((both.labels[1], both.ct[1]), (alone.labels[0], alone.ct[0]))
    assert not np.array_equal(both.ct[0], both.ct[1])


def test_volumes_of_one_prompt_are_the_prompt_repeated(tiny):
    several = tiny(["a", "b"], num_volumes_per_prompt=2, generator=seeded(1, 2, 3, 4), **FEW)
    repeated = tiny(["a", "a", "b", "b"], generator=seeded(1, 2, 3, 4), **FEW)
    assert_same(several, repeated)
    assert [case.provenance["text"] for case in several.cases] == ["a", "a", "b", "b"]


# -------------------- reading the text


def test_what_the_text_leaves_open_is_drawn_returned_and_saved(tiny, tmp_path):
    result = tiny("a woman with cancer of the left kidney", generator=seeded(4), **FEW)
    read = ClinicalPrompt.parse(result.prompts[0])
    assert (read.sex, read.sites) == ("female", {"left_kidney"})
    assert None not in read.as_dict().values()
    case = Case.load(result.cases[0].save(tmp_path / "case"))
    assert case.prompt == result.prompts[0] == read.render()
    assert case.attributes == read.as_dict()
    assert case.provenance["text"] == "a woman with cancer of the left kidney"


def test_the_sentence_as_resolved_draws_the_case_again(tiny):
    first = tiny("lung cancer", generator=seeded(4), **FEW)
    assert_same(tiny(first.prompts[0], generator=seeded(4), **FEW), first)


def test_each_volume_draws_what_is_open_anew(tiny):
    few = dict(output="mask", mask_num_inference_steps=1)
    shared = tiny("a tumour", num_volumes_per_prompt=8, generator=seeded(0), **few)
    assert len(set(shared.prompts)) > 4
    own = tiny("a tumour", num_volumes_per_prompt=2, generator=seeded(1, 2), **few)
    assert own.prompts[1] == tiny("a tumour", generator=seeded(2), **few).prompts[0]


def test_raw_prompts_are_sent_as_they_are(tiny):
    result = tiny("free text", raw_prompt=True, output="mask", mask_num_inference_steps=1)
    assert result.prompts == ["free text"]
    assert result.cases[0].attributes == {}


def test_a_mask_decides_on_the_site_that_the_text_leaves_open(tiny):
    case = TorsoPhantom((16, 12, 24), 24.0).sample("T4 tumour of the right kidney", 3)
    result = tiny("a tumour", mask=case, num_inference_steps=1)
    assert ClinicalPrompt.parse(result.prompts[0]).sites == {"right_kidney"}


def test_a_text_that_contradicts_the_mask_is_named(tiny, caplog):
    case = TorsoPhantom((16, 12, 24), 24.0).sample("no tumour", 3)
    tiny("lung cancer", mask=case, num_inference_steps=1)
    assert "not what the prompt says" in caplog.text


def test_the_sentence_reaches_both_stages(tiny):
    a, b = (tiny(prompt, generator=seeded(0), **FEW) for prompt in (SENTENCE, "A female with colon cancer."))
    assert not np.array_equal(a.labels, b.labels)
    case = a.cases[0]
    a, b = (tiny(p, mask=case, generator=seeded(0), num_inference_steps=3) for p in (SENTENCE, "A female."))
    assert np.array_equal(a.labels, b.labels)
    assert not np.array_equal(a.ct, b.ct)


def test_padding_does_not_change_the_result(tiny):
    tiny.register_to_config(max_sequence_length=200)
    wide = tiny("short", raw_prompt=True, generator=seeded(0), **FEW)
    tiny.register_to_config(max_sequence_length=10)
    narrow = tiny("short", raw_prompt=True, generator=seeded(0), **FEW)
    assert almost_same((wide.labels[0], wide.ct[0]), (narrow.labels[0], narrow.ct[0]))


def test_a_prompt_that_is_cut_is_reported(tiny, caplog):
    tiny("x " * 300, raw_prompt=True, output="mask", mask_num_inference_steps=1)
    assert "was cut to max_sequence_length 256" in caplog.text


# -------------------- the mask and Eq. 13


def test_a_mask_alone_needs_no_ct_components(tiny):
    full = tiny(SENTENCE, generator=seeded(0), **FEW)
    parts = {name: getattr(tiny, name) for name in ("tokenizer", "text_encoder", "mask_unet", "mask_scheduler")}
    stage_one = GuideGenPipeline(**parts, spacing=24.0, max_sequence_length=256)
    result = stage_one(SENTENCE, output="mask", generator=seeded(0), mask_num_inference_steps=4)
    assert np.array_equal(result.labels, full.labels)
    assert result.ct is None
    assert result.cases[0].ct is None
    with pytest.raises(ValueError, match="needs vae, semantic_encoder, unet, scheduler"):
        stage_one(SENTENCE)


def test_eq_13_reads_the_organ_under_the_tumor_off_the_probabilities(tiny):
    """A network that is sure of the tumour over liver: the label map says tumour, the organ map says liver."""

    def certain(sample, *_, **__):
        logits = torch.zeros(len(sample), 21, *sample.shape[1:])
        logits[:, 3] = 50.0
        logits[:, TUMOR, :8] = 100.0
        return (logits,)

    seen = {}
    forward = tiny.semantic_encoder.forward
    tiny.semantic_encoder.forward = lambda o, t, **kw: seen.update(organs=o, tumor=t) or forward(o, t, **kw)
    tiny.mask_unet.forward = certain
    result = tiny(SENTENCE, **FEW)
    assert (result.labels[:, :8] == TUMOR).all()
    assert (result.labels[:, 8:] == 3).all()
    assert (seen["organs"] == 3).all()
    assert torch.equal(seen["tumor"], torch.from_numpy((result.labels == TUMOR).astype(np.uint8)))


def test_a_generated_label_map_given_back_is_painted_as_it_is(tiny, tmp_path):
    case = tiny(SENTENCE, generator=seeded(0), **FEW).cases[0]
    folder = case.save(tmp_path / "case")
    for mask in (case, folder, folder / "labels.nii.gz", nib.load(folder / "labels.nii.gz")):
        result = tiny(SENTENCE, mask=mask, generator=seeded(1), num_inference_steps=3)
        assert np.array_equal(result.labels[0], case.labels)
        np.testing.assert_allclose(result.cases[0].affine, case.affine, atol=1e-4)
        assert result.cases[0].provenance["mask"] == "given"


def test_a_mask_on_its_own_affine_stays_where_it_was(tiny, label_map):
    """12 x 10 x 14 voxels of 20 mm, flipped and shifted: the organ's centre of mass is the same point in mm."""
    solid = np.zeros_like(label_map)
    solid[2:10, 3:8, 4:12] = 3
    solid[2:4, 3:8, 4:12] = 6
    affine = np.diag([-20.0, 20.0, 20.0, 1.0])
    affine[:3, 3] = (310.0, -40.0, 77.0)
    result = tiny(SENTENCE, mask=nib.Nifti1Image(solid, affine), num_inference_steps=2)
    case = result.cases[0]
    assert case.labels.shape == (16, 12, 24)
    assert nib.aff2axcodes(case.affine) == ("R", "A", "S")
    for organ in (3, 6):
        before = affine @ [*np.argwhere(solid == organ).mean(0), 1]
        after = case.affine @ [*np.argwhere(case.labels == organ).mean(0), 1]
        np.testing.assert_allclose(before, after, atol=13)  # half a voxel of 24 mm


def test_one_mask_serves_many_prompts_and_many_masks_one_each(tiny):
    maps = [tiny(p, output="mask", mask_num_inference_steps=2).cases[0] for p in ("a", "b")]
    one = tiny(["x", "y"], mask=maps[0], num_inference_steps=2)
    assert np.array_equal(one.labels[0], one.labels[1])
    each = tiny(["x", "y"], mask=maps, num_volumes_per_prompt=2, num_inference_steps=2)
    assert [np.array_equal(each.labels[i], maps[i // 2].labels) for i in range(4)] == [True] * 4
    silent = tiny(mask=maps, num_inference_steps=2)
    assert len(silent.cases) == 2
    assert silent.cases[0].prompt == ""


def test_a_given_tumor_is_split_from_its_organ(tiny):
    case = tiny(SENTENCE, generator=seeded(0), **FEW).cases[0]
    organs, tumor, *_ = tiny.prepare_mask(case)
    expected = split_tumor(case.labels)
    assert np.array_equal(organs, expected[0])
    assert np.array_equal(tumor, expected[1])


def test_absent_organs_of_a_given_mask_are_reported(tiny, caplog):
    labels = np.full((16, 12, 24), 3, np.uint8)
    tiny(mask=nib.Nifti1Image(labels, Grid.centered(labels.shape, 24.0).affine), num_inference_steps=1)
    assert "no spleen, kidney" in caplog.text
    assert "liver" not in caplog.text


def test_a_tumor_that_the_grid_cannot_hold_is_reported(tiny, caplog):
    labels = np.full((96, 72, 144), 3, np.uint8)
    labels[10, 10, 10], labels[20, 20, 20] = TUMOR, 14
    tiny(mask=nib.Nifti1Image(labels, Grid.centered(labels.shape, 4.0).affine), num_inference_steps=1)
    assert "The mask's adrenal_gland, tumor did not survive" in caplog.text
    assert "has no spleen" in caplog.text


def test_painting_needs_no_mask_network_and_keeps_the_grid(tiny, label_map):
    own = nib.Nifti1Image(label_map, Grid.centered(label_map.shape, 30.0).affine)
    expected = tiny(SENTENCE, mask=own, generator=seeded(0), num_inference_steps=2)
    tiny.mask_unet = tiny.mask_scheduler = None
    result = tiny(SENTENCE, mask=own, generator=seeded(0), num_inference_steps=2)
    assert_same(result, expected)
    assert np.array_equal(result.cases[0].affine, expected.cases[0].affine)


def test_a_patients_label_map_is_not_called_synthetic(tiny, label_map, tmp_path):
    real = Case(label_map, Grid.centered(label_map.shape, 30.0).affine)
    for source, synthetic in (
        (real, False),
        (tiny(SENTENCE, output="mask", **{"mask_num_inference_steps": 2}).cases[0], True),
    ):
        folder = tiny(SENTENCE, mask=source, num_inference_steps=1).cases[0].save(tmp_path / str(synthetic))
        headers = [nib.load(folder / name).header["descrip"].item() for name in ("ct.nii.gz", "labels.nii.gz")]
        assert [b"SYNTHETIC" in h for h in headers] == [True, synthetic]


def test_mask_timesteps_can_be_chosen(tiny):
    seen = []

    def note(pipeline, step, timestep, tensors):
        seen.append(int(timestep))
        return tensors

    case = tiny(SENTENCE, output="mask", mask_timesteps=[1000, 900, 10], mask_callback_on_step_end=note).cases[0]
    assert seen == case.provenance["mask_timesteps"] == [1000, 900, 10]


# -------------------- text and guidance


def test_encoded_prompts_serve_without_the_text_encoder(tiny):
    expected = tiny(SENTENCE, negative_prompt="noise", generator=seeded(0), **FEW)
    names = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
    encoded = dict(zip(names, tiny.encode_prompt(SENTENCE, negative_prompt="noise"), strict=True))
    tiny.text_encoder = tiny.tokenizer = None
    assert_same(tiny(**encoded, generator=seeded(0), **FEW), expected)


def test_guidance_of_one_needs_no_negative_prompt(tiny):
    embeds, mask, negative, negative_mask = tiny.encode_prompt(SENTENCE, do_classifier_free_guidance=False)
    assert negative is None
    assert negative_mask is None
    tiny.text_encoder = tiny.tokenizer = None
    off = dict(guidance_scale=1.0, mask_guidance_scale=1.0)
    tiny(prompt_embeds=embeds, prompt_attention_mask=mask, **off, **FEW)
    with pytest.raises(ValueError, match="negative_prompt_embeds"):
        tiny(prompt_embeds=embeds, prompt_attention_mask=mask, **FEW)


def test_each_stage_has_its_own_guidance(tiny):
    base = dict(generator=None, guidance_scale=1.0, mask_guidance_scale=1.0)
    runs = {}
    for name, change in (("none", {}), ("mask", {"mask_guidance_scale": 6.0}), ("ct", {"guidance_scale": 6.0})):
        runs[name] = tiny(SENTENCE, **{**base, **change, "generator": seeded(0)}, **FEW)
    assert not np.array_equal(runs["mask"].labels, runs["none"].labels)
    assert np.array_equal(runs["ct"].labels, runs["none"].labels)
    assert not np.array_equal(runs["ct"].ct, runs["none"].ct)


def test_guidance_away_from_the_prompt_itself_is_no_guidance(tiny):
    guided = tiny(SENTENCE, negative_prompt=SENTENCE, generator=seeded(0), **FEW)
    plain = tiny(SENTENCE, generator=seeded(0), guidance_scale=1.0, mask_guidance_scale=1.0, **FEW)
    assert almost_same((guided.labels[0], guided.ct[0]), (plain.labels[0], plain.ct[0]))


def test_a_negative_prompt_changes_the_result(tiny):
    a = tiny(SENTENCE, generator=seeded(0), **FEW)
    b = tiny(SENTENCE, negative_prompt="a large tumour", generator=seeded(0), **FEW)
    assert not np.array_equal(a.labels, b.labels)


# -------------------- callbacks


def test_callbacks_see_every_step_of_their_stage(tiny):
    seen = []

    def note(stage):
        def callback(pipeline, step, timestep, tensors):
            seen.append((stage, step, int(timestep), pipeline.num_timesteps, sorted(tensors)))
            return tensors

        return callback

    tiny(
        SENTENCE,
        callback_on_step_end=note("ct"),
        callback_on_step_end_tensor_inputs=tiny._callback_tensor_inputs,
        mask_callback_on_step_end=note("mask"),
        mask_callback_on_step_end_tensor_inputs=tiny._mask_callback_tensor_inputs,
        **FEW,
    )
    assert [(stage, step) for stage, step, *_ in seen] == [
        *(("mask", i) for i in range(4)),
        *(("ct", i) for i in range(3)),
    ]
    assert [t for stage, _, t, *_ in seen if stage == "mask"] == [1000, 750, 500, 250]
    assert seen[0][3:] == (4, sorted(tiny._mask_callback_tensor_inputs))
    assert seen[-1][3:] == (3, sorted(tiny._callback_tensor_inputs))


def test_what_a_callback_returns_goes_on(tiny):
    def zero_labels(pipeline, step, timestep, tensors):
        return {"labels": torch.zeros_like(tensors["labels"])} if step == pipeline.num_timesteps - 1 else tensors

    def zero_latents(pipeline, step, timestep, tensors):
        return {"latents": torch.zeros_like(tensors["latents"])} if step == pipeline.num_timesteps - 1 else tensors

    result = tiny(
        SENTENCE,
        callback_on_step_end=zero_latents,
        mask_callback_on_step_end=zero_labels,
        output_type="latent",
        **FEW,
    )
    assert not result.labels.any()
    assert not result.ct.any()


def test_a_callback_that_returns_nothing_changes_nothing(tiny):
    plain = tiny(SENTENCE, generator=seeded(0), **FEW)
    watched = tiny(SENTENCE, generator=seeded(0), callback_on_step_end=lambda *_: None, **FEW)
    assert_same(plain, watched)


def test_guidance_can_be_switched_off_mid_run(tiny):
    passes = []
    tiny.unet.register_forward_hook(lambda module, inputs, output: passes.append(len(inputs[0])))

    class Cutoff(PipelineCallback):
        tensor_inputs = ["prompt_embeds"]

        def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
            if step_index == 0:
                callback_kwargs["prompt_embeds"] = callback_kwargs["prompt_embeds"][-1:]
                pipeline._guidance_scale = 0.0
            return callback_kwargs

    tiny(SENTENCE, callback_on_step_end=Cutoff(), **FEW)
    assert passes == [2, 1, 1]


def test_an_interrupted_run_stops_and_still_gives_a_label_map(tiny):
    steps = []

    def stop(pipeline, step, timestep, tensors):
        steps.append(step)
        pipeline._interrupt = step == 1
        return tensors

    result = tiny(SENTENCE, mask_callback_on_step_end=stop, **FEW)
    assert steps == [0, 1]
    assert result.cases[0].provenance["interrupted"] is True
    assert "num_inference_steps" not in result.cases[0].provenance
    assert result.ct is None
    assert result.labels.max() <= TUMOR
    assert tiny(SENTENCE, **FEW).ct is not None


def test_progress_bars_name_the_stage(tiny, capsys):
    tiny.set_progress_bar_config(disable=False)
    tiny(SENTENCE, **FEW)
    shown = capsys.readouterr().err
    assert "label map (TCSS)" in shown
    assert "CT (LFG)" in shown


# -------------------- saving and moving


@pytest.mark.parametrize("loader", [GuideGenPipeline, DiffusionPipeline])
def test_a_saved_pipeline_gives_the_same_output(tiny, tmp_path, loader):
    tiny.save_pretrained(tmp_path)
    again = loader.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert type(again) is GuideGenPipeline
    assert (again.config.spacing, again.config.max_sequence_length) == (24.0, 256)
    assert_same(again(SENTENCE, generator=seeded(0), **FEW), tiny(SENTENCE, generator=seeded(0), **FEW))


def test_the_tokenizer_keeps_its_ids_on_disk(tiny, tmp_path):
    expected = tiny.tokenizer("CT, 62m")["input_ids"]
    assert expected == [2, *tiny.tokenizer.convert_tokens_to_ids(["c", "##t", ",", "6", "##2", "##m"]), 3]
    assert 1 not in expected
    tiny.save_pretrained(tmp_path)
    assert GuideGenPipeline.from_pretrained(tmp_path).tokenizer("CT, 62m")["input_ids"] == expected


def test_components_that_are_none_stay_none_on_disk(tiny, tmp_path):
    tiny.text_encoder = tiny.tokenizer = tiny.mask_unet = tiny.mask_scheduler = None
    tiny.save_pretrained(tmp_path)
    again = GuideGenPipeline.from_pretrained(tmp_path)
    assert [name for name, part in again.components.items() if part is None] == [
        "tokenizer",
        "text_encoder",
        "mask_unet",
        "mask_scheduler",
        "latent_spread",
    ]


def test_components_can_be_passed_while_loading(tiny, tmp_path):
    tiny.save_pretrained(tmp_path)
    again = GuideGenPipeline.from_pretrained(tmp_path, vae=None, unet=tiny.unet)
    assert again.vae is None
    assert again.unet is tiny.unet


def test_a_variant_names_files_and_a_dtype_casts(tiny, tmp_path):
    tiny.save_pretrained(tmp_path, variant="fp16")
    assert (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").exists()
    again = GuideGenPipeline.from_pretrained(tmp_path, variant="fp16", dtype=torch.bfloat16)
    assert again.mask_unet.dtype == again.unet.dtype == again.text_encoder.dtype == torch.bfloat16
    assert again.vae.quantizer.codebook.dtype == torch.float32
    again.set_progress_bar_config(disable=True)
    result = again(SENTENCE, generator=seeded(0), **FEW)
    assert result.ct.dtype == np.int16


def test_weights_of_half_precision_are_loaded_in_full_unless_asked(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "full")
    GuideGenPipeline.from_pretrained(tmp_path / "full", dtype=torch.float16).save_pretrained(tmp_path / "half")
    again = GuideGenPipeline.from_pretrained(tmp_path / "half")
    networks = (again.text_encoder, again.mask_unet, again.vae, again.semantic_encoder, again.unet)
    assert {network.dtype for network in networks} == {torch.float32}


def test_only_safetensors_are_written(tiny, tmp_path):
    tiny.save_pretrained(tmp_path)
    weights = [f.name for f in tmp_path.rglob("*") if f.suffix in (".bin", ".pt", ".ckpt", ".safetensors")]
    assert len(weights) == 5
    assert all(name.endswith(".safetensors") for name in weights)
    with pytest.raises(ValueError, match="safetensors only"):
        tiny.save_pretrained(tmp_path, safe_serialization=False)


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize(("component", "weights"), [("vae", "diffusion_pytorch_model"), ("text_encoder", "model")])
def test_pickled_weights_are_refused_unopened(tiny, tmp_path, component, weights):
    tiny.save_pretrained(tmp_path)
    (tmp_path / component / f"{weights}.safetensors").unlink()
    pickled = weights.replace("model", "pytorch_model") if component == "text_encoder" else weights
    torch.save({"x": Trap(tmp_path / "opened")}, tmp_path / component / f"{pickled}.bin")
    with pytest.raises(OSError, match=r"expected a \.safetensors file"):
        GuideGenPipeline.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="got False"):
        GuideGenPipeline.from_pretrained(tmp_path, use_safetensors=False)
    if component == "vae":
        with pytest.raises(OSError, match=r"expected a \.safetensors file"):
            DiffusionPipeline.from_pretrained(tmp_path)
    assert not (tmp_path / "opened").exists()


def test_a_checkpoint_that_lacks_a_parameter_is_refused(tiny, tmp_path):
    from safetensors.torch import load_file, save_file

    tiny.save_pretrained(tmp_path)
    file = tmp_path / "mask_unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["conv_out.bias"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 parameter.*'conv_out\.bias'"):
        DiffusionPipeline.from_pretrained(tmp_path)


def test_to_moves_and_casts_every_network(tiny):
    tiny.to(torch.float64)
    assert {part.dtype for part in (tiny.mask_unet, tiny.unet, tiny.semantic_encoder, tiny.vae)} == {torch.float64}
    tiny(SENTENCE, **FEW)


def test_bf16_networks_agree_roughly_with_float32(tiny):
    case = tiny(SENTENCE, generator=seeded(0), **FEW).cases[0]
    exact = tiny(SENTENCE, mask=case, generator=seeded(1), num_inference_steps=3).ct
    tiny.to(torch.bfloat16)
    rough = tiny(SENTENCE, mask=case, generator=seeded(1), num_inference_steps=3).ct
    assert np.corrcoef(exact.ravel(), rough.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("offload_type", ["leaf_level", "block_level"])
def test_group_offload_brings_every_weight_in_before_it_is_used(tiny, monkeypatch, offload_type):
    """On one device a weight that was never brought in would not be missed: here weights that are away hold NaN."""
    from diffusers.hooks.group_offloading import ModuleGroup

    expected = tiny(SENTENCE, generator=seeded(0), **FEW)
    away, bring_in, send_away = {}, ModuleGroup.onload_, ModuleGroup.offload_

    def tensors(group):
        inside = [x for module in group.modules for x in (*module.parameters(), *module.buffers())]
        return [x for x in (*inside, *group.parameters, *group.buffers) if x.is_floating_point()]

    def onload(group):
        bring_in(group)
        for x in tensors(group):
            if id(x) in away:
                x.data.copy_(away.pop(id(x)))

    def offload(group):
        for x in tensors(group):
            if id(x) not in away:
                away[id(x)] = x.data.clone()
                x.data.fill_(float("nan"))
        send_away(group)

    monkeypatch.setattr(ModuleGroup, "onload_", onload)
    monkeypatch.setattr(ModuleGroup, "offload_", offload)
    options = {"num_blocks_per_group": 1} if offload_type == "block_level" else {}
    parts = ["mask_unet", "unet", "semantic_encoder", "vae"]
    exclude = [name for name in tiny.components if name not in parts]
    tiny.enable_group_offload(torch.device("cpu"), offload_type=offload_type, exclude_modules=exclude, **options)
    for part in parts:
        for group_hook in _group_offload_hooks(getattr(tiny, part)):
            offload(group_hook.group)
    assert away
    assert_same(tiny(SENTENCE, generator=seeded(0), **FEW), expected)


def _group_offload_hooks(network):
    registries = [m._diffusers_hook for m in network.modules() if hasattr(m, "_diffusers_hook")]
    return [r.get_hook("group_offloading") for r in registries if r.get_hook("group_offloading") is not None]


def test_sequential_offload_brings_every_weight_in_before_it_is_used(drawing):
    """Accelerate keeps the weights on `meta` until their module runs."""
    from accelerate import cpu_offload

    expected = drawing(SENTENCE, generator=seeded(0), **FEW)
    for name in drawing.model_cpu_offload_seq.split("->"):
        cpu_offload(getattr(drawing, name), torch.device("cpu"), offload_buffers=True)
    assert_same(drawing(SENTENCE, generator=seeded(0), **FEW), expected)


def test_every_network_is_in_the_offload_sequence(drawing):
    networks = {name for name, part in drawing.components.items() if isinstance(part, torch.nn.Module)}
    assert set(drawing.model_cpu_offload_seq.split("->")) == networks


def test_cpu_offload_hooks_wrap_every_way_into_a_network(drawing):
    """Accelerate's hooks are what `enable_model_cpu_offload` sets; without a GPU they run from the CPU to the CPU."""
    from accelerate import cpu_offload_with_hook

    expected = drawing(SENTENCE, generator=seeded(0), **FEW)
    entered, hook = [], None
    for name in drawing.model_cpu_offload_seq.split("->"):
        network = getattr(drawing, name)
        _, hook = cpu_offload_with_hook(network, torch.device("cpu"), prev_module_hook=hook)
        before = network._hf_hook.pre_forward

        def pre_forward(*args, name=name, before=before, **kwargs):
            entered.append(name)
            return before(*args, **kwargs)

        network._hf_hook.pre_forward = pre_forward
    assert_same(drawing(SENTENCE, generator=seeded(0), **FEW), expected)
    assert set(entered) == set(drawing.model_cpu_offload_seq.split("->"))


def test_compiled_networks_give_the_same(tiny):
    expected = tiny(SENTENCE, generator=seeded(0), **FEW)
    tiny.mask_unet = torch.compile(tiny.mask_unet, backend="eager", fullgraph=True)
    tiny.unet = torch.compile(tiny.unet, backend="eager", fullgraph=True)
    assert_same(tiny(SENTENCE, generator=seeded(0), **FEW), expected)


def test_compiled_networks_can_be_saved(tiny, tmp_path):
    tiny.unet = torch.compile(tiny.unet, backend="eager")
    tiny.save_pretrained(tmp_path)
    assert GuideGenPipeline.from_pretrained(tmp_path).unet.config.out_channels == 4


def test_any_diffusers_scheduler_drives_the_ct_stage(tiny):
    case = tiny(SENTENCE, output="mask", mask_num_inference_steps=2).cases[0]
    for scheduler in (DDIMScheduler, EulerDiscreteScheduler):
        tiny.scheduler = scheduler.from_config(tiny.scheduler.config)
        assert np.isfinite(tiny(SENTENCE, mask=case, num_inference_steps=3).ct).all()


def test_from_pipe_shares_the_components(tiny):
    other = GuideGenPipeline.from_pipe(tiny)
    assert other.unet is tiny.unet
    assert other.config.spacing == 24.0


def test_starting_noise_can_be_given(tiny):
    mask_latents = tiny.mask_scheduler.sample_noise((1, 16, 12, 24), seeded(1))
    latents = torch.randn(1, 4, 8, 6, 12, generator=seeded(2))
    given = [tiny(SENTENCE, mask_latents=mask_latents, latents=latents, generator=seeded(3), **FEW) for _ in range(2)]
    assert_same(*given)
    assert [given[0].cases[0].provenance.get(name) for name in ("latents", "mask_latents")] == ["given", "given"]
    assert "latents" not in tiny(SENTENCE, **FEW).cases[0].provenance
    other = tiny(SENTENCE, mask_latents=mask_latents, latents=-latents, generator=seeded(3), **FEW)
    assert np.array_equal(other.labels, given[0].labels)
    assert not np.array_equal(other.ct, given[0].ct)


# -------------------- bad input


NAN = torch.full((1, 64, 16), float("nan"))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (dict(prompt=3), TypeError, "expected a string or a list of strings"),
        (dict(prompt=["a", None]), TypeError, "expected a string or a list of strings"),
        (dict(prompt=[]), TypeError, "expected a string or a list of strings"),
        (dict(), ValueError, "prompt: got none"),
        (dict(prompt="a", prompt_embeds=torch.zeros(1, 64, 16)), ValueError, "one of the two"),
        (dict(prompt="a", negative_prompt=["a", "b"]), ValueError, "got 2 strings, expected 1"),
        (dict(prompt="a", negative_prompt=5), TypeError, "negative_prompt"),
        (dict(prompt="a", output="ct"), ValueError, "expected 'pair'"),
        (dict(prompt="a", output_type="pil"), ValueError, "expected 'np'"),
        (dict(prompt="a", num_inference_steps=0), ValueError, r"expected a whole number in 1\.\.1000"),
        (dict(prompt="a", num_inference_steps=1001), ValueError, "num_inference_steps"),
        (dict(prompt="a", num_inference_steps=2.5), ValueError, "num_inference_steps"),
        (dict(prompt="a", mask_num_inference_steps=0), ValueError, "mask_num_inference_steps"),
        (dict(prompt="a", mask_num_inference_steps=1001), ValueError, "mask_num_inference_steps"),
        (dict(prompt="a", guidance_scale=float("nan")), ValueError, "guidance_scale"),
        (dict(prompt="a", mask_guidance_scale=float("inf")), ValueError, "mask_guidance_scale"),
        (dict(prompt="a", num_volumes_per_prompt=0), ValueError, "num_volumes_per_prompt"),
        (dict(prompt=["a", "b"], generator=[torch.Generator()]), ValueError, "list of 1, expected 2"),
        (dict(prompt_embeds=torch.zeros(1, 9, 16)), ValueError, "prompt_attention_mask: got none"),
        (
            dict(prompt_embeds=torch.zeros(1, 9, 16), prompt_attention_mask=torch.ones(1, 8)),
            ValueError,
            r"prompt_attention_mask: got shape \(1, 8\)",
        ),
        (
            dict(prompt_embeds=torch.zeros(1, 9, 16), prompt_attention_mask=torch.ones(1, 9)),
            ValueError,
            "prompt_embeds: got 9 tokens",
        ),
        (
            dict(prompt_embeds=torch.zeros(1, 9, 32), prompt_attention_mask=torch.ones(1, 9)),
            ValueError,
            r"expected \(B, M, 16\)",
        ),
        (
            dict(
                prompt_embeds=torch.zeros(2, 9, 16),
                prompt_attention_mask=torch.ones(2, 9),
                negative_prompt_embeds=torch.zeros(1, 9, 16),
                negative_prompt_attention_mask=torch.ones(1, 9),
            ),
            ValueError,
            "negative_prompt_embeds: got shape",
        ),
        (dict(prompt="a", generator=3), TypeError, "expected a torch.Generator"),
        (dict(prompt="a", generator=[torch.Generator(), 3], num_volumes_per_prompt=2), TypeError, "torch.Generator"),
        (dict(prompt="a", guidance_scale="much"), ValueError, "guidance_scale: got much"),
        (dict(prompt="a", callback_on_step_end_tensor_inputs=None), ValueError, "callback tensor inputs: got None"),
        (dict(prompt="a", mask_timesteps=[10, 20]), ValueError, "decreasing"),
        (
            dict(prompt="a", mask="x.nii.gz", mask_latents=torch.zeros(1, 16, 12, 24).byte()),
            ValueError,
            "skips their stage",
        ),
        (
            dict(
                prompt="a",
                negative_prompt="b",
                negative_prompt_embeds=torch.zeros(1, 9, 16),
                negative_prompt_attention_mask=torch.ones(1, 9),
            ),
            ValueError,
            "together with a negative prompt",
        ),
        (dict(prompt_embeds=NAN, negative_prompt_embeds=torch.zeros(1, 64, 16)), ValueError, "NaN"),
        (dict(prompt="a", latents=torch.full((1, 4, 8, 6, 12), float("inf"))), ValueError, "infinite"),
        (dict(prompt="a", latents=torch.zeros(1, 4, 8, 6, 11)), ValueError, "latents: got shape"),
        (dict(prompt="a", mask_latents=torch.zeros(1, 16, 12, 24)), ValueError, "torch.uint8"),
        (dict(prompt="a", mask_latents=torch.zeros(1, 16, 12, 23).byte()), ValueError, "mask_latents"),
        (dict(prompt="a", mask_latents=torch.full((1, 16, 12, 24), 21).byte()), ValueError, "mask_latents"),
        (dict(prompt="a", callback_on_step_end_tensor_inputs=["labels"]), ValueError, "callback tensor inputs"),
        (dict(prompt="a", mask=np.zeros((4, 4, 4), np.uint8)), TypeError, "has no affine"),
        (dict(prompt="a", mask=nib.Nifti1Image(np.full((4, 4, 4), 77, np.uint8), np.eye(4))), ValueError, r"\[77\]"),
        (dict(prompt="a", mask=nib.Nifti1Image(np.full((4, 4, 4), np.nan), np.eye(4))), ValueError, "NaN"),
        (dict(prompt="a", mask=nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.uint8), np.eye(4))), ValueError, "3-D"),
        (dict(prompt="a", mask=nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4))), ValueError, "no organ"),
        (dict(prompt="a", mask="nowhere.nii.gz"), FileNotFoundError, "nowhere"),
        (dict(prompt="a", mask=[], num_inference_steps=1), ValueError, "mask: got 0 label maps"),
        (
            dict(prompt="a", output="mask", mask=nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4))),
            ValueError,
            "nothing to generate",
        ),
    ],
)
def test_bad_input_is_named(tiny, call, error, message):
    few = {name: value for name, value in FEW.items() if name not in call}
    with pytest.raises(error, match=message):
        tiny(**call, **few)


def test_the_call_has_the_arguments_that_diffusers_users_expect():
    expected = """prompt num_inference_steps guidance_scale negative_prompt num_volumes_per_prompt generator latents
        prompt_embeds negative_prompt_embeds output_type return_dict callback_on_step_end
        callback_on_step_end_tensor_inputs"""
    parameters = inspect.signature(GuideGenPipeline.__call__).parameters
    assert set(expected.split()) <= set(parameters)


def test_the_grid_is_the_mask_networks(tiny):
    assert GuideGenPipeline(mask_unet=tiny.mask_unet).sample_size == (16, 12, 24)
    with pytest.raises(ValueError, match="expected the mask network's"):
        GuideGenPipeline(mask_unet=tiny.mask_unet, sample_size=(16, 12, 32))


def test_embeds_of_any_length_serve_without_guidance(tiny):
    embeds = torch.randn(1, 9, 16)
    off = dict(guidance_scale=1.0, mask_guidance_scale=1.0)
    tiny(prompt_embeds=embeds, prompt_attention_mask=torch.ones(1, 9), **off, **FEW)


def test_steps_may_be_numpy_integers(tiny):
    tiny(SENTENCE, output="mask", mask_num_inference_steps=np.int64(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.pop("vae"), "expected a dict with the keys"),
        (lambda config: config.update(spacng=3), "spacng"),
    ],
)
def test_a_config_with_other_keys_is_refused(change, message):
    config = load_config("tiny")
    change(config)
    with pytest.raises(ValueError, match=message):
        GuideGenPipeline.from_config(config)


def test_a_tokenizer_and_its_encoder_come_together(tiny):
    again = GuideGenPipeline.from_config("tiny", tokenizer=tiny.tokenizer, text_encoder=tiny.text_encoder)
    assert again.tokenizer is tiny.tokenizer
    with pytest.raises(ValueError, match="together"):
        GuideGenPipeline.from_config("tiny", tokenizer=tiny.tokenizer)


def test_a_spread_of_other_latents_is_named(tiny):
    with pytest.raises(ValueError, match="latent_spread: got 3 channels, expected the autoencoder's 4"):
        GuideGenPipeline(vae=tiny.vae, latent_spread=LatentSpread(latent_channels=3))


def test_a_text_encoder_of_another_width_is_named(tiny):
    wide = GuideGenPipeline.from_config("torso-6mm", vae=None, unet=None, mask_unet=None, semantic_encoder=None)
    tiny.text_encoder = wide.text_encoder
    with pytest.raises(ValueError, match="128 wide, the networks expect 16"):
        tiny(SENTENCE, **FEW)


@pytest.mark.parametrize("name", ["torso-6mm", "torso-3mm", "paper-128"])
def test_shipped_configurations_fit_together(name):
    """Built on the meta device: grids divide by every factor, and channels meet."""
    with torch.device("meta"):
        pipeline = GuideGenPipeline.from_config(name, tokenizer=None, text_encoder=None)
    factor = pipeline.vae.downscale_factor
    assert factor == pipeline.semantic_encoder.downscale_factor
    trunk = pipeline.mask_unet.config.patch_size * 2 ** len(pipeline.mask_unet.downsample)
    assert all(n % trunk == 0 for n in pipeline.sample_size)
    latent_trunk = factor * 2 ** len(pipeline.unet.downsample)
    assert all(n % latent_trunk == 0 for n in pipeline.sample_size)
    channels = pipeline.vae.config.latent_channels
    assert pipeline.unet.config.out_channels == channels
    assert pipeline.unet.config.in_channels == channels + 2 * pipeline.semantic_encoder.config.latent_channels
    assert pipeline.unet.config.cross_attention_dim == pipeline.mask_unet.config.cross_attention_dim
    if name != "paper-128":
        np.testing.assert_allclose(np.array(pipeline.sample_size) * pipeline.config.spacing, (384, 288, 576))


def test_the_papers_network_has_about_the_papers_size():
    with torch.device("meta"):
        pipeline = GuideGenPipeline.from_config("paper-128")
    millions = sum(p.numel() for p in pipeline.mask_unet.parameters()) / 1e6
    assert millions == pytest.approx(49.1, rel=0.05)
