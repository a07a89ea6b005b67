"""Each wrong setting of the table ends the command with its exit code and one clear line."""

from __future__ import annotations

import os
import sys

import pytest

from livestep.pipeline.cli import main
from tests.hostile.hostile_settings import GOOD_FLAGS, SETTINGS, Row


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
def test_the_command_reports_what_is_wrong_and_starts_nothing(
    row: Row,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Given a command that is right but for one thing; what it does to the log's level is undone
    caplog.set_level("INFO", "livestep")
    for name in [name for name in os.environ if name.startswith("LIVESTEP_")]:
        monkeypatch.delenv(name)
    for name, value in row.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["livestep", "worker", *GOOD_FLAGS, *row.flags])

    # When it is run
    with pytest.raises(SystemExit) as end:
        main()

    # Then its exit code and its message are those of the table, without a trace or a secret
    said = capsys.readouterr()
    assert end.value.code == row.exit_code
    for piece in row.message:
        assert piece in said.err
    assert "Traceback" not in said.err and "sesame" not in said.err
    assert not said.out
    if row.exit_code != 2:
        assert said.err.startswith("error: ") and said.err.count("\n") == 1
