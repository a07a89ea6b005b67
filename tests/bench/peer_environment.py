"""What the peers are made of: a virtual environment and a folder of jars, made on first use.

Hides: pip, Maven, and when something has to be made again (whenever what it is made from changes).
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from livestep.deploy.local.child_process import tethered
from livestep.deploy.local.jars import DATA_ROOT

PEERS = Path(__file__).with_name("peers")

#: The package that has the data set; only its file is used, so nothing that it needs is installed.
DATA_PACKAGE = "aeon==1.6.0"

_DATA_FILE = "lib/python*/site-packages/aeon/datasets/data/JapaneseVowels/JapaneseVowels_TEST.ts"

#: Lines of a failed command's output that the error shows.
_ERROR_LINES = 15


class PeerError(RuntimeError):
    """Raised if what a peer needs can't be installed or built; says what the tool said."""


@dataclass(frozen=True)
class PeerEnvironment:
    """Where the peers' things are.

    Attributes:
        directory: The virtual environment.
        java_directory: Jars and classes of the Java peer.
    """

    directory: Path = DATA_ROOT / "bench-env"
    java_directory: Path = DATA_ROOT / "bench-java"

    @property
    def python(self) -> Path:
        """The interpreter of the virtual environment."""
        return self.directory / "bin" / "python"

    @property
    def java_class_path(self) -> str:
        """Class path of the Java peer."""
        return f"{self.java_directory / 'target' / 'classes'}:{self.java_directory / 'jars'}/*"

    def data_file(self, on_step: Callable[[str], None]) -> Path:
        """Return the file of utterances, installing the package that has it if need be."""
        self._make_environment(on_step)
        if not (found := sorted(self.directory.glob(_DATA_FILE))):
            on_step(f"installing {DATA_PACKAGE} for its data")
            self._pip("--no-deps", DATA_PACKAGE)
            found = sorted(self.directory.glob(_DATA_FILE))
        if not found:
            raise PeerError(f"{DATA_PACKAGE} has no {Path(_DATA_FILE).name}")
        return found[0]

    def install_python_peers(self, on_step: Callable[[str], None]) -> None:
        """Install the libraries of the Python peers, unless they are there."""
        self._make_environment(on_step)
        requirements = PEERS / "requirements.txt"
        stamp = Stamp(self.directory / "peers.stamp", [requirements])
        if not stamp.is_current():
            on_step("installing the Python peers (about half a minute)")
            self._pip("--requirement", str(requirements))
            stamp.write()

    def build_java_peer(self, on_step: Callable[[str], None]) -> None:
        """Compile the Java peer and fetch its jars, unless that is done.

        Raises:
            PeerError: If Maven is missing or fails.
        """
        if shutil.which("mvn") is None:
            raise PeerError("Maven is missing: apt-get install maven; or choose other --rows")
        sources = [PEERS / "java" / "pom.xml", PEERS / "java" / "GruStreams.java"]
        stamp = Stamp(self.java_directory / "build.stamp", sources)
        if not stamp.is_current():
            on_step("building the Kafka Streams peer (about a minute)")
            self.java_directory.mkdir(parents=True, exist_ok=True)
            pom, target = str(sources[0]), f"-Dbench.directory={self.java_directory.resolve()}"
            _run(["mvn", "--quiet", "--batch-mode", "--file", pom, target, "package"])
            stamp.write()

    def export_onnx(self, weights: Path, path: Path) -> None:
        """Write the model for the Java peer."""
        script = str(PEERS / "export_onnx.py")
        _run(["env", f"BENCH_WEIGHTS={weights}", str(self.python), script, str(path)])

    def version(self, package: str) -> str:
        """Return the version of a package in the virtual environment."""
        code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
        return _run([str(self.python), "-c", code]).strip()

    def _make_environment(self, on_step: Callable[[str], None]) -> None:
        if self.python.exists():
            return
        on_step("making an environment for the peers")
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(self.directory)])
        # All contestants step with the same torch, and it is not installed twice (5 GB): the
        # project's packages stand last on the path, so that a peer's own versions win.
        packages = next(self.directory.glob("lib/python*/site-packages"))
        torch_packages = Path(torch.__file__).resolve().parent.parent
        (packages / "project.pth").write_text(f"{torch_packages}\n", encoding="utf-8")

    def _pip(self, *arguments: str) -> None:
        # The project's packages are hidden meanwhile: pip would take them for installed.
        link = next(self.directory.glob("lib/python*/site-packages/project.pth"))
        text = link.read_text(encoding="utf-8")
        link.write_text("", encoding="utf-8")
        try:
            _run([str(self.python), "-m", "pip", "install", "--quiet", *arguments])
        finally:
            link.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Stamp:
    """A file that says from what something was made."""

    path: Path
    sources: Sequence[Path]

    def is_current(self) -> bool:
        """Whether it was made from the sources as they are now."""
        return self.path.exists() and self.path.read_text(encoding="utf-8") == self._digest()

    def write(self) -> None:
        """Note that it is made."""
        self.path.write_text(self._digest(), encoding="utf-8")

    def _digest(self) -> str:
        return hashlib.sha256(b"".join(source.read_bytes() for source in self.sources)).hexdigest()


def _run(command: Sequence[str]) -> str:
    """Run a command that ends with us; return what it printed.

    Raises:
        PeerError: If it fails; has the end of its output.
    """
    done = subprocess.run(
        tethered(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-_ERROR_LINES:])
        raise PeerError(f"{' '.join(map(str, command[:4]))} ... failed:\n{tail}")
    return done.stdout
