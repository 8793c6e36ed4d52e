"""The procedural torso: the one data set whose every attribute is known."""

from .torso_phantom import SEEDS, VERSION, TorsoPhantom, torso_size


__all__ = ["SEEDS", "VERSION", "TorsoPhantom", "torso_size"]
