"""What users install: the wheel, and the sdist, each in an environment with nothing else.

Where cargo is installed, the wheel is built with it and has the native loops; the sdist is always
installed without it, as on a machine of a user who has no cargo.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest

from livestep.models.worker_extra import WORKER_PACKAGES
from tests.support.code_blocks import ROOT

#: What the package is built from.
SOURCES = (
    *("deploy", "docs", "livestep", "models", "pipeline"),
    *("README.md", "pyproject.toml", "setup.py", "MANIFEST.in"),
)

#: Whether the native loops can be built.
HAS_CARGO = shutil.which("cargo") is not None

#: The library of the native loops, in a wheel and in an installation.
LIBRARY = "livestep/pipeline/native/_native.abi3.so"

#: The list of a wheel's files, with their checksums.
RECORD = f"livestep-{version('livestep')}.dist-info/RECORD"

#: One folder for all builds, and for make's: most of the time goes into the dependencies.
CARGO_TARGET = {"CARGO_TARGET_DIR": str(ROOT / ".livestep" / "native-target")}

#: A document of the project, as a text may name it.
DOCUMENT = re.compile(r"\b(?:deploy|docs|models|pipeline)/[\w./-]+\.(?:conf|md|txt)\b")

#: A port where nothing listens.
NOWHERE = "127.0.0.1:1"


class Installed(NamedTuple):
    """An environment with the package and what the client needs.

    Attributes:
        python: Its interpreter.
        livestep: Its command.
        packages: Its site-packages.
    """

    python: Path
    livestep: Path
    packages: Path


def run(
    command: Sequence[str | Path], cwd: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command, without this process's settings for Python and Livestep."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "LIVESTEP_"))
    }
    return subprocess.run(
        command,
        cwd=cwd,
        env=clean | {"COLUMNS": "100"} | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )


def run_well(command: Sequence[str | Path], cwd: Path, **variables: str) -> str:
    """Run a command that has to succeed, and return what it prints."""
    result = run(command, cwd, **variables)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build(hook: str, source: Path, output: Path, **variables: str) -> Path:
    """Build a wheel or an sdist by setuptools' own hook (PEP 517)."""
    output.mkdir()
    code = f"import sys; from setuptools import build_meta; build_meta.{hook}(sys.argv[1])"
    run_well([sys.executable, "-c", code, output], source, **CARGO_TARGET, **variables)
    (built,) = output.iterdir()
    return built


def without_cargo(folder: Path) -> dict[str, str]:
    """Make a PATH with the compilers and the shell, but without cargo."""
    folder.mkdir()
    for name in ("cc", "gcc", "ld", "sh", "uname", "env"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return {"PATH": str(folder)}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, built from a copy of the sources: building writes into them."""
    folder = tmp_path_factory.mktemp("sdist")
    return build("build_sdist", copy_sources(folder / "source"), folder / "dist")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    return build("build_wheel", copy_sources(folder / "source"), folder / "dist")


def copy_sources(target: Path) -> Path:
    """Copy what the package is built from, links as links."""
    target.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, target)
        else:
            ignored = shutil.ignore_patterns("__pycache__", "*.so", "target", "Cargo.lock")
            shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=ignored)
    return target


@pytest.fixture(scope="module")
def constraints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pinned versions, with that of the setuptools that this process has."""
    file = tmp_path_factory.mktemp("constraints") / "constraints.txt"
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    file.write_text(f"{pins}\nsetuptools=={version('setuptools')}\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def dependencies(constraints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A site-packages with the client's dependencies: most of the time goes into these."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = tmp_path_factory.mktemp("dependencies")
    yield install(folder, project["dependencies"], constraints)
    shutil.rmtree(folder)  # 100 MB, which pytest would keep for three runs


@pytest.fixture(scope="module", params=["wheel", "sdist"])
def installed(
    request: pytest.FixtureRequest,
    dependencies: Path,
    constraints: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Installed:
    """`pip install` of the wheel or the sdist; what it needs beyond `dependencies` is added."""
    built: Path = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("environment")
    path = {} if request.param == "wheel" else without_cargo(folder / "programs")
    packages = install(folder, [str(built)], constraints, besides=dependencies, **path)
    return Installed(folder / "bin" / "python", folder / "bin" / "livestep", packages)


def install(
    folder: Path,
    wanted: Sequence[str],
    constraints: Path,
    besides: Path | None = None,
    **variables: str,
) -> Path:
    """Install packages into an empty environment.

    Args:
        folder: Becomes the environment.
        wanted: As for pip.
        constraints: Versions.
        besides: Another environment's site-packages, whose packages count as installed.
        variables: For pip and what it runs.

    Returns:
        packages: The environment's site-packages.
    """
    venv.create(folder, symlinks=True, with_pip=False)
    python = folder / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run_well([python, "-c", where], folder).strip())
    if besides is not None:
        (packages / "besides.pth").write_text(str(besides))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    # The versions by variable: they hold where pip builds an sdist, too.
    pinned = {name: str(constraints) for name in ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT")}
    run_well([*pip, "install", "-q", "--no-compile", *wanted], folder, **pinned, **variables)
    return packages


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """A folder with modules of a user's own, named as ours: importing one of them is an error."""
    (tmp_path / "models.py").write_text("raise RuntimeError('the models of a user')")
    for name in ("pipeline", "deploy", "docs", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('{name} of a user')")
    return tmp_path


def test_the_wheel_of_the_sdist_is_the_wheel_of_the_sources(
    wheel: Path, sdist: Path, tmp_path: Path
) -> None:
    # Given
    shutil.unpack_archive(sdist, tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()

    # When
    second = build("build_wheel", unpacked, tmp_path / "dist")

    # Then they are equal; the library may name the folder that it was built in
    assert second.name == wheel.name
    first_files, second_files = contents(wheel), contents(second)
    assert (LIBRARY in first_files) == HAS_CARGO
    assert first_files.keys() == second_files.keys()
    unlike = {name for name in first_files if first_files[name] != second_files[name]}
    assert unlike <= {LIBRARY, RECORD}


@pytest.mark.skipif(not HAS_CARGO, reason="needs cargo")
def test_a_wheel_with_the_native_loops_is_for_one_platform_and_has_no_sources_of_them(
    wheel: Path,
) -> None:
    assert re.fullmatch(r"livestep-.*-cp311-abi3-.*_\w+\.whl", wheel.name)
    assert not [name for name in contents(wheel) if name.endswith((".rs", "Cargo.toml"))]


def test_a_wheel_that_is_built_without_cargo_is_for_every_platform(tmp_path: Path) -> None:
    path = without_cargo(tmp_path / "programs")
    built = build("build_wheel", copy_sources(tmp_path / "source"), tmp_path / "dist", **path)

    assert built.name.endswith("-py3-none-any.whl")
    assert LIBRARY not in contents(built)


@pytest.mark.skipif(not HAS_CARGO, reason="needs cargo")
def test_a_wheel_is_built_even_if_cargo_fails(tmp_path: Path) -> None:
    # Given a cargo without a network and without crates
    offline = {"CARGO_NET_OFFLINE": "true", "CARGO_HOME": str(tmp_path / "empty")}

    # When
    built = build("build_wheel", copy_sources(tmp_path / "source"), tmp_path / "dist", **offline)

    # Then
    assert LIBRARY not in contents(built)
    assert "livestep/pipeline/native/__init__.py" in contents(built)


def test_the_sdist_has_the_sources_of_the_native_loops(sdist: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(sdist, tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    crate = unpacked / "livestep" / "pipeline" / "native"
    sources = {path.name for path in (ROOT / "pipeline" / "native" / "src").iterdir()}

    assert "lib.rs" in sources
    assert {path.name for path in (crate / "src").iterdir()} == sources
    assert (crate / "Cargo.toml").is_file()
    assert not list(crate.rglob("*.so"))


def test_an_installation_reports_which_loops_run(
    request: pytest.FixtureRequest, installed: Installed, tmp_path: Path
) -> None:
    is_native = (installed.packages / LIBRARY).is_file()
    loops = (
        "native" if is_native else "Python (not built: install cargo, and install livestep again)"
    )
    expected = f"livestep, version {version('livestep')}, loops: "

    assert is_native == (HAS_CARGO and request.node.callspec.params["installed"] == "wheel")
    assert run_well([installed.livestep, "--version"], tmp_path) == f"{expected}{loops}\n"
    off = run_well([installed.livestep, "--version"], tmp_path, LIVESTEP_NATIVE="off")
    assert off == f"{expected}Python (LIVESTEP_NATIVE=off)\n"


def contents(wheel: Path) -> dict[str, bytes]:
    """Read all files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_building_writes_nothing_into_the_sources(wheel: Path, sdist: Path) -> None:
    assert not (ROOT / "build").exists()
    assert wheel.exists() and sdist.exists()


def test_the_only_top_level_name_is_livestep(installed: Installed) -> None:
    (record,) = installed.packages.glob("livestep-*.dist-info/RECORD")
    files = [line.split(",")[0] for line in record.read_text().splitlines()]
    tops = {name.split("/")[0] for name in files if not name.startswith("../")}
    scripts = [name for name in files if name.startswith("../")]

    assert tops == {"livestep", record.parent.name}
    assert [Path(name).name for name in scripts] == ["livestep"]


def test_type_checkers_see_the_types(installed: Installed) -> None:
    assert (installed.packages / "livestep" / "py.typed").is_file()


def test_the_client_brings_nothing_of_the_worker(installed: Installed, tmp_path: Path) -> None:
    code = (
        "import sys; from importlib.util import find_spec; "
        "print([name for name in sys.argv[1:] if find_spec(name)])"
    )
    found = run_well([installed.python, "-c", code, *WORKER_PACKAGES], tmp_path)
    assert found.strip() in ("[]", "['xxhash']")  # some releases of kafka-python bring xxhash


def test_every_document_that_a_message_points_to_is_installed(installed: Installed) -> None:
    """A message names a document by `guide`, which returns the installed path."""
    package = installed.packages / "livestep"
    pointed: set[str] = set()
    for module in package.rglob("*.py"):
        tree = ast.parse(module.read_text(encoding="utf-8"))
        texts = documented_texts(tree)
        guided = set(guide_arguments(tree))
        pointed |= {one.value for one in guided if isinstance(one.value, str)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named = DOCUMENT.findall(node.value)
                is_message = node not in guided and node not in texts
                assert not (named and is_message), f"{module}: {named} without guide()"

    assert {"deploy/security/README.md", "deploy/security/redis-acl.conf"} <= pointed
    assert [name for name in sorted(pointed) if not (package / name).is_file()] == []


def documented_texts(tree: ast.AST) -> set[ast.expr]:
    """Find the docstrings."""
    return {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }


def guide_arguments(tree: ast.AST) -> Iterator[ast.Constant]:
    """Find what `guide` is called with."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "guide":
            yield from (one for one in node.args if isinstance(one, ast.Constant))


def test_the_docs_are_installed(installed: Installed) -> None:
    expected = {page.relative_to(ROOT) for page in (ROOT / "docs").rglob("*.md")}
    package = installed.packages / "livestep"
    assert expected
    assert {page.relative_to(package) for page in (package / "docs").rglob("*.md")} == expected


def test_the_client_works_without_the_worker(installed: Installed, tmp_path: Path) -> None:
    assert "Usage: livestep publish" in run_well(
        [installed.livestep, "publish", "--help"], tmp_path
    )
    code = "from livestep import DeadLetterReader, EventPublisher, PredictionReader; print('fine')"
    assert run_well([installed.python, "-c", code], tmp_path) == "fine\n"


@pytest.mark.parametrize("installed", ["wheel"], indirect=True)
def test_no_client_command_needs_more_than_is_installed_until_a_broker_is_asked(
    installed: Installed, tmp_path: Path
) -> None:
    # Given
    events = tmp_path / "events.jsonl"
    events.write_text('{"key": "a", "x": 1}\n')
    address = ("--bootstrap-servers", NOWHERE)
    commands: list[tuple[str | Path, ...]] = [
        (installed.livestep, "publish", events, "--topic", "t", "--key", "key", *address),
        (installed.livestep, "predictions", "--topic", "t", *address),
        (installed.livestep, "dead-letters", "--topic", "t", *address),
        (installed.livestep, "topics", "list", *address),
    ]

    # When they run at the same time: each looks for a broker for ten seconds.
    running = [
        subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in running]

    # Then
    for error, code in ends:
        assert NOWHERE in error
        assert "Traceback" not in error
        assert code == 4


def test_a_users_own_modules_disturb_nothing(installed: Installed, users_folder: Path) -> None:
    path = {"PYTHONPATH": "."}
    assert "version" in run_well([installed.livestep, "--version"], users_folder, **path)
    assert "--topic" in run_well([installed.livestep, "publish", "--help"], users_folder, **path)
    code = "from livestep import EventPublisher; print(EventPublisher.__name__)"
    assert run_well([installed.python, "-c", code], users_folder, **path) == "EventPublisher\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("worker", "--model", "m", "--input-topic", "a", "--output-topic", "b"),
        ("check", "--model", "m", "--input-topic", "a", "--output-topic", "b"),
        ("audit", "--model", "m", "--input-topic", "a", "--output-topic", "b"),
        ("model", "check", "package.module:Class"),
        ("example", "digits", "--model", "m", "--events", "e.jsonl"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_of_the_worker_names_what_to_install(
    installed: Installed, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    result = run([installed.livestep, *arguments], tmp_path)

    assert result.returncode == 2
    assert result.stdout == ""
    assert re.fullmatch(
        rf"error: livestep {arguments[0]} needs \w+, which is not installed: "
        r"pip install 'livestep\[worker\]'\n",
        result.stderr,
    )
    assert list(tmp_path.iterdir()) == []


def test_the_help_of_a_workers_command_needs_no_worker(
    installed: Installed, tmp_path: Path
) -> None:
    assert "--model" in run_well([installed.livestep, "worker", "--help"], tmp_path)


def test_a_name_of_the_worker_says_what_to_install(installed: Installed, tmp_path: Path) -> None:
    result = run([installed.python, "-c", "from livestep import GRU"], tmp_path)

    assert result.returncode == 1
    assert result.stderr.endswith(
        "livestep.GRU needs torch, which is not installed: pip install 'livestep[worker]'\n"
    )
