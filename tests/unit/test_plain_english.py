"""The project's text follows `docs/writing.md`: its worst phrases don't come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Translated idiom, each with an example; `docs/writing.md` lists what to write instead.
PHRASES = {
    r"(?<!there )\b(is|are|was|were) no (?!(longer|more|larger|finer|need)\b)": "It is no number.",
    r"\bis none of\b": "Its value is none of a, b.",
    r"\bstands? (there|in|here|beside)\b": "What stands there is kept.",
    r"\bas (it|they) stands?\b": "It is shown as it stands.",
    r"\banew\b": "The key begins anew.",
    r"\bgo(es)? on\b(?! to\b)": "The others go on.",
    r"\bwho(so|se)?ever\b": "Whoever reads it",
    r"\bbec[ao]mes? of\b": "what becomes of it",
    r"\b(may|can|to) be had\b": "It may be had there.",
    r"\bfor good\b(?! (reason|in)\b)": "It is refused for good.",
    r"\b(that|if) there isn't\b": "a category that there isn't",
    r"\bthe (slow|fast|careful) road\b": "the slow road, for poisoned batches",
    r"\blies? (in|at|there)\b": "It lies in Redis.",
    r"\bmend(s|ed|ing)?\b": "what mends it",
    r"\bnobody's business\b": "a value that is nobody's business",
    r"\bnone the worse\b": "It is none the worse.",
}

PATTERN = re.compile("|".join(f"(?:{phrase})" for phrase in PHRASES), re.IGNORECASE)

#: Folders whose text is checked, with those within them; the changelog is history.
FOLDERS = (
    "deploy",
    "docs",
    "models",
    "pipeline",
    "tests/bench",
    "tests/chaos",
    "tests/hostile",
    "tests/load",
    "tests/packaging",
    "tests/services",
    "tests/simulation",
    "tests/support",
    "tests/tour",
    "tests/unit/audit",
    "tests/unit/clients",
    "tests/unit/deploy",
    "tests/unit/models",
    "tests/unit/pipeline",
    "tests/unit/structure",
)

SUFFIXES = {".py", ".md", ".lua"}


def packages() -> list[Path]:
    """Return the files at the root, and each folder that has some text of its own."""
    folders = {
        file.parent
        for name in FOLDERS
        for file in (ROOT / name).rglob("*")
        if file.suffix in SUFFIXES
    }
    return [ROOT / "README.md", ROOT / "livestep" / "__init__.py", *sorted(folders)]


def text_of(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    if file.name == "writing.md":
        # Its tables show what not to write.
        text = text.partition("## Terms")[0]
    return text


@pytest.mark.parametrize("package", packages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_has_none_of_the_worst_phrases(package: Path) -> None:
    files = [package] if package.is_file() else sorted(package.iterdir())
    found = []
    for file in files:
        if file.suffix not in SUFFIXES or file == Path(__file__):
            continue
        text = text_of(file)
        for match in PATTERN.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{file.relative_to(ROOT)}:{line}: {match[0]!r}")
    assert found == []


@pytest.mark.parametrize("phrase", PHRASES)
def test_each_phrase_is_found_in_its_example(phrase: str) -> None:
    assert re.search(phrase, PHRASES[phrase], re.IGNORECASE)


@pytest.mark.parametrize(
    "text",
    ["There is no store.", "It is no longer open.", "It goes on to the next.", "a good reason"],
)
def test_plain_text_passes(text: str) -> None:
    assert not PATTERN.search(text)
