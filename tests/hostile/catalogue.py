"""The whole table of hostile input, as Markdown."""

from __future__ import annotations

from pathlib import Path

from livestep.pipeline.exit_codes import ExitCode
from tests.hostile.model_directories import DIRECTORIES
from tests.hostile.records import KINDS, PREDICTED, TAKEN, VALUE_BYTES_MAX
from tests.hostile.service_states import STATES
from tests.hostile.settings import SETTINGS

#: The generated file.
README = Path(__file__).parent / "README.md"

_HEAD = """\
# What a worker does with hostile input

Made by `python -m tests.hostile` from the tables that the tests run; a test compares it with them.

- **Records** (`records.py`): each stands between good events, all in a few batches, once in memory
  (`test_records.py`) and once on real Kafka and Redis (`tests/services/test_hostile_records.py`,
  which adds compressed batches, an aborted transaction, and headers whose names are no UTF-8: a
  dead letter `bad-header`). The dead letters are just those of the table, and the independent audit
  finds every good event predicted as if the bad ones had not been there.
- **Settings** (`settings.py`): `livestep worker` with one setting that can't be right, behind good
  ones. It says one line, no trace and no secret, and starts nothing.
- **Model directories** (`model_directories.py`): a good directory, spoilt in one way. Nothing runs,
  and nothing of a size that is only stated is allocated.
- **Services** (`service_states.py`): real Kafka and Redis in a state with which no worker can go on
  (`tests/services/test_hostile_states.py`).
- Random bytes everywhere: `tests/unit/pipeline/test_fuzz_codec.py`, `test_fuzz_model.py` and
  `test_fuzz_state.py`.
"""


def row_count() -> int:
    """Count the rows of all tables."""
    records = sum(len(kind.rows) for kind in KINDS.values())
    return records + len(SETTINGS) + len(DIRECTORIES) + len(STATES)


def markdown() -> str:
    """Write the tables."""
    parts = [_HEAD, f"{row_count()} rows.\n"]
    for kind in KINDS.values():
        parts.append(
            _table(
                f"Records: {kind.what}",
                ("record", "outcome"),
                [(row.name, _outcome(row.outcome)) for row in kind.rows],
            )
        )
    parts.append(f"The longest value is {VALUE_BYTES_MAX:,} bytes here.\n")
    parts.append(
        _table(
            "Settings",
            ("setting", "exit code", "the message names"),
            [(row.name, str(row.exit_code), _codes(row.message)) for row in SETTINGS],
        )
    )
    parts.append(
        _table(
            "Model directories",
            ("what is wrong", "exit code", "ModelError says"),
            [(row.name, str(ExitCode.MODEL.value), _codes((row.message,))) for row in DIRECTORIES],
        )
    )
    parts.append(
        _table(
            "Services",
            ("state", "exit code", "error", "message (regular expression)"),
            [
                (row.name, str(row.error.exit_code), row.error.__name__, _codes((row.message,)))
                for row in STATES
            ],
        )
    )
    return "\n".join(parts)


def _outcome(outcome: str) -> str:
    return outcome if outcome in (PREDICTED, TAKEN) else f"dead letter `{outcome}`"


def _table(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"## {title}\n", _line(head), _line(("---",) * len(head)), *map(_line, rows)]
    return "\n".join(lines) + "\n"


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in cells) + " |"


def _codes(pieces: tuple[str, ...]) -> str:
    return ", ".join(f"`{piece}`" for piece in pieces)
