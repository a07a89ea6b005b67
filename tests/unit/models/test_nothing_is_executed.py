"""Nothing from outside is executed: no source has a call for it, and no file causes it."""

from __future__ import annotations

import ast
import os
import pickle
from pathlib import Path

import pytest
import torch

from livestep import GRU, ModelError, load_model, save_model

ROOT = Path(__file__).parents[3]
SOURCES = sorted(path for name in ("pipeline", "models") for path in (ROOT / name).rglob("*.py"))

#: Modules that run what they read.
FORBIDDEN_MODULES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve", "yaml"}

#: Functions that do.
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}


def dotted(node: ast.expr) -> str:
    """Return the name of what is called, such as `torch.load`; empty if it has none."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def breaches(source: str) -> list[str]:
    """Yield what a source must not contain, each with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        found += [
            f"{node.lineno}: import {module}"
            for module in modules
            if module.split(".")[0] in FORBIDDEN_MODULES
        ]
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            options = {
                one.arg: one.value.value
                for one in node.keywords
                if isinstance(one.value, ast.Constant)
            }
            is_unsafe = (
                name in FORBIDDEN_CALLS
                or (name == "torch.load" and options.get("weights_only") is not True)
                or (name.endswith(".load") and options.get("allow_pickle") is True)
                or options.get("shell") is True
            )
            found += [f"{node.lineno}: {name}"] if is_unsafe else []
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_can_execute_what_it_reads(path):
    assert breaches(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from marshal import loads",
        "def f():\n    import yaml.cyaml",
        "eval('1')",
        "x = [exec(y) for y in z]",
        "os.system('ls')",
        "torch.load('f')",
        "torch.load('f', weights_only=False)",
        "np.load('f', allow_pickle=True)",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_the_search_finds_forbidden_calls(source):
    assert len(breaches(source)) == 1
    assert breaches("torch.load('f', weights_only=True); model.eval(); re.compile('a')") == []


class Bomb:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "program.pt"])
@pytest.mark.parametrize("packages", [(), ("torchscript", "exported")], ids=["none", "programs"])
def test_a_pickle_in_a_model_directory_is_not_run(tmp_path, name, packages):
    # Given a model directory with a pickle in place of a file
    model, proof = tmp_path / "model", tmp_path / "proof"
    save_model(GRU(input_size=1, hidden_size=2, output_size=1), model)
    assert load_model(model).name
    bomb = pickle.dumps(Bomb(proof))
    pickle.loads(bomb)
    assert proof.is_dir()
    proof.rmdir()
    (model / name).write_bytes(bomb)

    # When it is loaded
    if name == "program.pt":
        load_model(model, allowed_packages=packages)  # a file that nothing names is not looked at
    else:
        with pytest.raises(ModelError):
            load_model(model, allowed_packages=packages)

    # Then the pickle did nothing
    assert not proof.exists()


def test_an_archive_of_torch_in_place_of_weights_is_not_run(tmp_path):
    model, proof = tmp_path / "model", tmp_path / "proof"
    save_model(GRU(input_size=1, hidden_size=2, output_size=1), model)
    torch.save({"weight": Bomb(proof)}, model / "model.safetensors")
    with pytest.raises(ModelError):
        load_model(model)
    assert not proof.exists()
