"""Measure a trained pipeline against the torso world: phantoms of the test seeds, which no training has seen.

Each prompt asks for one site, the rest is drawn; the phantom of the same prompt and seed stands beside the generated
case. A line is written for every case, so that a run that was stopped goes on; the table comes from all lines.

    python examples/measure_pipeline.py --model out/torso-6mm --per_site 20 --output out/measured.json \\
        --segmenter out/segmenter/segmenter --free_text tests/prompts/free_text.jsonl
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from guidegen_diffusers import (
    Case,
    ClinicalPrompt,
    GuideGenPipeline,
    Segmenter3D,
    TorsoPhantom,
    codebook_use,
    find_site,
)
from guidegen_diffusers.labels import CLASSES, TUMOR
from guidegen_diffusers.metrics import dice, mean_hu, organ_volumes, stray_fraction, tumor_contrast
from guidegen_diffusers.phantom import SEEDS
from guidegen_diffusers.prompts import SITES


ORGANS = [c.name for c in CLASSES[1:TUMOR]]
WINDOWS = {"lung": (-1000, -400), "abdomen": (-150, 250), "bone": (250, 1500)}  # HU


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure a pipeline on prompts of the test seeds.")
    parser.add_argument("--model", required=True, help="folder or Hub id of a pipeline")
    parser.add_argument("--output", type=Path, required=True, help="JSON of figures; the cases go beside it")
    parser.add_argument("--per_site", type=int, default=20, help="prompts of each site, of no tumour too")
    parser.add_argument("--first_seed", type=int, default=0, help="place in the test seeds")
    parser.add_argument("--free_text", type=Path, help="JSONL of texts and their sites, one case each")
    parser.add_argument("--segmenter", help="folder of the segmenter that reads the CT")
    parser.add_argument("--reconstructions", type=int, default=20, help="phantoms that the autoencoder decodes")
    parser.add_argument("--only", choices=("mask",), help="mask: leave the CT out")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--mask_steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--mask_guidance", type=float)
    parser.add_argument("--scattered", action="store_true", help="draw tumours voxel by voxel, not in one piece")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


# ------------------------------------------------------------------------------------------------------- one case


def tasks(args: argparse.Namespace) -> list[dict]:
    """A name, a text, the sites that may be shown and a seed for each case."""
    found = []
    for i in range(args.per_site * len(SITES)):
        site, seed = SITES[i % len(SITES)], SEEDS["test"][args.first_seed + i]
        prompt = ClinicalPrompt(sites=frozenset({site})).resolve(torch.Generator().manual_seed(seed))
        found.append({"name": f"canonical-{i}", "text": prompt.render(), "sites": [site], "seed": seed})
    if args.free_text:
        for i, line in enumerate(args.free_text.read_text().splitlines()):
            row = json.loads(line)
            seed = SEEDS["test"][args.first_seed + 100_000 + i]
            found.append({"name": f"free-{i}", "text": row["text"], "sites": row["sites"], "seed": seed})
    return found


def figures(case: Case, segmenter: Segmenter3D | None) -> dict:
    """What is measured of a case, generated or phantom."""
    findings = find_site(case.labels, case.affine)
    out = {
        "site": findings.site,
        "tumors": findings.count,
        "volumes": organ_volumes(case.labels, case.affine),
        "stray": stray_fraction(case.labels),
    }
    if case.ct is not None:
        out |= {
            "hu": mean_hu(case.ct, case.labels),
            "contrast": tumor_contrast(case.ct, case.labels, float(case.grid.spacing[0])),
        }
        if segmenter is not None:
            read = segmenter.segment(torch.from_numpy(case.ct)[None].to(segmenter.device))[0].cpu().numpy()
            out["dice"] = dice(read, case.labels)
    return out


def reconstruction(pipe: GuideGenPipeline, phantom: TorsoPhantom, args: argparse.Namespace) -> dict[str, float]:
    """MAE in HU of the autoencoder overall and in three windows, and the use of its codes."""
    vae, errors, indices = pipe.vae, {name: [] for name in ("all", *WINDOWS)}, []
    scale = vae.config.hu_scale
    for i in tqdm(range(args.reconstructions), "reconstructions"):
        ct = phantom.sample(None, SEEDS["test"][args.first_seed + 200_000 + i]).ct
        x = torch.from_numpy(ct.astype(np.float32)).clamp(-scale, scale)
        with torch.no_grad():
            out = vae((x / scale)[None, None].to(vae.device, vae.dtype))
        away = (out.sample[0, 0].float().cpu() * scale - x).abs()
        indices.append(out.indices.flatten().cpu())
        errors["all"].append(away.mean().item())
        for name, (low, high) in WINDOWS.items():
            errors[name].append(away[(x >= low) & (x < high)].mean().item())
    share, perplexity = codebook_use(torch.cat(indices), vae.config.num_codes)
    return {f"mae_{name}": float(np.mean(v)) for name, v in errors.items()} | {
        "codes": share,
        "perplexity": perplexity,
    }


# -------------------------------------------------------------------------------------------------------- the table


def agreement(signs: list[bool], sites: list[str]) -> float | None:
    """How often two cases of one site have one sign, over all their pairs, sites weighed by their cases.

    Scan phases turn the sign of a kidney's tumour, and what the bowel holds that of a colon's, so that even two
    phantoms of a site differ. None where no site has two cases.
    """
    found, cases = 0.0, 0
    for site in sorted(set(sites)):
        own = [sign for sign, place in zip(signs, sites, strict=True) if place == site]
        bright, dark = own.count(True), own.count(False)
        if len(own) > 1:
            found += (bright * (bright - 1) + dark * (dark - 1)) / (len(own) - 1)
            cases += len(own)
    return found / cases if cases else None


def table(rows: list[dict], reconstructed: dict[str, float]) -> dict[str, str]:
    """The figures that are asked for, with their counts."""
    canonical = [row for row in rows if row["name"].startswith("canonical")]
    free = [row for row in rows if row["name"].startswith("free")]
    out = {}

    def share(hits: list[bool]) -> str:
        return f"{100 * np.mean(hits):.1f} % of {len(hits)}"

    if free:
        out["site as prompted, free text"] = share([row["made"]["site"] in row["sites"] for row in free])
    if not canonical:
        return out
    asked = [row for row in canonical if row["sites"] != ["none"]]
    healthy = [row for row in canonical if row["sites"] == ["none"]]
    out["site as prompted, all"] = share([row["made"]["site"] in row["sites"] for row in canonical])
    out["site as prompted, tumours"] = share([row["made"]["site"] in row["sites"] for row in asked])
    out["no tumour where none was asked for"] = share([row["made"]["tumors"] == 0 for row in healthy])
    present = {name: np.mean([row["made"]["volumes"][name] > 0 for row in canonical]) for name in ORGANS}
    least = min(present, key=present.get)
    out["organ present, the rarest"] = f"{100 * present[least]:.1f} % ({least})"
    means = {
        side: {name: np.mean([row[side]["volumes"][name] for row in canonical]) for name in ORGANS}
        for side in ("made", "phantom")
    }
    ratios = {name: means["made"][name] / means["phantom"][name] for name in ORGANS}
    outside = [name for name, ratio in ratios.items() if abs(ratio - 1) > 0.1]
    out["organ volume, mean over the phantoms'"] = (
        f"{min(ratios.values()):.2f} to {max(ratios.values()):.2f}, outside 10 %: {', '.join(outside) or 'none'}"
    )
    for side, whose in (("made", "generated"), ("phantom", "phantoms")):
        out[f"stray fragments, {whose}"] = f"{100 * np.mean([row[side]['stray'] for row in canonical]):.2f} %"
    sizes = {side: [row[side]["volumes"]["tumor"] for row in asked] for side in ("made", "phantom")}
    out["tumour volume, median"] = f"{np.median(sizes['made']):.0f} ml (phantoms {np.median(sizes['phantom']):.0f})"
    out["tumour volume, mean over the phantoms'"] = f"{np.sum(sizes['made']) / np.sum(sizes['phantom']):.2f}"
    if all("hu" in row["made"] for row in canonical):
        hu = {
            side: {
                name: np.mean([row[side]["hu"][name] for row in canonical if name in row[side]["hu"]])
                for name in ORGANS
            }
            for side in ("made", "phantom")
        }
        away = {name: hu["made"][name] - hu["phantom"][name] for name in ORGANS}
        worst = max(away, key=lambda name: abs(away[name]))
        out["mean HU of an organ, furthest from the phantoms'"] = f"{away[worst]:+.1f} HU ({worst})"
        far = [f"{name} {hu:+.0f}" for name, hu in away.items() if abs(hu) > 15]
        out["off by more than 15 HU"] = f"{len(far)} of {len(ORGANS)}: {', '.join(far) or 'none'}"
        pairs = [(row["made"]["contrast"], row["phantom"]["contrast"], row["sites"][0]) for row in asked]
        pairs = [pair for pair in pairs if None not in pair]
        out["tumour contrast of the phantom's sign"] = share([a * b > 0 for a, b, _ in pairs])
        alike = agreement([b > 0 for _, b, _ in pairs], [site for *_, site in pairs])
        if alike is not None:
            out["tumour contrast of one sign in two phantoms of a site"] = f"{100 * alike:.1f} %"
    if all("dice" in row["made"] for row in canonical):
        scores = {
            side: np.mean([np.mean([v for k, v in row[side]["dice"].items() if k in ORGANS]) for row in canonical])
            for side in ("made", "phantom")
        }
        out["Dice of a segmenter's reading with the labels, organs"] = (
            f"{scores['made']:.3f}, phantoms {scores['phantom']:.3f}, ratio {scores['made'] / scores['phantom']:.2f}"
        )
    names = {"mae_all": "MAE of reconstruction", "mae_lung": "in the lung window", "mae_abdomen": "in the abdomen's"}
    names |= {"mae_bone": "in the bone's"}
    out |= {f"{names[key]}": f"{value:.1f} HU" for key, value in reconstructed.items() if key in names}
    if reconstructed:
        out["codes in use"] = f"{100 * reconstructed['codes']:.0f} %, perplexity {reconstructed['perplexity']:.0f}"
    out["seconds a case, median"] = f"{np.median([row['seconds'] for row in rows]):.1f}"
    return out


def main() -> None:
    args = parse_args()
    pipe = GuideGenPipeline.from_pretrained(args.model, dtype=getattr(torch, args.dtype)).to(args.device)
    pipe.set_progress_bar_config(disable=True)
    if args.scattered:
        pipe.mask_scheduler.register_to_config(whole_class=None)
    segmenter = Segmenter3D.from_pretrained(args.segmenter).eval().to(args.device) if args.segmenter else None
    phantom = TorsoPhantom(pipe.sample_size, pipe.config.spacing)
    names = ("num_inference_steps", "mask_num_inference_steps", "guidance_scale", "mask_guidance_scale")
    settings = dict(zip(names, (args.steps, args.mask_steps, args.guidance, args.mask_guidance), strict=True))
    settings = {name: value for name, value in settings.items() if value is not None}

    log = args.output.with_suffix(".cases.jsonl")
    log.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {row["name"] for row in rows}
    with log.open("a") as file:
        for task in tqdm([task for task in tasks(args) if task["name"] not in done], "cases"):
            started = time.monotonic()
            made = pipe(
                task["text"],
                output=args.only or "pair",
                generator=torch.Generator().manual_seed(task["seed"]),
                **settings,
            )
            seconds = time.monotonic() - started
            beside = phantom.sample(made.prompts[0], task["seed"], ct=args.only is None)
            row = task | {
                "seconds": seconds,
                "made": figures(made.cases[0], segmenter),
                "phantom": figures(beside, segmenter),
            }
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
    reconstructed = {} if args.only or not args.reconstructions else reconstruction(pipe, phantom, args)
    card = table(rows, reconstructed)
    settings |= {"whole_class": pipe.mask_scheduler.config.whole_class}
    settings = {"settings": settings, "dtype": args.dtype, "first_seed": SEEDS["test"][args.first_seed]}
    args.output.write_text(json.dumps({"card": card, **settings}, indent=2) + "\n")
    width = max(map(len, card))
    print("\n".join(f"{name:{width}}  {value}" for name, value in card.items()))


if __name__ == "__main__":
    main()
