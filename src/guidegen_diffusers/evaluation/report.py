"""The report of an evaluation: `report.json` for programs, `report.md` for people, plots and pictures beside it."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics import FOUND
from ..prompts import SITES
from .case_set import CaseSet


__all__ = ["check_free", "write_report"]

REPORT = "report.json"
REAL, SYNTHETIC = "#8fa3b8", "#e07b39"  # colours of the two sets


def check_free(output: str | os.PathLike, overwrite: bool = False) -> None:
    """Raise where `write_report` would refuse to write."""
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"{output}: this is a file, expected a folder for a report.")
    if output.exists() and any(output.iterdir()):
        if not (output / REPORT).is_file():
            raise FileExistsError(f"{output}: holds other files, expected a new folder for a report.")
        if not overwrite:
            raise FileExistsError(f"{output}: holds a report already; pass overwrite to replace it.")


def write_report(
    output: Path,
    report: dict[str, Any],
    rows: dict[str, list[dict[str, Any]]],
    made: CaseSet,
    pictures: int,
    overwrite: bool = False,
) -> None:
    """Write the folder complete or not at all; `rows` are the figures of each case, `made` the synthetic set."""
    check_free(output, overwrite)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.parent / f".{output.name}.{uuid.uuid4().hex[:8]}.partial"
    partial.mkdir()
    try:
        plots = draw_plots(partial, report, rows)
        shown = draw_cases(partial, rows["synthetic"], made, pictures)
        text = json.dumps({**report, "cases": rows}, indent=1, allow_nan=False)
        (partial / REPORT).write_text(text + "\n", encoding="utf-8")
        (partial / "report.md").write_text(as_markdown(report, plots, shown), encoding="utf-8")
        if output.exists():
            shutil.rmtree(output)
        os.replace(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


# -------------------------------------------------------------------------------------------------------------- words


def as_markdown(report: dict[str, Any], plots: list[str], shown: list[tuple[str, str, str]]) -> str:
    """What the figures say, one section a question."""
    sets = report["sets"]
    lines = ["# Synthetic against real", ""]
    lines += table(
        ["set", "cases", "without CT", "grid", "folder"],
        [[which, s["cases"], s["without_ct"], s["grid"], s["folder"]] for which, s in sets.items()],
    )
    for network in report["networks"]:
        lines += [f"Network: {network['name']}, version {network['version']}, reads {network['reads']}.", ""]
    lines += ["Figures of a network may be compared with those of the same network, version and counts only.", ""]
    lines += ["## Prompts and tumours", ""]
    names = {
        "as_prompted": "site as prompted",
        "as_prompted_tumors": "site as prompted, where a tumour was",
        "no_tumor_where_none_was_asked_for": "no tumour where none was asked for",
        "one_tumor_where_one_was_asked_for": "one tumour where one was asked for",
    }
    prompts = report["prompts"]
    lines += table(
        ["", "synthetic", "real"],
        [[words, share(prompts["synthetic"][key]), share(prompts["real"][key])] for key, words in names.items()],
    )
    anatomy = report["anatomy"]
    lines += ["## Anatomy", ""]
    lines += table(
        ["organ", "present", "real", "ml, mean (sd)", "real", "ratio", "KS"],
        [
            [
                words(name),
                f"{100 * row['synthetic_present']:.1f} %",
                f"{100 * row['real_present']:.1f} %",
                spread(row, "synthetic"),
                spread(row, "real"),
                ratio(row),
                number(row["ks"], ".2f"),
            ]
            for name, row in anatomy["volumes_ml"].items()
        ],
    )
    stray, heart = anatomy["stray"], anatomy["cardiothoracic_ratio"]
    lines += [f"Stray fragments: {percent(stray['synthetic'])} of organ voxels (real {percent(stray['real'])})."]
    lines += [f"Cardiothoracic ratio: {spread(heart, 'synthetic', '.2f')} (real {spread(heart, 'real', '.2f')}).", ""]
    if "intensity" in report:
        lines += intensity_section(report["intensity"])
    if "reading" in report:
        lines += reading_section(report["reading"])
    if "patients" in report:
        lines += patient_section(report["patients"])
    lines += distance_section(report)
    if "copies" in report:
        lines += ["## Copies of training cases", ""]
        lines += ["Nearer to a training case than all but the nearest real, held-out cases:", ""]
        lines += table(
            ["distance of", "cases", "share", "expected", "p", "median", "median of real"],
            [
                [
                    name,
                    c["cases"],
                    percent(c["share"]),
                    percent(c["expected"]),
                    f"{c['p_value']:.2g}",
                    f"{c['median']:.3g}",
                    f"{c['median_of_real']:.3g}",
                ]
                for name, c in report["copies"].items()
            ],
        )
    if plots or shown:
        lines += ["## Pictures", ""]
    lines += [f"![{name}]({name})\n" for name in plots]
    lines += [f"{caption}\n\n![{name}]({file})\n" for name, file, caption in shown]
    return "\n".join(lines).rstrip() + "\n"


def intensity_section(intensity: dict[str, Any]) -> list[str]:
    lines = table(
        ["organ", "mean HU (sd)", "real", "difference", "KS"],
        [
            [
                words(name),
                spread(row, "synthetic", ".0f"),
                spread(row, "real", ".0f"),
                difference(row),
                number(row["ks"], ".2f"),
            ]
            for name, row in intensity["mean_hu"].items()
        ],
    )
    contrast, emphysema = intensity["tumor_contrast"], intensity["emphysema_share"]
    return [
        "## Intensity",
        "",
        *lines,
        f"Tumours that stand out from their organ as real ones do: {share(contrast['sign_as_real'])}.",
        f"%LAA-950: {percent(emphysema['synthetic'], 2)} (real {percent(emphysema['real'], 2)}).",
        "",
    ]


def reading_section(reading: dict[str, Any]) -> list[str]:
    mean = reading["mean_organ_dice"]
    lines = ["## Does the CT show the label map?", "", "A segmenter's reading of the CT against the labels.", ""]
    lines += table(
        ["class", "Dice", "real", "HD95, mm", "real"],
        [
            [
                words(name),
                number(row["synthetic"], ".3f"),
                number(row["real"], ".3f"),
                number(reading["hd95"][name]["synthetic"], ".1f"),
                number(reading["hd95"][name]["real"], ".1f"),
            ]
            for name, row in reading["dice"].items()
        ],
    )
    means = f"{mean['synthetic']:.3f} (real {mean['real']:.3f}, ratio {mean['ratio']:.2f})"
    return [*lines, f"Mean Dice of the organs: {means}. A class that is missed counts 1000 mm.", ""]


def patient_section(patients: dict[str, Any]) -> list[str]:
    lines = [
        "## Does the CT show the patient?",
        "",
        "What a classifier reads off the CT against what was asked for.",
        "",
    ]
    head = ["attribute", "read right", "by chance", "real", "by chance"]
    rows = []
    for name, row in patients.items():
        cells = [[share(row[which]), percent(row[f"{which}_chance"])] for which in ("synthetic", "real")]
        rows.append([name, *cells[0], *cells[1]])
    return [*lines, *table(head, rows), "Chance is always naming the commonest value of the set.", ""]


def distance_section(report: dict[str, Any]) -> list[str]:
    rows = []
    for name, d in report.get("distances", {}).items():
        rows.append([f"Fréchet, {name}", number(d["frechet"], ".3g"), "", f"{d['counts'][0]}, {d['counts'][1]}"])
        rows.append([f"MMD, {name}", number(d["mmd"], ".3g"), "", f"{d['counts'][0]}, {d['counts'][1]}"])
        if half := d.get("halves"):
            for key, title in (("frechet", "Fréchet"), ("mmd", "MMD")):
                of_real = number(half[f"{key}_of_real"], ".3g")
                rows.append([f"{title}, {name}, halves", number(half[key], ".3g"), of_real, f"{half['count']} each"])
    if lpips := report.get("lpips"):
        for name in ("ct", "labels"):
            if name in lpips:
                of_real = number(lpips[f"{name}_of_real"], ".3f")
                pairs = f"{lpips['count']} pairs {lpips['pairs']}"
                rows.append([f"{lpips['network']}, {name}", number(lpips[name], ".3f"), of_real, pairs])
    if fid := report.get("fid"):
        for plane, value in {"mean of planes": fid["mean"], **fid["planes"]}.items():
            rows.append([f"FID, {plane}", number(value, ".2f"), "", f"{fid['slices'].get(plane, 'all')} slices"])
    if fvd := report.get("fvd"):
        rows.append(["FVD", number(fvd["frechet"], ".1f"), "", f"{fvd['counts'][0]}, {fvd['counts'][1]}"])
    head = ["distance", "synthetic to real", "real to real", "cases"]
    return ["## Distances of the sets", "", *table(head, rows)] if rows else []


def table(head: list[str], rows: list[list[Any]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [*("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines), ""]


def words(name: str) -> str:
    return name.replace("_", " ")


def number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def share(value: dict[str, Any] | None) -> str:
    return "-" if value is None else f"{percent(value['share'])} of {value['of']}"


def spread(row: dict[str, Any], which: str, form: str = ".1f") -> str:
    sd = row[f"{which}_sd"]
    return number(row[which], form) + ("" if sd is None else f" ({sd:{form}})")


def ratio(row: dict[str, Any]) -> str:
    return number(row["synthetic"] / row["real"] if row["synthetic"] and row["real"] else None, ".2f")


def difference(row: dict[str, Any]) -> str:
    both = row["synthetic"] is not None and row["real"] is not None
    return number(row["synthetic"] - row["real"] if both else None, "+.0f")


# ----------------------------------------------------------------------------------------------------------- pictures


def draw_plots(folder: Path, report: dict[str, Any], rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Prompted against found sites, and the distributions of volumes, HU and Dice of both sets."""
    plots = []
    matrix = np.array(report["prompts"]["synthetic"]["site_matrix"])
    if matrix.any():
        draw_matrix(matrix).savefig(folder / "sites.png")
        plots.append("sites.png")
    for key, title in (("volumes", "volume, ml"), ("hu", "mean HU"), ("dice", "Dice of the reading with the labels")):
        if all(key in row for which in rows for row in rows[which]):
            name = f"{key}.png"
            draw_distributions(rows, key, title).savefig(folder / name)
            plots.append(name)
    return plots


def draw_matrix(matrix: np.ndarray):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.imshow(matrix / np.maximum(matrix.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(FOUND)), [words(site) for site in FOUND], rotation=60, ha="right")
    axes.set_yticks(range(len(SITES)), [words(site) for site in SITES])
    axes.set(xlabel="found", ylabel="prompted")
    for i, j in np.argwhere(matrix):
        dark = matrix[i, j] > matrix[i].sum() / 2
        axes.text(j, i, matrix[i, j], ha="center", va="center", color="white" if dark else "black", fontsize=8)
    return figure


def draw_distributions(rows: dict[str, list[dict[str, Any]]], key: str, title: str):
    """One small box plot a class, the real set's beside the synthetic one's."""
    from matplotlib.figure import Figure

    names = [name for name in rows["real"][0]["volumes"] if any(row[key].get(name) for row in rows["real"])]
    columns = 5
    figure = Figure(figsize=(2.4 * columns, 1.9 * -(-len(names) // columns)), dpi=110, layout="constrained")
    figure.suptitle(f"{title}: real (left), synthetic (right)")
    grid = figure.subplots(-(-len(names) // columns), columns, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        values = [[row[key][name] for row in rows[which] if row[key].get(name)] for which in rows]
        boxes = axes.boxplot(values, widths=0.7, patch_artist=True, flierprops={"markersize": 2})
        for box, color in zip(boxes["boxes"], (REAL, SYNTHETIC), strict=True):
            box.set_facecolor(color)
        for line in boxes["medians"]:
            line.set_color("black")
        axes.set_title(words(name), fontsize=9)
        axes.set_xticks([])
        axes.tick_params(labelsize=7)
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    return figure


def draw_cases(folder: Path, rows: list[dict[str, Any]], made: CaseSet, count: int) -> list[tuple[str, str, str]]:
    """Previews of the worst and best cases: by how well a segmenter reads the CT, else by stray fragments."""

    def quality(row: dict[str, Any]) -> float:
        return float(np.mean(list(row["dice"].values()))) if row.get("dice") else -row["stray"]

    order = sorted(range(len(rows)), key=lambda i: quality(rows[i]))
    count = min(count, len(rows) // 2)
    measure = "mean Dice of the reading" if rows[0].get("dice") else "stray fragments"
    shown = []
    for title, places in (("worst", order[:count]), ("best", order[len(order) - count :][::-1])):
        for rank, i in enumerate(places, 1):
            file = f"{title}_{rank}.png"
            made[i].preview().save(folder / file)
            shown.append((rows[i]["name"], file, f"{title}, {rows[i]['name']}: {measure} {abs(quality(rows[i])):.3f}"))
    return shown
