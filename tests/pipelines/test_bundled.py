"""The bundled pipeline does what its card says, on prompts of test seeds."""

import numpy as np
import pytest
import torch

from guidegen_diffusers import (
    ClinicalPrompt,
    GuideGenPipeline,
    Segmenter3D,
    TorsoPhantom,
    bundled_checkpoint,
    find_site,
)
from guidegen_diffusers.checkpoints import bundled_instrument
from guidegen_diffusers.labels import CLASSES, TUMOR
from guidegen_diffusers.metrics import dice, mean_hu, organ_volumes
from guidegen_diffusers.phantom import SEEDS
from guidegen_diffusers.prompts import SITES


pytestmark = pytest.mark.slow
FIRST = 5000  # place in the test seeds; the figures of the card begin at 0
ORGANS = [c.name for c in CLASSES[1:TUMOR]]


@pytest.fixture(scope="module")
def drawn():
    """A prompt of each site, the pair drawn from it, and the phantom of the same prompt and seed."""
    pipe = GuideGenPipeline.from_pretrained(bundled_checkpoint("torso-6mm"))
    pipe.set_progress_bar_config(disable=True)
    phantom, found = TorsoPhantom(pipe.sample_size, pipe.config.spacing), []
    for i, site in enumerate(SITES):
        seed = SEEDS["test"][FIRST + i]
        prompt = ClinicalPrompt(sites=frozenset({site})).resolve(torch.Generator().manual_seed(seed))
        case = pipe(prompt.render(), generator=torch.Generator().manual_seed(seed)).cases[0]
        found.append((prompt, case, phantom.sample(prompt, seed)))
    return found


def test_tumours_lie_where_they_were_asked_for_and_nowhere_where_none_was(drawn):
    right = [find_site(case.labels, case.affine).site == prompt.site for prompt, case, _ in drawn]
    assert sum(right) >= 8, right  # by chance 1; the card's share gives 10 or 11


def test_organs_are_there_and_of_the_phantoms_size(drawn):
    made, true = (
        np.array([[organ_volumes(c.labels, c.affine)[name] for name in ORGANS] for c in cases])
        for cases in ([case for _, case, _ in drawn], [phantom for *_, phantom in drawn])
    )
    assert (made > 0).mean() > 0.95
    ratio = dict(zip(ORGANS, made.mean(0) / true.mean(0), strict=True))
    large = [name for name in ORGANS if true.mean(0)[ORGANS.index(name)] > 100]
    assert all(0.75 < ratio[name] < 1.25 for name in large), ratio


def test_organs_have_the_phantoms_hu(drawn):
    made, true = ([mean_hu(c.ct, c.labels) for c in cases] for cases in zip(*[d[1:] for d in drawn], strict=True))
    for name in ("lung", "liver", "heart", "aorta"):
        away = np.mean([m[name] for m in made if name in m]) - np.mean([t[name] for t in true])
        assert abs(away) < 30, (name, away)


def test_a_segmenter_that_saw_phantoms_alone_reads_the_organs_of_generated_CT(drawn):
    segmenter = Segmenter3D.from_pretrained(bundled_instrument("segmenter", (6.0, 6.0, 6.0))).eval()
    for name in ("lung", "liver", "heart", "kidney"):
        scores = {}
        for side, cases in (("made", [case for _, case, _ in drawn]), ("true", [phantom for *_, phantom in drawn])):
            read = [dice(segmenter.segment(torch.from_numpy(c.ct)[None])[0].numpy(), c.labels) for c in cases]
            scores[side] = np.mean([r[name] for r in read])
        assert scores["made"] > 0.8 * scores["true"], (name, scores)
