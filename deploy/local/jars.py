"""Apache Kafka's jars, fetched once by Maven and kept in the data folder.

    python -m livestep.deploy.local.jars

Hides: the version (only `kafka/pom.xml` has it), the cache, and two programs that fetch at the same
time.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from livestep.deploy.local.child_process import ServiceError, tethered

#: Folder for everything that a run leaves on disk; git ignores it.
DATA_ROOT = Path(__file__).resolve().parents[2] / ".livestep"

#: The broker's dependencies.
POM = Path(__file__).with_name("kafka") / "pom.xml"

#: Size of the download, for the message (Kafka 4.1.0 and its dependencies).
DOWNLOAD_MB = 43

#: Lines of Maven's output that an error shows.
MAVEN_ERROR_LINES = 8


def kafka_version() -> str:
    """Return the version of Apache Kafka that `kafka/pom.xml` names.

    Example:
        >>> kafka_version().split(".")[0]
        '4'
    """
    version = ElementTree.parse(POM).findtext("{*}properties/{*}kafka.version")
    assert version is not None, f"{POM} names no kafka.version"
    return version


def kafka_jars(cache: Path = DATA_ROOT) -> Path:
    """Return the folder that holds Kafka's jars; fetch them if it is missing or has another pom.

    An interrupted or failed run never leaves a folder that looks complete.

    Args:
        cache: Folder that holds `kafka-<version>/`.

    Raises:
        ServiceError: If Maven is missing or fails; has Maven's errors.
    """
    jars = cache.resolve() / f"kafka-{kafka_version()}"
    if not _is_complete(jars):
        cache.mkdir(parents=True, exist_ok=True)
        fetched = Path(tempfile.mkdtemp(prefix=f"{jars.name}-", suffix=".part", dir=cache))
        try:
            _fetch(fetched)
            _publish(fetched, jars)
        finally:
            shutil.rmtree(fetched, ignore_errors=True)
    return jars


def _is_complete(jars: Path) -> bool:
    """Whether the folder has a copy of the current pom."""
    copy = jars / POM.name
    return copy.is_file() and copy.read_bytes() == POM.read_bytes()


def _publish(fetched: Path, jars: Path) -> None:
    """Give the complete folder its name, unless another program was faster."""
    shutil.copyfile(POM, fetched / POM.name)
    if jars.exists() and not _is_complete(jars):
        shutil.rmtree(jars)
    try:
        fetched.rename(jars)
    except OSError:
        if not _is_complete(jars):
            raise


def _fetch(folder: Path) -> None:
    """Run Maven with a line of progress: a spinner on a terminal, two plain lines elsewhere."""
    console = Console(stderr=True, highlight=False)
    what = f"Fetching Apache Kafka {kafka_version()} with Maven ({DOWNLOAD_MB} MB, once)"
    if console.is_terminal:
        with console.status(what) as status:
            _run_maven(folder, lambda count: status.update(f"{what}: {count} files"))
    else:
        console.print(f"{what} ...")
        _run_maven(folder, lambda count: None)
    console.print(f"Apache Kafka {kafka_version()}: {len(list(folder.glob('*.jar')))} jars")


def _run_maven(folder: Path, on_download: Callable[[int], None]) -> None:
    if shutil.which("mvn") is None:
        raise ServiceError(
            "mvn is not on the PATH: install Maven (apt-get install maven, brew install maven)"
        )
    goal = "dependency:copy-dependencies"
    command = ["mvn", "-B", "-f", str(POM), goal, f"-DoutputDirectory={folder}"]
    lines: list[str] = []
    download_count = 0
    with subprocess.Popen(
        tethered(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as maven:
        assert maven.stdout is not None
        for line in maven.stdout:
            lines.append(line.rstrip())
            if "Downloaded from" in line:
                download_count += 1
                on_download(download_count)
    if maven.returncode != 0:
        errors = [line for line in lines if "ERROR" in line] or lines
        said = "\n".join(errors[:MAVEN_ERROR_LINES])
        raise ServiceError(
            f"Maven could not fetch Apache Kafka (exit status {maven.returncode}). "
            "Check the network, or the proxy and mirrors in ~/.m2/settings.xml. "
            f"Its errors:\n{said}"
        )


if __name__ == "__main__":
    try:
        print(kafka_jars())
    except ServiceError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
