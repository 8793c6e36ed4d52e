"""Sets are compared bit for bit, and sums of several threads differ in their last bits."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def content():
    """The bytes of each file of a set; the lock is none of it."""

    def read(folder):
        files = (file for file in sorted(Path(folder).rglob("*")) if file.is_file() and file.name != "lock")
        return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}

    return read
