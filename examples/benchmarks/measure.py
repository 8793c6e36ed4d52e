"""How the benchmarks measure. Two callables are timed in turn (A B A B ...), so that whatever else the machine does
meets both and the ratio survives it. The memory a call takes at its peak, beyond what was held before it, comes from
the CUDA allocator or, on a Linux CPU, from the peak resident set of the process, which Linux lets a process reset;
known allocations are measured first, and without agreement there are no figures. Elsewhere memory is not measured.
"""

import ctypes
import functools
import gc
import statistics
import sys
import time
from collections.abc import Callable

import torch


def interleaved_times(
    ours: Callable[[], object], alternative: Callable[[], object], repeats: int, device: torch.device
) -> tuple[float, float, float]:
    """Median seconds of `ours` and of `alternative`, and the median over the pairs of alternative / ours."""
    pairs = [(_seconds(ours, device), _seconds(alternative, device)) for _ in range(1 + repeats)]
    pairs = pairs[1:]  # the first pair warms up
    a, b = zip(*pairs, strict=True)
    return statistics.median(a), statistics.median(b), statistics.median(y / x for x, y in pairs)


def extra_peak_memory(call: Callable[[], object], warm_up: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that `call` holds at its peak, its result included, beyond what was held before; None where not measured.

    `warm_up` is the same call on something small: what a first call loads for good is not part of the figure.
    """
    if device.type == "cpu" and sys.platform != "linux":
        return None
    _check_instrument(device)
    warm_up()
    return _peak(call, device)


def row(
    what: str,
    ours: float | None,
    alternative: float | None,
    unit: str,
    ratio: float | None = None,
    bar: str = "",
) -> tuple[str, ...]:
    """A line of `print_table`; the ratio is alternative / ours unless given, the bar ">= 25", "<= 2.5" or nothing."""
    if ours is None or alternative is None:
        return what, "not measured", "not measured", "", bar, ""
    ratio = alternative / ours if ratio is None else ratio
    scale, digits = {"ms": (1e3, ".1f"), "MB": (1e-6, ".1f"), "": (1, ".2e")}[unit]
    cells = [f"{value * scale:{digits}} {unit}".rstrip() for value in (ours, alternative)]
    return what, *cells, f"{ratio:.3g}", bar, _verdict(ratio, bar) if bar else ""


def print_table(title: str, rows: list[tuple[str, ...]]) -> None:
    """Lines of `row` under their headings."""
    print_rows(title, [("what", "ours", "alternative", "ratio", "bar", ""), *rows])


def print_rows(title: str, rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    print(f"\n{title}\n")
    for cells in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def _verdict(ratio: float, bar: str) -> str:
    sign, limit = bar.split()
    reached = ratio >= float(limit) if sign == ">=" else ratio <= float(limit)
    return "reached" if reached else "missed"


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    _synchronize(device)
    start = time.perf_counter()
    call()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(call: Callable[[], object], device: torch.device) -> int:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    # once a tensor of nearly 32 MiB was freed, glibc serves smaller ones from its heap, where holes cost memory: the
    # state of any process that has run for a while
    torch.empty(2**25 - 2**16, dtype=torch.uint8)
    # the heap keeps what earlier calls freed, and what this call takes would hide in it: hand it back first
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # VmHWM, the peak, starts again from the present
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{key}:"))


@functools.cache
def _check_instrument(device: torch.device) -> None:
    """200 MB in one piece and in many, each twice, as the second could hide in what the first has freed."""
    expected = 200_000_000

    def allocate(pieces: int) -> list[torch.Tensor]:
        return [torch.ones(expected // pieces, dtype=torch.uint8, device=device) for _ in range(pieces)]

    for pieces in (1, 1, 200, 200):
        try:
            found = _peak(functools.partial(allocate, pieces), device)
        except OSError as error:
            sys.exit(f"Memory figures are not available on this machine: {error}.")
        if abs(found / expected - 1) > 0.05:
            sys.exit(
                "Memory figures are not available on this machine: "
                f"{expected / 1e6:.0f} MB taken in {pieces} pieces were measured as {found / 1e6:.0f} MB."
            )
