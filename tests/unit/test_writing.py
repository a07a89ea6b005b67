"""The text of the project follows `docs/writing.md`: its worst phrases don't come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.code_blocks import ROOT

#: What is not written any more; `docs/writing.md` says what instead.
PHRASES = {
    "is no X": re.compile(
        r"(?<!there )(?<!That )\bis no (?!longer\b|more\b|need\b)", re.IGNORECASE
    ),
    "stands there": re.compile(r"\bstands? (?:there|in|here)\b"),
    "begin anew": re.compile(r"\banew\b"),
    "go on": re.compile(r"\bgo(?:es)? on\b(?! to\b)"),
    "whoever": re.compile(r"\bwho(?:so)?ever\b", re.IGNORECASE),
    "what becomes of": re.compile(r"\bbecomes? of\b"),
    "may be had": re.compile(r"\bmay be had\b"),
    "for good": re.compile(r"\bfor good\b(?! reason)"),
}

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_none_of_the_worst_phrases(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.name == "writing.md":
        # Its tables show what not to write.
        text = text.partition("## Terms")[0]
    # A generated table has the words of the program.
    text = re.sub(r"<!-- settings -->.*<!-- /settings -->", "", text, flags=re.DOTALL)
    found = {name: pattern.findall(text) for name, pattern in PHRASES.items()}
    assert {name: hits for name, hits in found.items() if hits} == {}


@pytest.mark.parametrize(
    "text",
    ["It is no number.", "The key begins anew.", "The others go on.", "Whoever reads it"],
)
def test_a_bad_phrase_is_found(text: str) -> None:
    assert [name for name, pattern in PHRASES.items() if pattern.search(text)] != []
