"""A client loads no torch, which would take seconds and 600 MB."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from livestep import GRU, save_model
from livestep.models.worker_extra import WORKER_PACKAGES
from livestep.pipeline.cli import cli

#: What only a worker needs, but for two: kafka-python may load xxhash, and tenacity is small.
WORKERS_ONLY = (*sorted(WORKER_PACKAGES - {"tenacity", "xxhash"}), "confluent_kafka")

#: Prints which of these are loaded.
_REPORT = f"""
import json, sys
print(json.dumps([name for name in {WORKERS_ONLY!r} if name in sys.modules]), file=sys.stderr)
"""

_RUN_COMMAND = """
import sys
from livestep.pipeline.cli import main
sys.argv = ["livestep", *{arguments!r}]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
"""


def loaded_after(code: str) -> list[str]:
    """Run code in a fresh interpreter, and return the names in `WORKERS_ONLY` that it loaded."""
    result = subprocess.run(
        [sys.executable, "-c", code + _REPORT],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    names: list[str] = json.loads(result.stderr.splitlines()[-1])
    return names


def every_help(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """List the arguments that show the help of a command and of all commands below it."""
    helps = [(*path, "--help")]
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None
                helps += every_help(below, (*path, name))
    return helps


@pytest.mark.parametrize("arguments", [("--version",), *every_help(cli)], ids=" ".join)
def test_version_and_every_help_load_no_package_of_the_worker(arguments: tuple[str, ...]) -> None:
    assert loaded_after(_RUN_COMMAND.format(arguments=arguments)) == []


def test_the_clients_load_no_package_of_the_worker() -> None:
    names = "EventPublisher, PredictionReader, DeadLetterReader"
    assert loaded_after(f"from livestep import {names}") == []


def test_importing_livestep_takes_less_than_150_ms() -> None:
    code = """
import time
before_s = time.process_time()
import livestep
print(time.process_time() - before_s)
"""
    # Of the processor's time, and the best of five: the machine has other work, too.
    times_s = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
        for _ in range(5)
    ]
    assert min(times_s) < 0.150


def test_a_models_description_and_codec_are_available_without_torch(tmp_path: Path) -> None:
    save_model(GRU(2, 3, 1), tmp_path)
    code = f"""
from livestep import FieldError, ModelError, Number, encode
from livestep.models.disk.model_json import read_description
from livestep.pipeline.batch.packing import pack
from livestep.pipeline.types import Offset
from livestep.pipeline.batch.codec import codec_for
codec = codec_for(read_description({str(tmp_path)!r}))
assert codec.decode(b'{{"x": [1, 2]}}')
"""
    assert loaded_after(code) == []


def test_a_model_class_loads_torch() -> None:
    """Without this, the tests above would prove nothing."""
    assert "torch" in loaded_after("from livestep import GRU")


@pytest.mark.parametrize("name", ["livestep", "livestep.models.examples"])
def test_a_package_imports_late_what_type_checkers_see(name: str) -> None:
    # Given
    package = importlib.import_module(name)
    assert package.__file__ is not None
    tree = ast.parse(Path(package.__file__).read_text())
    imports = next(part for part in tree.body if isinstance(part, ast.If)).body
    homes = {
        alias.name: part.module
        for part in imports
        if isinstance(part, ast.ImportFrom)
        for alias in part.names
    }
    own = {name for name in package.__all__ if name not in homes}

    # Then
    assert set(homes) <= set(package.__all__) <= set(dir(package))
    assert all(name in vars(package) for name in own)
    for public, module in homes.items():
        assert module is not None
        there = getattr(importlib.import_module(module), public)
        assert getattr(package, public) is there
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing
