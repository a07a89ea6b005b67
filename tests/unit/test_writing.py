"""The text of the project follows `docs/writing.md`: its worst phrases don't come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.code_blocks import ROOT

#: What is not written any more; `docs/writing.md` says what instead.
PHRASES = {
    "is no X": re.compile(
        r"(?<!there )\bis no (?!longer\b|more\b|larger\b|need\b|request\b)", re.IGNORECASE
    ),
    "stands there": re.compile(r"\bstands? (?:there|in|here)\b"),
    "begin anew": re.compile(r"\banew\b"),
    "go on": re.compile(r"\bgo(?:es)? on\b(?! to\b)"),
    "whoever": re.compile(r"\bwho(?:so)?ever\b", re.IGNORECASE),
    "what becomes of": re.compile(r"\bbecomes? of\b"),
    "may be had": re.compile(r"\bmay be had\b"),
    "for good": re.compile(r"\bfor good\b(?! reason)"),
}

#: Where all text is looked at, besides the README: documents, docstrings, comments, messages.
FOLDERS = ("docs", "deploy/local", "deploy/security", "models")


def texts(folder: Path) -> list[Path]:
    """Return all files of a folder with text that people read."""
    return sorted(file for ending in ("*.md", "*.py") for file in folder.rglob(ending))


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_text_has_one_of_the_worst_phrases(folder: str) -> None:
    files = texts(ROOT / folder)
    assert len(files) >= 1
    assert [(str(file.relative_to(ROOT)), *found) for file in files for found in bad(file)] == []


def test_the_readme_has_none_of_the_worst_phrases() -> None:
    assert bad(ROOT / "README.md") == []


def bad(file: Path) -> list[tuple[str, str]]:
    """Return the name of each bad phrase in a file, with the line that it begins in."""
    text = file.read_text(encoding="utf-8")
    if file.name == "writing.md":
        # Its tables show what not to write.
        text = text.partition("## Terms")[0]
    lines = text.splitlines()
    return [
        (name, lines[text.count("\n", 0, hit.start())])
        for name, pattern in PHRASES.items()
        for hit in pattern.finditer(text)
    ]


@pytest.mark.parametrize(
    "text",
    ["It is no number.", "The key begins anew.", "The others go on.", "Whoever reads it"],
)
def test_a_bad_phrase_is_found(text: str) -> None:
    assert [name for name, pattern in PHRASES.items() if pattern.search(text)] != []
