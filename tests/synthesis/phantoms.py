"""A stand-in for a pipeline whose cases are good: it draws phantoms, and says how often it was asked."""

from types import SimpleNamespace

from guidegen_diffusers import Case, TorsoPhantom


class Phantoms:
    """`spoil(case, seed)` gives what is drawn in place of a phantom."""

    def __init__(self, size=(64, 48, 96), spacing=6.0, spoil=lambda case, seed: case):
        self.phantom, self.spoil, self.calls = TorsoPhantom(size, spacing), spoil, []

    def __call__(self, prompt, generator):
        self.calls.append(list(prompt))
        return SimpleNamespace(cases=[self.draw(*pair) for pair in zip(prompt, generator, strict=True)])

    def draw(self, prompt, generator) -> Case:
        seed = generator.initial_seed()
        return self.spoil(self.phantom.sample(prompt, seed), seed)


def coarse(**changes) -> Phantoms:
    """24 mm: a few milliseconds a case, too coarse for the gate."""
    return Phantoms((16, 12, 24), 24.0, **changes)
