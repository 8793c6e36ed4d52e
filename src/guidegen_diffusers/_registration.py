"""Teaches diffusers' loader the package's classes, so that pipelines load from a folder and from a Hub id alike.

diffusers writes a component of an unknown library under its full module path, which it then refuses to load from a
Hub id. A library in its table of loadable classes is written as `["guidegen_diffusers", "VQModel3D"]` and found
again. The tables are private: `tests/test_hub.py` guards them by a push and a pull in a fresh process.
"""

from __future__ import annotations

import diffusers
from diffusers.pipelines.pipeline_loading_utils import ALL_IMPORTABLE_CLASSES, LOADABLE_CLASSES


def register(components: list[type], pipelines: list[type]) -> None:
    """Make `components` loadable from this library, and `pipelines` known to `DiffusionPipeline.from_pretrained`."""
    methods = {component.__name__: ["save_pretrained", "from_pretrained"] for component in components}
    LOADABLE_CLASSES[__package__] = methods
    ALL_IMPORTABLE_CLASSES.update(methods)
    for pipeline in pipelines:
        setattr(diffusers, pipeline.__name__, pipeline)
