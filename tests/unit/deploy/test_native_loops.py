"""The line that `make` prints where the native loops are missing."""

from __future__ import annotations

import pytest

from livestep.deploy.native_loops import BUILD_COMMAND, COST, missing_text


@pytest.mark.parametrize("has_cargo", [True, False])
def test_nothing_is_reported_where_the_loops_are_built(has_cargo: bool) -> None:
    assert missing_text(is_built=True, has_cargo=has_cargo) is None


def test_without_cargo_the_line_names_what_to_install_and_the_cost() -> None:
    text = missing_text(is_built=False, has_cargo=False)
    assert text is not None
    assert "\n" not in text
    assert COST in text
    assert "cargo is not on the PATH: install Rust" in text


def test_after_a_failed_build_the_line_has_the_command_that_shows_why() -> None:
    text = missing_text(is_built=False, has_cargo=True)
    assert text is not None
    assert "\n" not in text
    assert text.endswith(BUILD_COMMAND)
