"""How much volumes of organs and tumour vary beside what the text says of them: the mask scheduler's `volume_spread`.

    R_k = log(voxels of class k in a case / voxels that the mask network expects of it at t = T, from the text alone)

is a common part of all organs, as the size of a body is, and a part of each class's own: the first factor of the
organs' correlations and what it leaves. The scheduler draws volumes with this spread and keeps them (`keep_volumes`);
without it they are all what one expects. The pipeline's folder is told in place; no weight changes.

    python examples/measure_spread.py --model out/torso-6mm --data_dir out/phantoms
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from guidegen_diffusers import CaseDataset, GuideGenPipeline
from guidegen_diffusers.labels import CLASSES, NUM_CLASSES, TUMOR


FEWEST = 30  # cases


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure how volumes vary beside the text, and tell the scheduler.")
    parser.add_argument("--model", type=Path, required=True, help="folder of a pipeline with a mask network")
    parser.add_argument("--data_dir", type=Path, required=True, help="a data set with label maps on its grid")
    parser.add_argument("--split", default="train")
    parser.add_argument("--count", type=int, default=300, help="the first so many cases")
    args = parser.parse_args()
    if args.count < FEWEST:
        parser.error(f"--count: got {args.count}, expected {FEWEST} or more; a spread of fewer cases is noise.")
    return args


@torch.no_grad()
def residuals(pipe: GuideGenPipeline, cases: CaseDataset, count: int) -> np.ndarray:
    """R (cases, N); NaN where a case has nothing of a class."""
    scheduler, rows = pipe.mask_scheduler, []
    last = len(scheduler)
    for i in tqdm(range(min(count, len(cases))), "cases"):
        case = cases.case(i)
        if case.labels.shape != pipe.sample_size:
            raise SystemExit(f"--data_dir: {case.labels.shape} voxels a case, expected {pipe.sample_size}.")
        text, attention = pipe.encode_prompt(case.prompt, do_classifier_free_guidance=False)[:2]
        noise = scheduler.sample_noise((1, *pipe.sample_size), torch.Generator().manual_seed(i))
        logits = pipe.mask_unet(noise, torch.tensor(last), text, attention).sample
        expected = scheduler.original_logits(logits.float(), last, noise).softmax(1).sum((0, 2, 3, 4)).numpy()
        voxels = np.bincount(case.labels.ravel(), minlength=NUM_CLASSES)
        with np.errstate(divide="ignore"):
            rows.append(np.where(voxels > 0, np.log(voxels / expected), np.nan))
    return np.array(rows)


def volume_spread(away: np.ndarray) -> list[list[float]]:
    """Two standard deviations of each class, (N, 2), from R (cases, N): of the common factor, and of its own."""
    spread = np.zeros((NUM_CLASSES, 2))
    tumors = away[~np.isnan(away[:, TUMOR]), TUMOR]
    spread[TUMOR, 1] = tumors.std() if len(tumors) else 0.0
    organs = away[:, 1:TUMOR]
    whole = organs[~np.isnan(organs).any(1)]  # the factor is of cases that have all organs
    deviation = whole.std(0)
    values, vectors = np.linalg.eigh(np.corrcoef(whole.T))
    load = np.sqrt(values[-1]) * vectors[:, -1]
    load = np.clip(load * np.sign(load.sum()), 0, 1)
    spread[1:TUMOR] = np.stack([deviation * load, deviation * np.sqrt(1 - load**2)], axis=1)
    return np.round(spread, 3).tolist()


def main() -> None:
    args = parse_args()
    pipe, cases = GuideGenPipeline.from_pretrained(args.model), CaseDataset(args.data_dir, args.split)
    if len(cases) < FEWEST:
        raise SystemExit(f"--data_dir: {args.data_dir} holds {len(cases)} cases, expected {FEWEST} or more.")
    spread = volume_spread(residuals(pipe, cases, args.count))
    pipe.mask_scheduler.register_to_config(keep_volumes=True, volume_spread=spread)
    pipe.mask_scheduler.save_pretrained(args.model / "mask_scheduler")
    for c, (common, own) in zip(CLASSES, spread, strict=True):
        print(f"{c.name:26}  {common:.3f}  {own:.3f}")


if __name__ == "__main__":
    main()
