"""The table in the docs is the one that the tests run."""

from __future__ import annotations

from tests.hostile.hostile_catalogue import README, markdown
from tests.hostile.hostile_records import KINDS
from tests.hostile.hostile_settings import SETTINGS
from tests.hostile.model_directories import DIRECTORIES
from tests.hostile.service_states import STATES


def test_the_readme_equals_the_tables() -> None:
    assert README.read_text(encoding="utf-8") == markdown(), "run: python -m tests.hostile"


def test_each_row_has_a_unique_name_and_an_expected_outcome() -> None:
    for rows in (*(kind.rows for kind in KINDS.values()), SETTINGS, DIRECTORIES, STATES):
        names = [row.name for row in rows]
        assert len(set(names)) == len(names)
    assert all(row.message for row in (*SETTINGS, *DIRECTORIES, *STATES))
