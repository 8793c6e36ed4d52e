"""Many processes do what one does, in the same order; one that is killed is an error and no hang."""

import multiprocessing
import os
import signal
import threading
import time

import pytest

from guidegen_diffusers.data.workers import in_order


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_tasks(workers):
    assert list(in_order(abs, range(-20, 0), workers)) == list(range(20, 0, -1))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_task_raises_is_raised(workers):
    with pytest.raises(TypeError, match="bad operand"):
        list(in_order(abs, [1, "a", 2], workers))


def test_a_worker_killed_at_work_is_an_error():
    tasks = [signal.SIGCONT, signal.SIGKILL, signal.SIGCONT, signal.SIGCONT]
    with pytest.raises(RuntimeError, match="a worker process was killed"):
        list(in_order(signal.raise_signal, tasks, 2))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.02, 0.05])
def test_a_worker_killed_while_they_start_is_an_error_too(delay):
    def kill():
        while not (workers := multiprocessing.active_children()):
            pass
        time.sleep(delay)
        os.kill(workers[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(RuntimeError, match="a worker process was killed"):
        list(in_order(time.sleep, [0.2] * 6, 3))
    killer.join()
    assert multiprocessing.active_children() == []


def test_no_workers_are_refused():
    with pytest.raises(ValueError, match="workers: got 0"):
        list(in_order(abs, [1], 0))
