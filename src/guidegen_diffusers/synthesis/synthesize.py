"""A plan, a pipeline and a form become a set on disk.

Cases are drawn in groups of consecutive indices, judged, drawn again with new seeds where the gate refuses them, and
written by a thread of its own while the next group is drawn. What a group becomes follows from the plan alone:
whatever a killed process has left of one is kept, the rest is drawn again and comes out the same.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import hashlib
import importlib.metadata
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from .._version import __version__
from ..case import Case
from ..grid import describe_grid
from ..pipelines import GuideGenPipeline
from .form import Form
from .gate import Gate, Verdict
from .nifti import NiftiForm
from .plan import Plan, PlannedCase
from .records import MADE, REFUSED, Records


__all__ = ["SynthesisSummary", "synthesize"]

EMBEDS = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
SENTENCES_HELD = 64  # encoded
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class SynthesisSummary:
    """
    Args:
        asked, made, refused (`int`): cases; those refused failed every draw and are not in the set.
        found (`int`): of them, how many an earlier run or another process had finished before this one began.
        redraws (`int`): draws that the gate refused and that were made again.
        reasons (`dict[str, int]`): how many draws the gate refused, by kind; a draw may fail in several.
        complete (`bool`): whether every case is there and the set is closed.
        closed (`bool`): whether this process closed it, or is the first of those that found it closed.
        seconds (`dict[str, float]`): where this process spent its time; "writing" runs beside the others.
    """

    asked: int
    made: int
    refused: int
    found: int
    redraws: int
    reasons: dict[str, int]
    complete: bool
    closed: bool
    seconds: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        told = f"{self.made} of {self.asked} cases made"
        if self.refused or self.redraws:
            kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.reasons.items()))
            told += f", {self.refused} given up, {self.redraws} draws made again; draws refused for {kinds}"
        if self.found:
            told += f"; {self.found} cases were there"
        return told if self.complete else f"{told}; the set is not complete, other processes are at work"


def synthesize(
    pipeline: Callable[..., Any],
    plan: Plan,
    output: str | os.PathLike,
    form: Form | None = None,
    gate: Gate | None = Gate(),  # noqa: B008, it is frozen
    redraws: int = 3,
    batch_size: int = 1,
    rank: int = 0,
    world: int = 1,
    progress: bool = True,
    **settings,
) -> SynthesisSummary:
    """Make the set of a plan in `output`, or go on with it.

    Args:
        pipeline: a [`GuideGenPipeline`], or whatever gives `.cases` when called with `prompt` and `generator`, lists
            of the same length, and `settings`; a case may depend on nothing else.
        form: [`NiftiForm`] (the default), [`NnunetForm`] or [`ParquetForm`].
        gate: what cases have to be; None lets all pass.
        redraws: how often a case that the gate refuses is drawn again.
        batch_size: how many cases a call draws. It belongs to the set, as sums of another shape differ in their last
            bits.
        rank, world: this process and how many there are; each takes its share, whichever are running.
        settings: of the pipeline's call.
    """
    output, form = Path(output), form or NiftiForm()
    for name, value, least in (("redraws", redraws, 0), ("batch_size", batch_size, 1), ("world", world, 1)):
        if type(value) is not int or value < least:
            raise ValueError(f"{name}: got {value!r}, expected a whole number of at least {least}.")
    if not 0 <= rank < world:
        raise ValueError(f"rank: got {rank}, expected 0 to {world - 1}, one of {world} processes.")
    form.check(output, plan.split)
    records = Records(output, plan.split)
    asked = {
        **plan.as_dict(),
        **form.as_dict(),
        "gate": None if gate is None else gate.as_dict(),
        "redraws": redraws,
        "batch_size": batch_size,
        "settings": settings,
        **_circumstances(pipeline),
    }
    records.open(asked, form.home(output, plan.split))
    run = _Run(pipeline, plan, output, form, gate, redraws, settings, records)
    if found := records.count():
        run.refuse_lost_files()
    if not records.manifest.is_file():
        groups = [range(i, min(i + batch_size, len(plan))) for i in range(0, len(plan), batch_size)]
        with run.full_disk_explained():
            run.make(groups[rank::world], disable=not progress or rank > 0)
            closed = run.close(asked["model"])
    else:
        form.tidy(output, plan.split)  # the process that closed the set may have been killed before it did
        closed = rank == 0
    return run.summary(found, closed)


def _circumstances(pipeline) -> dict[str, Any]:
    """What a case follows from besides plan and settings; threads, as sums of more differ in their last bits."""
    name = getattr(pipeline, "name_or_path", None) or type(pipeline).__name__
    device = getattr(pipeline, "device", torch.device("cpu")).type
    return {
        "model": os.path.basename(os.path.normpath(name)) if os.path.isdir(name) else name,
        "dtype": str(getattr(pipeline, "dtype", "")).removeprefix("torch."),
        "device": device,
        "threads": torch.get_num_threads() if device == "cpu" else None,
        "versions": {"guidegen-diffusers": __version__, "torch": importlib.metadata.version("torch")},
    }


class _Encoded:
    """A pipeline that encodes each sentence once, whatever is drawn of it."""

    def __init__(self, pipeline: GuideGenPipeline, clock: Callable):
        self.pipeline, self.clock = pipeline, clock
        self.encode = functools.lru_cache(SENTENCES_HELD)(torch.no_grad()(pipeline.encode_prompt))

    def __call__(self, prompt: list[str], generator: list[torch.Generator], **settings):
        with self.clock("text"):
            encoded = zip(*map(self.encode, prompt), strict=True)
            embeds = {name: torch.cat(parts) for name, parts in zip(EMBEDS, encoded, strict=True)}
        return self.pipeline(generator=generator, **embeds, **settings)


class _Run:
    """One process at work on a set."""

    def __init__(self, pipeline, plan, output, form, gate, redraws, settings, records):
        self.plan, self.output, self.form, self.gate, self.redraws = plan, output, form, gate, redraws
        self.settings, self.records = settings, records
        self.seconds: dict[str, float] = dict.fromkeys(("text", "drawing", "gate", "waiting", "writing"), 0.0)
        guidegen = isinstance(pipeline, GuideGenPipeline)
        self.pipeline = _Encoded(pipeline, self.clock) if guidegen else pipeline

    @contextmanager
    def clock(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - start

    # ---------------------------------------------------------------------------------------------- what is there

    def is_complete(self, name: str) -> bool:
        """Whether a case has its record and, where it was made, its files."""
        record = self.records.read(name)
        if record is None or record["status"] == REFUSED:
            return record is not None
        return all(path.is_file() for path in self.form.files(self.output, self.plan.split, name).values())

    def refuse_lost_files(self) -> None:
        """Raise where a closed set lacks a file that its manifest lists."""
        if self.records.manifest.is_file():
            for row in self.records.rows():
                for path in {file["path"] for file in row["files"].values()}:
                    if not (self.output / path).is_file():
                        raise FileNotFoundError(
                            f"{self.output / path}: no such file, though {self.records.manifest} lists it; remove the "
                            "manifest to have made anew what is missing."
                        )

    # --------------------------------------------------------------------------------------------------- drawing

    def make(self, groups: Sequence[range], disable: bool) -> None:
        """Draw and write the cases of these groups that are not complete."""
        waiting: deque = deque()
        with ThreadPoolExecutor(1) as writer, self._bar(disable) as bar:
            try:
                for group in groups:
                    cases = [self.plan[i] for i in group]
                    absent = {case.index for case in cases if not self.is_complete(case.name)}
                    if not absent:
                        continue
                    for planned, record, case in self._draw(cases):
                        if planned.index in absent:
                            waiting.append(writer.submit(self._write, planned, record, case))
                    with self.clock("waiting"):
                        while len(waiting) > len(group):  # one group is written while the next is drawn
                            waiting.popleft().result()
                    self._show(bar)
                with self.clock("waiting"):
                    while waiting:
                        waiting.popleft().result()
                self._show(bar)
            except BaseException:
                writer.shutdown(cancel_futures=True)
                raise

    def _draw(self, cases: list[PlannedCase]) -> Iterator[tuple[PlannedCase, dict[str, Any], Case | None]]:
        """Each case of a group with its record; None in place of one that failed every draw."""
        draws: dict[int, list] = {planned.index: [] for planned in cases}
        passed: dict[int, Case] = {}
        verdicts: dict[int, Verdict | None] = {}
        for attempt in range(1 + self.redraws):
            left = [planned for planned in cases if planned.index not in passed]
            if not left:
                break
            seeds = [planned.seed(attempt) for planned in left]
            for planned, seed, case in zip(left, seeds, self._call(left, seeds), strict=True):
                with self.clock("gate"):
                    verdict = self.gate and self.gate.judge(case, planned.prompt)
                verdicts[planned.index] = verdict
                draws[planned.index].append({"seed": seed, "refused": verdict.reasons if verdict else {}})
                if not verdict or not verdict.reasons:
                    passed[planned.index] = case
        for planned in cases:
            verdict, case = verdicts[planned.index], passed.get(planned.index)
            record = {
                "index": planned.index,
                "name": planned.name,
                "status": REFUSED if case is None else MADE,
                "text": planned.text,
                "prompt": planned.sentence,
                "attributes": planned.prompt.as_dict(),
                "seed": draws[planned.index][-1]["seed"],
                "draws": draws[planned.index],
                "checks": verdict.as_dict() if verdict else {},
            }
            yield planned, record, case

    def _call(self, cases: list[PlannedCase], seeds: list[int]) -> list[Case]:
        sentences, before = [planned.sentence for planned in cases], self.seconds["text"]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        with self.clock("drawing"):
            drawn = self.pipeline(prompt=sentences, generator=generators, **self.settings).cases
        self.seconds["drawing"] -= self.seconds["text"] - before
        if len(drawn) != len(cases) or any(case.ct is None for case in drawn):
            raise ValueError(
                f"pipeline: gave {len(drawn)} cases for {len(cases)} prompts, {sum(c.ct is None for c in drawn)} of "
                "them without a CT; expected one case of both volumes for each."
            )
        told = []
        for planned, seed, case in zip(cases, seeds, drawn, strict=True):
            provenance = {key: value for key, value in case.provenance.items() if key not in EMBEDS}
            provenance |= {"synthetic": True, "seed": seed, "text": planned.text}
            attributes = planned.prompt.as_dict()
            told.append(
                dataclasses.replace(case, prompt=planned.sentence, attributes=attributes, provenance=provenance)
            )
        return told

    # --------------------------------------------------------------------------------------------------- writing

    def _write(self, planned: PlannedCase, record: dict[str, Any], case: Case | None) -> None:
        with self.clock("writing"):
            if case is not None:
                split, name = self.plan.split, planned.name
                record["shape"] = list(case.labels.shape)
                record["spacing"] = [round(float(s), 6) for s in case.grid.spacing]
                record["row"] = self.form.write(self.output, split, name, case)
                files = self.form.files(self.output, split, name)
                record["sha256"] = {v: hashlib.sha256(path.read_bytes()).hexdigest() for v, path in files.items()}
            self.records.write(planned.name, record)

    def close(self, model: str) -> bool:
        """Write what the set has beside its cases once all are there; whether this process did it."""
        with self.records.lock():
            if self.records.manifest.is_file() or not all(self.is_complete(planned.name) for planned in self.plan):
                return False
            found = [self.records.read(planned.name) for planned in self.plan]
            made = [record for record in found if record["status"] == MADE]
            self._check(made)
            about = f"Drawn by {model} from prompts of guidegen-diffusers: {self._tell(found)}."
            places = self.form.close(self.output, self.plan.split, [record["row"] for record in made], about)
            files = {
                record["name"]: {
                    volume: {"path": path.relative_to(self.output).as_posix(), "sha256": record["sha256"][volume]}
                    for volume, path in paths.items()
                }
                for record, paths in zip(made, places, strict=True)
            }
            own = ("row", "sha256")
            self.records.close(
                {key: value for key, value in record.items() if key not in own}
                | {"files": files.get(record["name"], {})}
                for record in found
            )
            self.form.tidy(self.output, self.plan.split)
            return True

    def _check(self, made: list[dict[str, Any]]) -> None:
        grids = {(tuple(record["shape"]), tuple(record["spacing"])): record["name"] for record in made}
        if len(grids) > 1:
            told = "; ".join(f"{name}: {describe_grid(*grid)}" for grid, name in grids.items())
            raise ValueError(f"{self.output}: got cases of several grids ({told}), expected one.")
        if not made:
            first = self.records.read(self.plan[0].name)["draws"][-1]["refused"]
            raise ValueError(
                f"{self.output}: the gate refused every draw of all {len(self.plan)} cases, so there is no set; of "
                f"the first it says: {'; '.join(first.values())}."
            )

    @contextmanager
    def full_disk_explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise OSError(
                error.errno,
                f"{os.strerror(error.errno)}; {self.records.count()} of {len(self.plan)} cases are complete and stay. "
                "Free some space and run the same again",
                str(self.output),
            ) from error

    # -------------------------------------------------------------------------------------------------- reporting

    def _bar(self, disable: bool) -> tqdm:
        """Over the whole set, whoever works on it."""
        there = self.records.count()
        shape = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left{postfix}]"
        return tqdm(None, "synthesize", len(self.plan), initial=there, smoothing=0, bar_format=shape, disable=disable)

    def _show(self, bar: tqdm) -> None:
        if not bar.disable:
            bar.update(self.records.count() - bar.n)
            elapsed = bar.format_dict["elapsed"]
            bar.set_postfix_str(f"{60 * (bar.n - bar.initial) / max(elapsed, 1e-9):.3g} cases/min")

    def summary(self, found: int, closed: bool) -> SynthesisSummary:
        there = [record for planned in self.plan if (record := self.records.read(planned.name))]
        refused, draws, reasons = _count(there)
        made = len(there) - refused
        complete = self.records.manifest.is_file()
        again = draws - len(there)
        return SynthesisSummary(
            len(self.plan), made, refused, found, again, reasons, complete, closed, dict(self.seconds)
        )

    @staticmethod
    def _tell(found: list[dict[str, Any]]) -> str:
        """How many cases the set has and what the gate refused, for whoever reads the card."""
        refused, draws, reasons = _count(found)
        told = f"{len(found) - refused} cases of {len(found)} asked for"
        if reasons:
            kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(reasons.items()))
            told += f"; {draws - len(found)} draws were made again and {refused} cases given up (refused for {kinds})"
        return told


def _count(records: list[dict[str, Any]]) -> tuple[int, int, dict[str, int]]:
    """Cases given up, all draws, and the refused draws by kind."""
    reasons = Counter(kind for record in records for draw in record["draws"] for kind in draw["refused"])
    refused = sum(record["status"] == REFUSED for record in records)
    return refused, sum(len(record["draws"]) for record in records), dict(sorted(reasons.items()))
