"""Scripts of examples/ as a user runs them: launched for real, killed without warning, or called in this process."""

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import psutil
import pytest
from accelerate.state import AcceleratorState, GradientState


EXAMPLES = Path(__file__).parents[2] / "examples"
KILLED = -9


def launch(
    script: str,
    *arguments,
    processes: int = 1,
    kill_when: Callable[[], bool] | None = None,
    timeout: float = 200,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess:
    """The script through `accelerate launch`; SIGKILLed with its children as soon as `kill_when()` holds."""
    # `--cpu --num_processes 2` starts one process in silence; what starts two, torchrun, hides behind --multi_gpu
    several = ["--multi_gpu", "--num_processes", processes, "--main_process_port", 0]
    how = ["--cpu", "--num_processes", 1] if processes == 1 else several
    command = [sys.executable, "-m", "accelerate.commands.launch", *how, EXAMPLES / script, *arguments]
    ours = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"} | (environment or {"HF_HUB_OFFLINE": "1"})
    end = time.monotonic() + timeout
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            [*map(str, command)], stdout=out, stderr=err, env=os.environ | ours, start_new_session=True
        )
        try:
            while process.poll() is None and not (kill_when and kill_when()):
                if time.monotonic() > end:
                    raise TimeoutError(f"{script} took more than {timeout} s.")
                time.sleep(0.005)
        finally:
            kill_family(process)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, out.read(), err.read())


def kill_family(process: subprocess.Popen) -> None:
    """SIGKILL to the launcher and to all it started; torchrun puts each worker into a process group of its own."""
    if process.poll() is None:
        launcher = psutil.Process(process.pid)
        launcher.suspend()  # so that it starts no more
        family = [*launcher.children(recursive=True), launcher]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()
        psutil.wait_procs(family, timeout=10)


def load_script(name: str) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, EXAMPLES / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(module: ModuleType, *arguments) -> None:
    """Its `main` in this process, as if it were the first: Accelerator keeps its state in classes."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module.__file__, *map(str, arguments)])
        patch.setenv("ACCELERATE_USE_CPU", "true")
        module.main()


def refused(capsys, script, *arguments):
    """The one line that a run ends with before it trains."""
    with pytest.raises(SystemExit) as error:
        call(script, *arguments)
    assert error.value.code not in (None, 0)
    line = error.value.code if isinstance(error.value.code, str) else capsys.readouterr().err.splitlines()[-1]
    assert "\n" not in line
    return line
