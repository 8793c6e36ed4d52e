"""How much cases vary beside what a pipeline's networks are told: what its first steps draw.

Stage I, volumes of organs and tumour beside what the text says of them (the mask scheduler's `volume_spread`):

    R_k = log(voxels of class k in a case / voxels that the mask network expects of it at t = T, from the text alone)

is a common part of all organs, as the size of a body is, and a part of each class's own: the first factor of the
organs' correlations and what it leaves. The scheduler draws volumes with this spread and keeps them (`keep_volumes`);
without it they are all what one expects.

Stage III, mean latents of the classes beside what label map and text say of them (the pipeline's `latent_spread`):

    R_kc = mean of channel c over the cells of class k, in a case - in what the U-Net expects of it at t = T

are mostly scan phases, gas and fat: a few principal components. The first step of the CT moves by a draw of them.
The pipeline's folder is told in place; no weight of a network changes.

    python examples/measure_spread.py --model out/torso-6mm --data_dir out/phantoms
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from guidegen_diffusers import Case, CaseDataset, GuideGenPipeline, LatentSpread
from guidegen_diffusers.labels import CLASSES, NUM_CLASSES, TUMOR, split_tumor


FEWEST = 30  # cases


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure how cases vary beside what is said, and tell the pipeline.")
    parser.add_argument("--model", type=Path, required=True, help="folder of a pipeline")
    parser.add_argument("--data_dir", type=Path, required=True, help="a data set on its grid")
    parser.add_argument("--split", default="train")
    parser.add_argument("--of", choices=("volumes", "latents"), nargs="+", default=["volumes", "latents"])
    parser.add_argument("--components", type=int, default=6, help="of the latents")
    parser.add_argument("--count", type=int, default=300, help="the first so many cases")
    args = parser.parse_args()
    if args.count < FEWEST:
        parser.error(f"--count: got {args.count}, expected {FEWEST} or more; a spread of fewer cases is noise.")
    return args


def on_grid(case: Case, pipe: GuideGenPipeline) -> Case:
    if case.labels.shape != pipe.sample_size:
        raise SystemExit(f"--data_dir: {case.labels.shape} voxels a case, expected {pipe.sample_size}.")
    return case


@torch.no_grad()
def volume_residuals(pipe: GuideGenPipeline, cases: CaseDataset, count: int) -> np.ndarray:
    """R (cases, N); NaN where a case has nothing of a class."""
    scheduler, rows = pipe.mask_scheduler, []
    last = len(scheduler)
    for i in tqdm(range(min(count, len(cases))), "volumes"):
        case = on_grid(cases.case(i), pipe)
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


@torch.no_grad()
def latent_residuals(pipe: GuideGenPipeline, cases: CaseDataset, count: int) -> np.ndarray:
    """R (cases, N, C); NaN where a case has nothing of a class."""
    vae, scheduler, rows = pipe.vae, pipe.scheduler, []
    last, limit = scheduler.config.num_train_timesteps - 1, vae.config.hu_scale
    scheduler.set_timesteps(1)
    for i in tqdm(range(min(count, len(cases))), "latents"):
        case = on_grid(cases.case(i), pipe)
        if case.ct is None:
            raise SystemExit(f"--data_dir: case {i} has no CT, expected one; or pass --of volumes.")
        ct = torch.from_numpy(case.ct.astype(np.float32)).clamp(-limit, limit) / limit
        latents = vae.encode(ct[None, None]).latents * vae.config.scaling_factor
        organs, tumor = (torch.from_numpy(part)[None] for part in split_tumor(case.labels))
        semantic = pipe.semantic_encoder(organs, tumor).latents
        text, attention = pipe.encode_prompt(case.prompt, do_classifier_free_guidance=False)[:2]
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(i))
        output = pipe.unet(torch.cat([noise, semantic], 1), torch.tensor(last), text, attention).sample
        expected = scheduler.step(output, last, noise).pred_original_sample
        rows.append(class_means((latents - expected)[0], torch.from_numpy(case.labels)))
    return np.array(rows)


def class_means(latents: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """(C, x, y, z) and a label map to means (N, C), in which a cell counts by the square of a class's share of it."""
    share = F.one_hot(labels.long(), NUM_CLASSES).movedim(-1, 0).float()
    share = F.adaptive_avg_pool3d(share, latents.shape[1:]).flatten(1) ** 2
    total = share.sum(1, keepdim=True)
    return torch.where(total > 0.5, share @ latents.flatten(1).T / total, torch.nan).numpy()


def principal(away: np.ndarray, count: int) -> torch.Tensor:
    """The first principal components of R (cases, N, C), each as long as its standard deviation: (K, N, C)."""
    mean = np.nansum(away, 0) / np.maximum((~np.isnan(away)).sum(0), 1)
    centred = np.nan_to_num(away - mean).reshape(len(away), -1)  # what is absent does not vary
    _, scale, vectors = np.linalg.svd(centred, full_matrices=False)
    whole, scale, vectors = (scale**2).sum(), scale[:count], vectors[:count]
    print(f"{len(scale)} components hold {100 * (scale**2).sum() / whole:.0f} % of how latents vary")
    components = scale[:, None] * vectors / np.sqrt(len(away))
    return torch.from_numpy(components.reshape(-1, *away.shape[1:])).float()


def tell_volumes(pipe: GuideGenPipeline, folder: Path, spread: list[list[float]]) -> None:
    pipe.mask_scheduler.register_to_config(keep_volumes=True, volume_spread=spread)
    pipe.mask_scheduler.save_pretrained(folder / "mask_scheduler")
    for c, (common, own) in zip(CLASSES, spread, strict=True):
        print(f"{c.name:26}  {common:.3f}  {own:.3f}")


def tell_latents(pipe: GuideGenPipeline, folder: Path, components: torch.Tensor) -> None:
    spread = LatentSpread(len(components), components.shape[2], components.shape[1])
    spread.components.copy_(components)
    spread.save_pretrained(folder / "latent_spread")
    index = json.loads((folder / "model_index.json").read_text())
    index["latent_spread"] = ["guidegen_diffusers", "LatentSpread"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def main() -> None:
    args = parse_args()
    pipe, cases = GuideGenPipeline.from_pretrained(args.model), CaseDataset(args.data_dir, args.split)
    if len(cases) < FEWEST:
        raise SystemExit(f"--data_dir: {args.data_dir} holds {len(cases)} cases, expected {FEWEST} or more.")
    networks = {"volumes": pipe.mask_unet, "latents": pipe.unet}
    found = [name for name in args.of if networks[name] is not None]
    if not found:
        raise SystemExit(f"--model: {args.model} has no networks of {', '.join(args.of)}.")
    if "volumes" in found:
        tell_volumes(pipe, args.model, volume_spread(volume_residuals(pipe, cases, args.count)))
    if "latents" in found:
        tell_latents(pipe, args.model, principal(latent_residuals(pipe, cases, args.count), args.components))


if __name__ == "__main__":
    main()
