"""Dice has known answers."""

import numpy as np
import pytest

from guidegen_diffusers.metrics import dice


def test_dice_of_maps_drawn_by_hand():
    a = np.array([1, 1, 1, 2, 0, 0], np.uint8)
    b = np.array([1, 1, 0, 0, 3, 0], np.uint8)
    assert dice(a, b) == {"spleen": pytest.approx(0.8), "kidney": 0.0, "liver": 0.0}
    assert dice(a, a) == {"spleen": 1.0, "kidney": 1.0}
    assert dice(np.zeros(3, np.uint8), np.zeros(3, np.uint8)) == {}
