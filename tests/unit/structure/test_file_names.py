"""A file's name alone says which file is meant: in a traceback, an editor's tab, a search."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[3]
CODE = ("pipeline", "models", "deploy", "tests")

# Python and pytest require these names.
REPEATABLE = {"__init__.py", "__main__.py", "conftest.py"}


def test_each_file_name_is_used_once() -> None:
    # Given all files of the project
    paths = [path for folder in CODE for path in (ROOT / folder).rglob("*.py")]
    assert len(paths) > 300

    # When they are grouped by name
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if path.name not in REPEATABLE:
            by_name[path.name].append(str(path.relative_to(ROOT)))

    # Then each name has one file
    assert [paths for paths in by_name.values() if len(paths) > 1] == []
