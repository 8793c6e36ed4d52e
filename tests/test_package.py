"""The house: arrows run one way, the package is whole, and its weight on import is its own code."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import diffusers
import pytest

import guidegen_diffusers
from guidegen_diffusers import GuideGenPipeline, available_configs, load_config


SOURCE = Path(guidegen_diffusers.__file__).parent
ROOT = Path(__file__).parents[1]
# Who may import whom: a module sees those of earlier floors, and its own.
FLOORS = [
    {"labels", "prompts", "configs", "checkpoints", "text_encoder", "_registration", "_version"},
    {"grid", "preview"},
    {"case", "tumor_sites"},
    {"schedulers", "models", "phantom"},
    {"data", "metrics"},
    {"pipelines", "evaluation"},
    {"synthesis"},
    {"cli"},
]


def imports(file: Path) -> set[str]:
    """First names under the package that a file imports, at any depth of its code."""
    package = file.relative_to(SOURCE).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            name = [*base, *(node.module.split(".") if node.module else [])]
            found |= {name[0]} if name else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("guidegen_diffusers") for alias in node.names)
    return found


def test_arrows_run_one_way():
    floor = {name: i for i, names in enumerate(FLOORS) for name in names}
    for file in SOURCE.rglob("*.py"):
        name = file.relative_to(SOURCE).parts[0].removesuffix(".py")
        if name == "__init__":
            continue
        for other in imports(file) - {name}:
            assert floor[other] < floor[name], (
                f"{file.name} imports {other}, which stands on a higher floor or the same"
            )


def test_the_import_leaves_the_garbage_collector_as_it_was():
    script = """
import gc, importlib
import guidegen_diffusers
assert gc.isenabled()
gc.disable()
importlib.reload(guidegen_diffusers)
assert not gc.isenabled()
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_library_never_trains():
    text = "".join(file.read_text() for file in SOURCE.rglob("*.py"))
    for word in ("torch.optim", "Accelerator(", ".backward()"):
        assert word not in text


def test_all_names_are_there():
    for name in guidegen_diffusers.__all__:
        assert hasattr(guidegen_diffusers, name)
    assert diffusers.GuideGenPipeline is GuideGenPipeline


def test_typing_and_configurations_ship():
    assert (SOURCE / "py.typed").exists()
    assert {"tiny", "torso-6mm", "torso-3mm", "paper-128"} == set(available_configs())
    with pytest.raises(ValueError, match="expected one of .*, or a JSON file"):
        load_config("huge")


def test_a_configuration_of_ones_own_is_a_file_like_those_that_ship(tmp_path):
    file = tmp_path / "mine.json"
    mine = load_config("tiny") | {"spacing": 12.0}
    file.write_text(json.dumps(mine))
    assert load_config(file) == mine
    assert GuideGenPipeline.from_config(str(file)).config.spacing == 12
    for content, message in (
        ("{", "Expecting property name"),
        ('{"vae": {}}', r"got \['vae'\], expected a dict with"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=rf"mine.json: not a configuration \(.*{message}"):
            load_config(file)


def test_a_configuration_may_say_only_where_it_differs_from_another(tmp_path):
    (tmp_path / "coarse.json").write_text('{"like": "tiny", "spacing": 48.0, "vae": {"num_codes": 16}}')
    (tmp_path / "both.json").write_text('{"like": "coarse.json", "vae": {"window_sampling": "none"}}')
    expected = load_config("tiny") | {"spacing": 48.0}
    expected["vae"] |= {"num_codes": 16, "window_sampling": "none"}
    assert load_config(tmp_path / "both.json") == expected
    for content, message in (
        ('{"like": "wrong.json"}', "wrong.json, expected an end"),
        ('{"like": "huge"}', "got 'huge', expected one of"),
        ('{"like": "tiny", "vea": {}}', "vea"),
    ):
        (tmp_path / "wrong.json").write_text(content)
        with pytest.raises(ValueError, match=f"wrong.json: not a configuration .*{message}"):
            load_config(tmp_path / "wrong.json")


def test_tested_versions_satisfy_what_setup_asks_for():
    from packaging.requirements import Requirement

    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    tree = ast.parse((ROOT / "setup.py").read_text())
    lists = [k.value for call in ast.walk(tree) if isinstance(call, ast.Call) for k in call.keywords]
    required = [Requirement(e.value) for li in lists if isinstance(li, ast.List) for e in li.elts]
    assert len(required) > 10
    for requirement in required:
        assert pinned[requirement.name] in requirement.specifier


def test_importing_brings_no_heavy_library_of_our_own():
    """What diffusers does not load by itself and we need only in places stays out of the import."""
    script = (
        "import sys, guidegen_diffusers; print([m for m in ('datasets', 'typer', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "[]"
