"""The folders show the architecture: each package imports from packages below it only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

#: Packages and root modules of each tree, from the top to the bottom.
LAYERS = {
    "pipeline": (
        *("cli", "commands", "app", "faust_app", "memory", "audit", "publishing", "clients"),
        *("kafka", "engine", "batch", "state", "columns", "native", "process"),
        *("settings", "environment", "topic_names", "records", "guides", "types"),
        *("errors", "exit_codes"),
    ),
    "models": (
        *("examples", "disk", "checks", "foreign", "nets", "loaded_model", "sequences", "fields"),
        *("contract", "devices", "seeding", "package_data", "lazy_names", "worker_extra"),
        *("model_errors", "rounding"),
    ),
}

#: Trees that a tree may import from, itself included.
TREES = {"pipeline": {"pipeline", "models"}, "models": {"models"}}


def imports(path: Path) -> Iterator[list[str]]:
    """Yield the parts of the name of each module of the project that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            first, *parts = name.split(".")
            if first == "livestep":
                yield parts


def package_of(path: Path) -> str:
    """Return the package or the root module of a file of a tree."""
    return path.relative_to(ROOT).with_suffix("").parts[1]


def found_in(tree: str) -> list[Path]:
    files = [path for path in (ROOT / tree).rglob("*.py") if path != ROOT / tree / "__init__.py"]
    assert len(files) > 50
    return files


@pytest.mark.parametrize("tree", LAYERS)
def test_every_package_and_root_module_has_its_place(tree: str) -> None:
    assert {package_of(path) for path in found_in(tree)} == set(LAYERS[tree])


@pytest.mark.parametrize("tree", LAYERS)
def test_no_import_points_upwards(tree: str) -> None:
    # Given the layers, from the top to the bottom
    height = {name: -index for index, name in enumerate(LAYERS[tree])}
    upwards, count = [], 0
    # When all imports of the tree are read, those within functions included
    for path in found_in(tree):
        package = package_of(path)
        for target, *parts in imports(path):
            count += 1
            is_upwards = target == tree and height[parts[0]] > height[package]
            if is_upwards or target not in TREES[tree]:
                upwards.append(f"{path.relative_to(ROOT)} imports {'.'.join([target, *parts])}")
    # Then none of them points upwards, or into a tree above, such as the public API
    assert count > 100
    assert upwards == []


@pytest.mark.parametrize("tree", LAYERS)
def test_the_package_lists_its_layers_in_their_order(tree: str) -> None:
    text = ast.get_docstring(ast.parse((ROOT / tree / "__init__.py").read_text(encoding="utf-8")))
    listed = re.findall(r"^ {4}(\w+)(?:/|\.py) ", text or "", re.MULTILINE)
    folders = [name for name in LAYERS[tree] if (ROOT / tree / name).is_dir()]
    assert [name for name in LAYERS[tree] if name in listed] == listed
    assert set(folders) <= set(listed)
