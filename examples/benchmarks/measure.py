"""How the benchmarks measure: two alternatives timed in turn (A B A B ...), so that whatever else the machine does meets both
alike and the ratio survives it; and the memory that a call takes at its peak beyond what was held before it, from the CUDA
allocator, or on a Linux CPU from the peak resident set of the process, which the kernel lets a process reset. The memory
instrument is checked against known allocations before its first figure. Other systems: times only.
"""

import ctypes
import functools
import gc
import statistics
import sys
import time
from collections.abc import Callable

import torch


MEGABYTE = 1e6


def interleaved_times(
    ours: Callable[[], object], alternative: Callable[[], object], repeats: int, device: torch.device
) -> tuple[float, float, float]:
    """Medians in seconds of both, and the median over the pairs of alternative / ours."""
    pairs = []
    for _ in range(repeats + 1):
        pairs.append((_seconds(ours, device), _seconds(alternative, device)))
    pairs = pairs[1:]  # the first pair warms up
    ours_seconds, alternative_seconds = (statistics.median(times) for times in zip(*pairs, strict=True))
    return ours_seconds, alternative_seconds, statistics.median(b / a for a, b in pairs)


def extra_peak_memory(call: Callable[[], object], warm_up: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that `call` holds at its peak, its result included, beyond what was held before; None where not measured.

    `warm_up` is the same call on something small: what a first call loads for good is not the call's own.
    """
    if device.type == "cpu" and sys.platform != "linux":
        return None
    _check_instrument(device)
    warm_up()
    return _peak(call, device)


def print_table(title: str, rows: list[tuple[str, str, str, float | None, str]]) -> None:
    """Rows of what, ours, alternative, ratio and bar (">= 25", "<= 2.5", or "" for a figure without one)."""
    lines = [("what", "ours", "alternative", "ratio", "bar", "")]
    for what, ours, alternative, ratio, bar in rows:
        if ratio is None:
            lines.append((what, "not measured", "not measured", "", bar, ""))
            continue
        lines.append((what, ours, alternative, f"{ratio:.3g}", bar, _verdict(ratio, bar)))
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    print(f"\n{title}\n")
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _verdict(ratio: float, bar: str) -> str:
    if not bar:
        return ""
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
        _synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = call()
        _synchronize(device)
        peak = torch.cuda.max_memory_allocated(device)
    else:
        # the allocator keeps what earlier calls freed, where it would hide what this one takes: hand it back first
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak becomes the present
        before = _status("VmRSS")
        result = call()
        peak = _status("VmHWM")
    del result
    return peak - before


def _status(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{key}:"))


@functools.cache
def _check_instrument(device: torch.device) -> None:
    """200 MB in one piece and in pieces, each taken twice, as the second could hide in what the first freed."""
    expected = 200 * 2**20
    for pieces in (1, 1, 200, 200):
        try:
            found = _peak(lambda n=pieces: [torch.ones(expected // n, dtype=torch.uint8, device=device) for _ in range(n)], device)
        except OSError as error:
            sys.exit(f"Memory figures are not available on this machine: {error}.")
        if abs(found / expected - 1) > 0.05:
            sys.exit(
                f"Memory figures are not available on this machine: {expected / MEGABYTE:.0f} MB taken in {pieces} "
                f"pieces were measured as {found / MEGABYTE:.0f} MB."
            )
