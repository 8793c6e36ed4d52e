"""Are synthetic cases of use? The same small segmenter is trained on real cases, on synthetic ones and on both, and
tested on real cases that neither has seen (GuideGen's Dice and HD95 tables).

Every run is `train_segmenter.py` as it stands, so many steps whatever the data, on a set that links the first so many
cases of each source; figures are means over the organs and the tumour's own, over seeds. A line is written for every
run, so that a study that was stopped goes on; the table, and the paired test over test cases, come from all lines.

    guidegen phantom --count 100 --output sets/real
    guidegen phantom --count 40 --split test --output sets/held-out
    guidegen synthesize --count 1000 --balance sites --output sets/made
    python examples/evaluate_usability.py --real sets/real/train --synthetic sets/made/train \\
        --test sets/held-out/test --real_counts 0 100 --synthetic_counts 0 100 200 500 1000 \\
        --seeds 3 --max_train_steps 1000 --output out/usability
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from tqdm.auto import tqdm

from guidegen_diffusers import Segmenter3D
from guidegen_diffusers.evaluation import CaseSet
from guidegen_diffusers.labels import CLASSES, TUMOR
from guidegen_diffusers.metrics import dice, hd95


SCRIPT = Path(__file__).with_name("train_segmenter.py")
ORGANS = [c.name for c in CLASSES[1:TUMOR]]
METADATA = "metadata.jsonl"
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def parse_args() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description="Train a segmenter on real cases, synthetic ones and both.",
        epilog="What is not named here goes to train_segmenter.py: --crop_size, --train_batch_size, ...",
    )
    parser.add_argument("--real", type=Path, required=True, help="a split of a data set (DIR/train)")
    parser.add_argument(
        "--synthetic", type=Path, required=True, help="a split of a data set, of `guidegen synthesize`"
    )
    parser.add_argument("--test", type=Path, required=True, help="a split of real cases that nothing was trained on")
    parser.add_argument("--real_counts", type=int, nargs="+", default=[0, 100])
    parser.add_argument("--synthetic_counts", type=int, nargs="+", default=[0, 100, 200, 500, 1000])
    parser.add_argument("--seeds", type=int, default=3, help="runs of each mixture")
    parser.add_argument("--output", type=Path, required=True, help="a folder; a study that was stopped goes on in it")
    parser.add_argument("--device", default="cpu", help="of the tests")
    parser.add_argument("--mixed_precision", choices=("no", *PRECISIONS), default="no", help="of training and tests")
    args, rest = parser.parse_known_args()
    for folder, counts in ((args.real, args.real_counts), (args.synthetic, args.synthetic_counts)):
        if not (folder / METADATA).is_file():
            parser.error(f"{folder}: holds no {METADATA}, expected a split of a data set (DIR/train).")
        there = len(CaseSet(folder))
        if max(counts) > there or min(counts) < 0:
            parser.error(f"{folder}: holds {there} cases, expected counts from 0 to that, got {counts}.")
    if (
        len({(CaseSet(folder).shape, CaseSet(folder).spacing) for folder in (args.real, args.synthetic, args.test)})
        > 1
    ):
        parser.error("--real, --synthetic, --test: lie on different grids, expected one.")
    if args.seeds < 1:
        parser.error(f"--seeds: got {args.seeds}, expected 1 or more.")
    return args, rest


def link_set(folder: Path, parts: list[tuple[str, Path, int]]) -> None:
    """A data set of the first so many cases of each part, by links; its split is train."""
    shutil.rmtree(folder, ignore_errors=True)
    rows = []
    for prefix, source, count in parts:
        for line in (source / METADATA).read_text(encoding="utf-8").splitlines()[:count]:
            row = json.loads(line)
            row["name"] = f"{prefix}_{row['name']}"
            for key, volume in (("ct_file_name", "ct"), ("labels_file_name", "labels")):
                target = folder / "train" / volume / f"{row['name']}.nii.gz"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to((source / row[key]).resolve())
                row[key] = f"{volume}/{target.name}"
            rows.append(row)
    (folder / "train" / METADATA).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def train(args: argparse.Namespace, rest: list[str], real: int, synthetic: int, seed: int) -> Path:
    """One run of the script; the folder of its segmenter."""
    folder = args.output / f"real-{real}_synthetic-{synthetic}_seed-{seed}"
    link_set(folder / "set", [("real", args.real, real), ("synthetic", args.synthetic, synthetic)])
    spacing = float(CaseSet(args.test).spacing[0])
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"]
    command += ["--cpu"] if args.device == "cpu" else []
    command += [SCRIPT, "--train_data_dir", folder / "set", "--spacing", spacing, "--seed", seed, *rest]
    command += ["--mixed_precision", args.mixed_precision]
    command += ["--output_dir", folder / "run", "--resume_from_checkpoint", "latest"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=os.environ)
    if done.returncode:
        raise SystemExit(f"{SCRIPT.name} failed on {folder.name}:\n{done.stderr.strip()[-2000:]}")
    return folder / "run" / "segmenter"


@torch.no_grad()
def test(segmenter: Segmenter3D, cases: CaseSet, precision: torch.dtype | None) -> dict[str, list[float]]:
    """Figures of each test case: means over organs, and the tumour's, where there is one; read as it was trained."""
    autocast = torch.autocast(segmenter.device.type, precision, enabled=precision is not None)
    found: dict[str, list[float]] = {name: [] for name in ("dice", "hd95", "tumor_dice", "tumor_hd95")}
    for case in cases:
        with autocast:
            made = segmenter.segment(torch.from_numpy(case.ct)[None].to(segmenter.device))[0].cpu().numpy()
        overlap, apart = dice(made, case.labels), hd95(made, case.labels, case.grid.spacing)
        present = [name for name in ORGANS if name in overlap]
        found["dice"].append(float(np.mean([overlap[name] for name in present])))
        found["hd95"].append(float(np.mean([apart[name] for name in present])))
        if (case.labels == TUMOR).any():
            found["tumor_dice"].append(overlap["tumor"])
            found["tumor_hd95"].append(apart["tumor"])
    return found


def table(rows: list[dict]) -> str:
    """Mean and spread over seeds of each mixture, and whether the synthetic cases helped beside the same real ones."""
    lines = ["| real | synthetic | Dice | HD95, mm | tumour Dice | tumour HD95, mm | p |", "|" + "---|" * 7]
    mixtures: dict[tuple[int, int], list[dict]] = {}
    for row in sorted(rows, key=lambda row: (row["real"], row["synthetic"], row["seed"])):
        mixtures.setdefault((row["real"], row["synthetic"]), []).append(row)
    for (real, synthetic), runs in mixtures.items():
        cells = []
        for key, form in (("dice", ".3f"), ("hd95", ".1f"), ("tumor_dice", ".3f"), ("tumor_hd95", ".1f")):
            means = [np.mean(run[key]) for run in runs if run[key]]
            spread = f" ({np.std(means, ddof=1):{form}})" if len(means) > 1 else ""
            cells.append(f"{np.mean(means):{form}}{spread}" if means else "-")
        p = "-"
        if synthetic and (alone := mixtures.get((real, 0))):
            pair = [np.mean([run["dice"] for run in group], axis=0) for group in (runs, alone)]
            p = f"{stats.wilcoxon(*pair).pvalue:.2g}" if np.any(pair[0] != pair[1]) else "1"
        lines.append(f"| {real} | {synthetic} | {' | '.join(cells)} | {p} |")
    return "\n".join(lines)


def main() -> None:
    args, rest = parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    log = args.output / "runs.jsonl"
    whole = log.read_text().rpartition("\n")[0].splitlines() if log.exists() else []  # less a line cut by a kill
    rows = [json.loads(line) for line in whole]
    log.write_text("".join(f"{line}\n" for line in whole))
    done = {(row["real"], row["synthetic"], row["seed"]) for row in rows}
    asked = itertools.product(args.real_counts, args.synthetic_counts, range(args.seeds))
    runs = [run for run in asked if run not in done and run[0] + run[1]]
    cases = CaseSet(args.test)
    with log.open("a") as file:
        for real, synthetic, seed in tqdm(runs, "runs"):
            folder = train(args, rest, real, synthetic, seed)
            segmenter = Segmenter3D.from_pretrained(folder).eval()
            segmenter.to(args.device, memory_format=torch.channels_last_3d)
            figures = test(segmenter, cases, PRECISIONS.get(args.mixed_precision))
            row = {"real": real, "synthetic": synthetic, "seed": seed, **figures}
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
    text = table(rows)
    (args.output / "usability.md").write_text(
        f"Tested on {len(cases)} cases; p: Wilcoxon's, paired by test case, of Dice with and without the synthetic "
        f"cases.\n\n{text}\n"
    )
    print(text)


if __name__ == "__main__":
    main()
