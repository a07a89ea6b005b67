"""Which seeds the tests run: the same ones always, all that ever failed, and new ground."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import NamedTuple

#: Seeds of every run, of the newest edition: among them each fault strikes wherever it can.
FIXED = range(300)

#: Seeds that follow from the commit.
DERIVED_COUNT = 700

_ROOT = Path(__file__).parents[2]

#: What is run decides, where there is no git.
_SOURCES = ("pipeline", "models", "deploy", "tests/simulation")

#: Derived seeds begin beyond those that anybody would run by hand.
_DERIVED_FROM, _DERIVED_SPAN = 1_000_000, 1_000_000_000


class FailedSeed(NamedTuple):
    """A seed that has failed.

    Attributes:
        edition: Of its plan.
        seed: The seed.
        cause: What was wrong.
    """

    edition: int
    seed: int
    cause: str


_BUSY = "the group in memory did not wait for a member whose listener was busy"
_LATE = "the group in memory gave by an old assignment under a new generation"
_BOUND = "the bound for progress was too short for batches of one event"
_SLEPT = "a member that has slept through its loss, before it is told, was taken for an error"
_OLD_TOPIC = "a commit to a topic that was deleted was taken for another worker's"
_MEANWHILE = "a topic that was replaced during a recovery was taken for a log that had lost records"

#: All that ever failed, also by a fault of the simulator; a seed of an edition keeps its plan.
FAILED = (
    FailedSeed(1, 1365, _LATE),
    FailedSeed(1, 1440, _BUSY),
    FailedSeed(1, 1549, _BOUND),
    FailedSeed(1, 1761, _BUSY),
    FailedSeed(1, 1886, _BUSY),
    FailedSeed(1, 1906, _BUSY),
    FailedSeed(1, 2485, _BUSY),
    FailedSeed(1, 2985, _BUSY),
    FailedSeed(1, 3305, _BUSY),
    FailedSeed(1, 3832, _BUSY),
    FailedSeed(1, 4674, _BUSY),
    FailedSeed(1, 4924, _BUSY),
    FailedSeed(1, 5055, _SLEPT),
    FailedSeed(1, 5684, _BOUND),
    FailedSeed(1, 6080, _BUSY),
    FailedSeed(1, 6582, _BUSY),
    FailedSeed(2, 25, _OLD_TOPIC),
    FailedSeed(2, 2679, _MEANWHILE),
)


def derived_seeds(source: str | None = None) -> range:
    """Derive seeds from what is tested, so that each commit explores new ground.

    Args:
        source: Names it; by default the commit, or without git the source files.

    Example:
        >>> derived_seeds("0a1b") == derived_seeds("0a1b"), len(derived_seeds("0a1b"))
        (True, 700)
    """
    digest = hashlib.sha256((source or _commit() or _source_files()).encode()).digest()
    first = _DERIVED_FROM + int.from_bytes(digest[:8], "big") % _DERIVED_SPAN
    return range(first, first + DERIVED_COUNT)


def _commit() -> str:
    """Name the commit; nothing where there is none."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=_ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""  # no git, or an unpacked archive
    return done.stdout.strip()


def _source_files() -> str:
    """Hash the source files."""
    digest = hashlib.sha256()
    for folder in _SOURCES:
        for path in sorted((_ROOT / folder).rglob("*.py")):
            digest.update(path.relative_to(_ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def repeat_line(seed: int, edition: int, ablation: str | None = None) -> str:
    """Write the one line that repeats a seed."""
    return f"make simulate SEED={seed} EDITION={edition}" + (
        f" ABLATION={ablation}" if ablation else ""
    )
