"""Documents that error messages point to."""

import re
from pathlib import Path

import pytest

from livestep.pipeline.guides import guide

PIPELINE = Path(__file__).parents[3] / "pipeline"

NAMES = sorted(
    {
        name
        for file in PIPELINE.rglob("*.py")
        for name in re.findall(r"""\bguide\(["']([^"']+)["']\)""", file.read_text())
    }
)


def test_messages_point_to_some_documents():
    assert "deploy/security/README.md" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_document_that_a_message_points_to_is_in_the_package(name):
    assert guide(name).is_absolute()
    assert guide(name).is_file()
