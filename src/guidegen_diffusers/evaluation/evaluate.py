"""`guidegen evaluate`: a synthetic set against a real one, in one report.

    case_set.py -> measure.py (each case) -> compare.py (both sets) -> report.py (report.json, report.md, pictures)

Every figure of a network stands beside the network's name, version and what it reads, and beside the same figure of
real cases among themselves.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .._version import __version__
from ..data.segmentation import nifti_stem, read_segmentation
from ..data.volume import check_same_place
from ..labels import TUMOR
from ..metrics import (
    SegmenterFeatures,
    SegmenterLPIPS,
    find_copies,
    frechet_distance,
    label_distance,
    nearest_distances,
    paint_labels,
)
from ..metrics.features import weights_version
from ..models import Classifier3D, Segmenter3D
from .case_set import CaseSet
from .compare import (
    compare_anatomy,
    compare_features,
    compare_intensity,
    compare_patients,
    compare_prompts,
    compare_readings,
)
from .measure import measure_case, read_ct, read_patient
from .report import check_free, write_report


__all__ = ["evaluate"]

SHORTLIST = 50  # training cases, nearest in features, that a case is compared with voxel by voxel
LEAST_HELD_OUT = 19  # cases, for a 5th percentile
TRAINED_BY = {"segmenter": "examples/train_segmenter.py", "classifier": "examples/train_classifiers.py"}
PAIRS = 50  # of cases that LPIPS is taken of, at most


def evaluate(
    real: str | os.PathLike,
    synthetic: str | os.PathLike,
    output: str | os.PathLike,
    *,
    segmenter: Segmenter3D | None = None,
    classifier: Classifier3D | None = None,
    train: str | os.PathLike | None = None,
    predictions: tuple[str | os.PathLike, str | os.PathLike] | None = None,
    predictions_scheme: str = "auto",
    slices=None,
    video=None,
    limit: int | None = None,
    pictures: int = 3,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Compare two sets and write `report.json`, `report.md`, plots and pictures to `output`; returns the report.

    Args:
        real, synthetic: folders of cases, see [`CaseSet`]; the real ones should be of no training.
        segmenter (`Segmenter3D`, *optional*): reads CTs, and places cases in feature space.
        classifier (`Classifier3D`, *optional*): reads age, sex, race and tumour site off what the segmenter
            measures of CTs, which must be the one that it was trained with.
        train (*optional*): the cases that the generator was trained on, for the audit of copies.
        predictions (*optional*): folders of another segmenter's readings of the real and the synthetic CTs, a label
            map a case of the same name; they take the place of the segmenter's readings.
        predictions_scheme (`str`): their ids: auto, ours, 1 or 2 (TotalSegmentator).
        slices ([`SliceFeatures`], *optional*), video ([`VideoFeatures`], *optional*): networks for FID and FVD.
        limit (`int`, *optional*): the first so many cases of each set.
        pictures (`int`): how many of the worst and of the best cases are drawn.
    """
    check_free(output, overwrite)
    sets = {"real": CaseSet(real, limit), "synthetic": CaseSet(synthetic, limit)}
    known = None if train is None else CaseSet(train)
    _check(sets, known, {"segmenter": segmenter, "classifier": classifier})
    features = None if segmenter is None else SegmenterFeatures(segmenter, segmenter.device)
    readers = dict.fromkeys(sets) if predictions is None else dict(zip(sets, predictions, strict=True))
    rows: dict[str, list[dict[str, Any]]] = {}
    for which, cases in sets.items():
        rows[which] = []
        for i, case in enumerate(tqdm(cases, f"{which} cases", total=len(cases))):
            folder, reading, patient = readers[which], None, None
            if segmenter is not None and case.ct is not None and (folder is None or classifier is not None):
                reading, measures = read_ct(segmenter, case.ct)
                patient = None if classifier is None else read_patient(classifier, measures, case)
            if folder is not None:
                reading = _prediction(Path(folder), cases.names[i], case, predictions_scheme)
            rows[which].append({"name": cases.names[i], **measure_case(case, reading, patient)})

    with_ct = all("hu" in row for which in rows for row in rows[which])
    report: dict[str, Any] = {
        "version": __version__,
        "sets": {
            which: {
                "folder": str(cases.folder),
                "cases": len(cases),
                "without_ct": sum("hu" not in row for row in rows[which]),
                "grid": cases.grid,
            }
            for which, cases in sets.items()
        },
        "networks": [
            {"name": network.name, "version": network.version, "reads": network.reads}
            for network in (features, slices, video)
            if network is not None
        ]
        + ([] if classifier is None else [_named(classifier)]),
        "prompts": {which: compare_prompts(rows[which]) for which in rows},
        "anatomy": compare_anatomy(rows["real"], rows["synthetic"]),
    }
    if with_ct:
        report["intensity"] = compare_intensity(rows["real"], rows["synthetic"])
    if all("dice" in row for which in rows for row in rows[which]):
        report["reading"] = compare_readings(rows["real"], rows["synthetic"])
    if all("patient" in row for which in rows for row in rows[which]):
        report["patients"] = compare_patients(rows["real"], rows["synthetic"])
    if features is not None:
        report |= _in_features(sets, known, features, with_ct)
        report["lpips"] = _lpips(sets, SegmenterLPIPS(segmenter, segmenter.device), with_ct)
    if with_ct and slices is not None:
        report["fid"] = _fid(sets, slices)
    if with_ct and video is not None:
        found = [video(case.ct for case in tqdm(cases, f"{video.name}, {w}")) for w, cases in sets.items()]
        report["fvd"] = compare_features(*found)
    write_report(Path(output), report, rows, sets["synthetic"], pictures, overwrite)
    return report


def _named(classifier: Classifier3D) -> dict[str, str]:
    reads = f"what the segmenter measures of HU of voxels of {classifier.config.spacing:g} mm"
    return {"name": "Classifier3D", "version": weights_version(classifier), "reads": reads}


def _check(sets: dict[str, CaseSet], known: CaseSet | None, networks: dict[str, Any]) -> None:
    for which, cases in sets.items():
        if len(cases) < 2:
            raise ValueError(f"{which}: got one case ({cases.folder}), expected a set; one case has no distribution.")
    one, other = sets["real"], sets["synthetic"]
    for which, cases in (("synthetic", other), ("train", known)):
        if cases is not None and (cases.shape, cases.spacing) != (one.shape, one.spacing):
            raise ValueError(
                f"{which}: got {cases.grid} ({cases.folder}), expected the real set's {one.grid}; bring both to one "
                "grid with `guidegen prepare`."
            )
    segmenter, classifier = networks["segmenter"], networks["classifier"]
    if classifier is not None:
        wanted, got = classifier.config.segmenter, None if segmenter is None else weights_version(segmenter)
        if got is None or wanted not in (None, got):
            wanted = f"that of version {wanted}" if wanted else "one"
            raise ValueError(
                f"classifier: got {'no segmenter' if got is None else got}, expected {wanted} to measure."
            )
    if known is not None and segmenter is None:
        raise ValueError("train: got a set but no segmenter; the audit of copies looks in its feature space.")
    if known is not None and len(one) < LEAST_HELD_OUT:
        raise ValueError(
            f"real: got {len(one)} cases, expected at least {LEAST_HELD_OUT} to say how near to a training case a "
            "stranger comes; take more of them, or leave `train` out."
        )
    for name, network in networks.items():
        if network is not None and max(abs(s - network.config.spacing) for s in one.spacing) > 1e-3:
            raise ValueError(
                f"{name}: is trained on voxels of {network.config.spacing:g} mm, got sets of {one.grid}; train one "
                f"for them with {TRAINED_BY[name]}."
            )


def _prediction(folder: Path, name: str, case, scheme: str) -> np.ndarray:
    """Another segmenter's label map of a case, on the case's own grid."""
    found = [path for path in sorted(folder.glob(f"{name}*")) if path.is_dir() or nifti_stem(path) == name]
    found = [path for path in found if path.is_file() or path.name == name]
    if not found:
        raise FileNotFoundError(
            f"{folder}: holds no prediction for {name}, expected {name}.nii.gz or a folder of masks."
        )
    made = read_segmentation(found[0], scheme)
    check_same_place(f"{found[0]}", made.labels.shape, made.affine, "the case", case.labels.shape, case.affine)
    return made.labels


# ------------------------------------------------------------------------------------------------------ feature space


def _in_features(sets: dict[str, CaseSet], known: CaseSet | None, network, with_ct: bool) -> dict[str, Any]:
    """Distances of the sets and the audit of copies: of CTs, of label maps, of tumours alone."""
    looks = {
        "ct": lambda case: case.ct,
        "labels": lambda case: paint_labels(case.labels),
        "tumor": lambda case: paint_labels(case.labels, (TUMOR,)),
    }
    if not with_ct:
        del looks["ct"]
    distances, copies = {}, {}
    for name, look in looks.items():
        every = {**sets, **({"train": known} if known is not None and name != "tumor" else {})}
        features = {w: network(map(look, tqdm(cases, f"{name} features, {w}"))) for w, cases in every.items()}
        distances[name] = compare_features(features["real"], features["synthetic"])
        if "train" in features:
            copies[f"{name}, features"] = _copies(
                nearest_distances(features["synthetic"], features["train"]),
                nearest_distances(features["real"], features["train"]),
                sets["synthetic"].names,
            )
            if name == "labels":
                nearest = [
                    _nearest_maps(sets[w], known, features[w], features["train"]) for w in ("synthetic", "real")
                ]
                copies["labels, voxels"] = _copies(*nearest, sets["synthetic"].names)
    return {"distances": distances} | ({"copies": copies} if copies else {})


def _copies(generated: np.ndarray, held_out: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    verdict = find_copies(generated, held_out)
    return {
        "threshold": verdict.threshold,
        "expected": verdict.expected,
        "share": verdict.share,
        "p_value": verdict.p_value,
        "nearest": [names[i] for i in verdict.nearest[:10]],
        "median": float(np.median(generated)),
        "median_of_real": float(np.median(held_out)),
        "cases": len(generated),
    }


def _nearest_maps(cases: CaseSet, known: CaseSet, features: np.ndarray, training: np.ndarray) -> np.ndarray:
    """1 - mean Dice of each label map with the most alike of the training cases that are nearest in features."""
    out = []
    for case, feature in zip(tqdm(cases, "label maps against training"), features, strict=True):
        near = np.argsort(np.linalg.norm(training - feature, axis=1))[:SHORTLIST]
        out.append(min(label_distance(case.labels, known[int(i)].labels) for i in near))
    return np.array(out)


def _lpips(sets: dict[str, CaseSet], network, with_ct: bool) -> dict[str, Any]:
    """Mean LPIPS of pairs, synthetic with real: of one name where both sets have it, else as they come."""
    real, made = sets["real"], sets["synthetic"]
    places = {name: i for i, name in enumerate(real.names)}
    pairs = [(places[name], i) for i, name in enumerate(made.names) if name in places]
    how = "of one name" if pairs else "as they come"
    pairs = (pairs or [(i, i) for i in range(min(len(real), len(made)))])[:PAIRS]
    found: dict[str, list[float]] = {"labels": [], "labels_of_real": []}
    found |= {"ct": [], "ct_of_real": []} if with_ct else {}
    for i, j in tqdm(pairs, "LPIPS"):
        one, two, other = real[i], made[j], real[(i + 1) % len(real)]
        found["labels"].append(network(paint_labels(two.labels), paint_labels(one.labels)))
        found["labels_of_real"].append(network(paint_labels(other.labels), paint_labels(one.labels)))
        if with_ct:
            found["ct"].append(network(two.ct, one.ct))
            found["ct_of_real"].append(network(other.ct, one.ct))
    means = {name: float(np.mean(values)) for name, values in found.items()}
    return {"pairs": how, "count": len(pairs), "network": network.name, **means}


def _fid(sets: dict[str, CaseSet], network) -> dict[str, Any]:
    """FID in three planes and their mean, 2.5-D."""
    features = {w: network(case.ct for case in tqdm(cases, f"{network.name}, {w}")) for w, cases in sets.items()}
    planes = {
        plane: frechet_distance(features["real"][plane], features["synthetic"][plane]) for plane in features["real"]
    }
    counts = {plane: len(features["synthetic"][plane]) for plane in planes}
    return {"mean": float(np.mean(list(planes.values()))), "planes": planes, "slices": counts}
