"""How much cases vary beside what a pipeline's networks are told: what its first steps draw.

Stage I, volumes of organs and tumour beside what the text says of them (the mask scheduler's `volume_spread`):

    R_k = log(voxels of class k in a case / voxels that the mask network expects of it at t = T, from the text alone)

is a common part of all organs, as the size of a body is, and a part of each class's own: the first factor of the
organs' correlations and what it leaves. The scheduler draws volumes with this spread and keeps them (`keep_volumes`);
without it they are all what one expects.

Stage III, mean latents of the classes beside what label map and text say of them (the pipeline's `latent_spread`):

    R_kc = mean of channel c over the cells of class k, in a case - in what the U-Net expects of it at t = T

are mostly scan phases, gas and fat: a few principal components. The first step of the CT moves by a draw of them, and
by what is missing on average: the mean of R, and what `--painted` cases still miss of their HU once they are painted
with their own draw, on drawn label maps and on their own ones, the former with a weight of `--drawn_share`. HU become
latents as they go together from case to case; what comes of it the next of `--rounds` tells.
The pipeline's folder is told in place; no weight of a network changes.

    python examples/measure_spread.py --model out/torso-6mm --data_dir out/phantoms
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from guidegen_diffusers import Case, CaseDataset, GuideGenPipeline, LatentSpread
from guidegen_diffusers.labels import CLASSES, NUM_CLASSES, TUMOR, split_tumor
from guidegen_diffusers.metrics import mean_hu
from guidegen_diffusers.models.latent_spread import class_means, class_shares


FEWEST = 30  # cases


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure how cases vary beside what is said, and tell the pipeline.")
    parser.add_argument("--model", type=Path, required=True, help="folder of a pipeline")
    parser.add_argument("--data_dir", type=Path, required=True, help="a data set on its grid")
    parser.add_argument("--split", default="train")
    parser.add_argument("--of", choices=("volumes", "latents"), nargs="+", default=["volumes", "latents"])
    parser.add_argument("--components", type=int, default=6, help="of the latents")
    parser.add_argument("--count", type=int, default=300, help="the first so many cases")
    parser.add_argument("--painted", type=int, default=30, help="of them, painted for what their HU miss on average")
    parser.add_argument("--rounds", type=int, default=3, help="of painting, each with what was found before")
    parser.add_argument("--drawn_share", type=float, default=0.5, help="weight of drawn label maps; own: the rest")
    args = parser.parse_args()
    if args.count < FEWEST:
        parser.error(f"--count: got {args.count}, expected {FEWEST} or more; a spread of fewer cases is noise.")
    if not 0 <= args.drawn_share <= 1:
        parser.error(f"--drawn_share: got {args.drawn_share}, expected 0 (own label maps alone) to 1 (drawn ones).")
    return args


def on_grid(case: Case, pipe: GuideGenPipeline) -> Case:
    if case.labels.shape != pipe.sample_size:
        raise SystemExit(f"--data_dir: {case.labels.shape} voxels a case, expected {pipe.sample_size}.")
    return case


@torch.no_grad()
def volume_residuals(pipe: GuideGenPipeline, cases: CaseDataset, count: int) -> tuple[np.ndarray, np.ndarray]:
    """R (cases, N), NaN where a case has nothing of a class, and the voxels that were expected (cases, N)."""
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
            rows.append((np.where(voxels > 0, np.log(voxels / expected), np.nan), expected))
    away, expected = (np.array(column) for column in zip(*rows, strict=True))
    return away, expected


def volume_spread(away: np.ndarray, expected: np.ndarray) -> list[list[float]]:
    """Two standard deviations of each class, (N, 2), from R (cases, N): of the common factor, and of its own.

    Small tumours vary twice as much as large ones. Each counts as much as is expected of it: by the spread of small
    ones, large ones would come out larger than any.
    """
    spread = np.zeros((NUM_CLASSES, 2))
    shown = ~np.isnan(away[:, TUMOR])
    if shown.any():
        tumors, weights = away[shown, TUMOR], expected[shown, TUMOR]
        middle = np.average(tumors, weights=weights)
        spread[TUMOR, 1] = np.sqrt(np.average((tumors - middle) ** 2, weights=weights))
    organs = away[:, 1:TUMOR]
    whole = organs[~np.isnan(organs).any(1)]  # the factor is of cases that have all organs
    deviation = whole.std(0)
    values, vectors = np.linalg.eigh(np.corrcoef(whole.T))
    load = np.sqrt(values[-1]) * vectors[:, -1]
    load = np.clip(load * np.sign(load.sum()), 0, 1)
    spread[1:TUMOR] = np.stack([deviation * load, deviation * np.sqrt(1 - load**2)], axis=1)
    return np.round(spread, 3).tolist()


@torch.no_grad()
def latent_residuals(pipe: GuideGenPipeline, cases: CaseDataset, count: int) -> list[torch.Tensor]:
    """R (cases, N, C), mean latents (cases, N, C) and mean HU (cases, N); NaN where a case has nothing of a class."""
    scheduler, rows = pipe.scheduler, []
    last, limit = scheduler.config.num_train_timesteps - 1, pipe.vae.config.hu_scale
    scheduler.set_timesteps(1)
    for i in tqdm(range(min(count, len(cases))), "latents"):
        case = on_grid(cases.case(i), pipe)
        if case.ct is None:
            raise SystemExit(f"--data_dir: case {i} has no CT, expected one; or pass --of volumes.")
        ct = torch.from_numpy(case.ct.astype(np.float32)).clamp(-limit, limit) / limit
        latents = pipe.vae.encode(ct[None, None]).latents * pipe.vae.config.scaling_factor
        organs, tumor = (torch.from_numpy(part)[None] for part in split_tumor(case.labels))
        semantic = pipe.semantic_encoder(organs, tumor).latents
        text, attention = pipe.encode_prompt(case.prompt, do_classifier_free_guidance=False)[:2]
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(i))
        output = pipe.unet(torch.cat([noise, semantic], 1), torch.tensor(last), text, attention).sample
        expected = scheduler.step(output, last, noise).pred_original_sample
        shares = class_shares(torch.from_numpy(case.labels)[None], latents.shape[2:])
        means = class_means(latents, shares)[0]
        rows.append((means - class_means(expected, shares)[0], means, class_hu(case.ct, case.labels)))
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def class_hu(ct: np.ndarray, labels: np.ndarray) -> torch.Tensor:
    """Mean HU of each class, (N,); NaN where there is none of it."""
    found = mean_hu(ct, labels)
    return torch.tensor([found.get(c.name, torch.nan) for c in CLASSES])


def latents_a_hu(means: torch.Tensor, hu: torch.Tensor) -> torch.Tensor:
    """How mean latents (cases, N, C) go with mean HU (cases, N) from case to case, the least squares' slope (N, C)."""
    away = hu - hu.nanmean(0)
    slope = ((means - means.nanmean(0)) * away[..., None]).nansum(0) / away.square().nansum(0)[:, None]
    return slope.nan_to_num(posinf=0, neginf=0)


def principal(away: torch.Tensor, count: int) -> LatentSpread:
    """The mean of R (cases, N, C), and its first principal components, each as long as its standard deviation."""
    mean = away.nanmean(0).nan_to_num()
    centred = (away - mean).nan_to_num().flatten(1)  # what is absent does not vary
    _, scale, vectors = torch.linalg.svd(centred, full_matrices=False)
    whole, scale, vectors = scale.square().sum(), scale[:count], vectors[:count]
    print(f"{len(scale)} components hold {100 * scale.square().sum() / whole:.0f} % of how latents vary")
    spread = LatentSpread(len(scale), away.shape[2], away.shape[1])
    spread.components.copy_((scale[:, None] * vectors / len(away) ** 0.5).view(-1, *away.shape[1:]))
    spread.mean.copy_(mean)
    return spread


@torch.no_grad()
def missing(pipe: GuideGenPipeline, cases: CaseDataset, spread: LatentSpread, centred: torch.Tensor) -> torch.Tensor:
    """Mean HU (2, N) of cases, whose R less its mean are `centred`, less those of CT painted with their own draw: on
    their own label maps, and on ones drawn from their texts."""
    own = LatentSpread(1, centred.shape[2], centred.shape[1])  # draws nothing: its mean is a case's own
    pipe.register_modules(latent_spread=own)
    pipe.set_progress_bar_config(disable=True)
    rows, directions = [], spread.components.flatten(1)
    for i in tqdm(range(len(centred)), "painted"):
        case = cases.case(i)
        eps = centred[i].nan_to_num().flatten() @ directions.T / directions.square().sum(1)
        own.mean.copy_(spread.mean + (eps @ directions).view_as(own.mean))
        made = [
            pipe(case.prompt, mask=mask, generator=torch.Generator().manual_seed(i)).cases[0] for mask in (case, None)
        ]
        truth = class_hu(case.ct, case.labels)
        rows.append(torch.stack([truth - class_hu(painted.ct, painted.labels) for painted in made]))
    return torch.stack(rows).nanmean(0).nan_to_num()


def asked_for(dark: torch.Tensor, before: torch.Tensor | None, asked: torch.Tensor | None) -> torch.Tensor:
    """HU (N,) to ask latents for where `dark` are missing, and `before` were when `asked` had been asked for.

    A secant: classes that gave half of it are asked for twice as much, four times at most; those that gave a tenth or
    less do not follow their latents and are left alone.
    """
    if asked is None:
        return dark
    gain = ((before - dark) / asked).nan_to_num(posinf=0, neginf=0)
    return torch.where(gain > 0.1, dark / gain.clamp(0.25, 1), 0)


def tell_volumes(pipe: GuideGenPipeline, folder: Path, spread: list[list[float]]) -> None:
    pipe.mask_scheduler.register_to_config(keep_volumes=True, volume_spread=spread)
    pipe.mask_scheduler.save_pretrained(folder / "mask_scheduler")
    for c, (common, own) in zip(CLASSES, spread, strict=True):
        print(f"{c.name:26}  {common:.3f}  {own:.3f}")


def tell_latents(folder: Path, spread: LatentSpread) -> None:
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
    if "latents" in found and pipe.scheduler.config.prediction_type == "epsilon":
        raise SystemExit(
            "--of latents: the CT's scheduler predicts epsilon, expected v_prediction or sample: of noise alone "
            "epsilon says no x_0; pass --of volumes."
        )
    if "volumes" in found:
        tell_volumes(pipe, args.model, volume_spread(*volume_residuals(pipe, cases, args.count)))
    if "latents" in found:
        away, means, hu = latent_residuals(pipe, cases, args.count)
        spread = principal(away, args.components)
        slope, centred = latents_a_hu(means, hu), away[: args.painted] - away.nanmean(0)
        before = asked = None
        for k in range(args.rounds):
            own, drawn = missing(pipe, cases, spread, centred)
            told = [f"{c.name} {own[c.id]:+.0f} {drawn[c.id]:+.0f}" for c in CLASSES[1:]]
            print(f"round {k + 1}, missing HU on own and on drawn label maps: {', '.join(told)}", flush=True)
            dark = torch.lerp(own, drawn, args.drawn_share)
            before, asked = dark, asked_for(dark, before, asked)
            spread.mean += slope * asked[:, None]
        tell_latents(args.model, spread)


if __name__ == "__main__":
    main()
