"""Every script of examples/ called in this process computes as the processes of `launch` do."""

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums of several threads differ in their last bits, and runs are compared bit for bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
