"""One tiny pipeline for all tests (real components, random weights, seconds a call), and one thread a process."""

import pytest
import torch
from hypothesis import HealthCheck, settings

from guidegen_diffusers import GuideGenPipeline


# Tests run in several processes, and sums of several threads differ in their last bits where runs are compared.
torch.set_num_threads(1)

# No test is timed: how long an example takes is a matter of what else the machine does.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture
def tiny() -> GuideGenPipeline:
    torch.manual_seed(0)
    pipeline = GuideGenPipeline.from_config("tiny")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def label_map():
    """A label map of 12 x 10 x 14 voxels with all classes, and a tumour inside the liver."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 20, (12, 10, 14), generator=generator, dtype=torch.uint8).numpy()
    labels[2:7, 2:7, 2:7] = 3
    labels[4, 4, 4] = 20
    return labels
