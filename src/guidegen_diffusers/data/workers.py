"""A function over many tasks, in this process or in several; results come in the order of the tasks."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar


__all__ = ["in_order"]

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_order(function: Callable[[Task], Result], tasks: Sequence[Task], workers: int = 1) -> Iterator[Result]:
    """`map(function, tasks)` by `workers` processes; a worker that is killed ends the run with an error."""
    if workers < 1:
        raise ValueError(f"workers: got {workers}, expected at least one.")
    if workers == 1 or len(tasks) < 2:
        yield from map(function, tasks)
        return
    others = multiprocessing.active_children()
    # spawn: a fork would inherit the threads of whatever the caller has running
    with ProcessPoolExecutor(min(workers, len(tasks)), multiprocessing.get_context("spawn")) as pool:
        results = None
        try:
            results = pool.map(function, tasks)
            yield from results
        except (BrokenProcessPool, OSError) as error:
            if results is not None and isinstance(error, OSError):
                raise  # a task's own; where tasks are handed out, it is the pipe to a worker that was killed
            left = [process for process in multiprocessing.active_children() if process not in others]
            for process in left:  # one that was just starting would be waited for without end, or not at all
                process.kill()
            for process in left:
                process.join()
            raise RuntimeError(
                "a worker process was killed, perhaps for want of memory; start again with fewer workers, what is "
                "finished stays."
            ) from error
