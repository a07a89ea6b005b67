"""The documentation: its code runs, its links lead somewhere, and its tables are true."""

from __future__ import annotations

import inspect
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import livestep
from docs.tools import settings_page
from docs.tools.picture import animated
from tests.bench import results
from tests.support.code_blocks import LIVE_PAGES, ROOT, code_blocks, run_code_blocks

PAGES = sorted((ROOT / "docs").glob("*.md"))

#: Their code runs without services; that of `LIVE_PAGES` runs in tests/services/test_live_pages.py.
PAGES_OFFLINE = [
    page for page in PAGES if code_blocks(page) and f"docs/{page.name}" not in LIVE_PAGES
]

#: All documents: the pages, and those next to what they describe.
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *(
        document
        for folder in ("deploy", "docs", "models", "pipeline", "tests")
        for document in sorted((ROOT / folder).rglob("*.md"))
    ),
]

#: A link of Markdown to a file of the project, and the part of the page after `#`.
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")

#: A path of the project in the text of a page.
_PATH = re.compile(r"`((?:pipeline|models|deploy|tests|docs)/[\w/.-]*)`")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES_OFFLINE, ids=lambda page: page.name)
def test_every_code_block_of_a_page_runs_in_order(page: Path, tmp_path: Path) -> None:
    assert run_code_blocks(page, tmp_path, {"OMP_NUM_THREADS": "1"}) > 0


def test_the_readme_is_short_and_links_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 200
    assert len(PAGES) >= 11
    assert [page.name for page in PAGES if f"docs/{page.name}" not in readme] == []


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_path_of_a_document_leads_to_a_file_of_the_project(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [path for path in _PATH.findall(text) if not (ROOT / path).exists()]
    for path, heading in _LINK.findall(text):
        target = page.parent / path if path else page
        if not target.exists():
            missing.append(path)
        elif heading and heading not in _headings(target):
            missing.append(f"{path}#{heading}")
    assert missing == []


def test_the_architecture_says_where_to_start_for_many_changes_each_with_a_file() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = text.partition("| if you want to change |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(rows) >= 15
    assert [row for row in rows if not _PATH.search(row)] == []


def test_each_name_in_the_architecture_is_in_the_file_that_it_is_said_to_be_in() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    places = re.findall(r"`(\w+)` in `([\w/.]+\.py)`", text)
    assert len(places) >= 8
    assert [
        (name, file)
        for name, file in places
        if not re.search(
            rf"^(?:class|def) {name}\b", (ROOT / file).read_text("utf-8"), re.MULTILINE
        )
    ] == []


def test_the_page_of_settings_is_what_its_generator_writes() -> None:
    text = settings_page.PAGE.read_text(encoding="utf-8")
    assert text == settings_page.page(text), "run: python -m docs.tools.settings_page"


def test_a_page_without_a_place_for_the_settings_is_an_error() -> None:
    with pytest.raises(ValueError, match="settings"):
        settings_page.page("# Settings\n")


def test_the_tables_of_speed_are_those_of_the_newest_results(tmp_path: Path) -> None:
    newest = results.read(max(results.RESULTS.glob("*.json")))
    (tmp_path / "docs").mkdir()
    for page, _ in (results.TABLE, results.SHAPES_TABLE):
        (tmp_path / page).write_text((ROOT / page).read_text(encoding="utf-8"), encoding="utf-8")
    for page in results.update_pages(tmp_path, newest):
        assert (tmp_path / page).read_text(encoding="utf-8") == (ROOT / page).read_text("utf-8")


def test_a_page_without_markers_gets_no_table_of_speed(tmp_path: Path) -> None:
    newest = results.read(max(results.RESULTS.glob("*.json")))
    (tmp_path / "README.md").write_text("# Livestep\n", encoding="utf-8")
    with pytest.raises(ValueError, match="README.md has no <!-- bench -->"):
        results.update_pages(tmp_path, newest)


def test_every_public_class_and_function_has_a_docstring_for_the_api_reference() -> None:
    public = {name: getattr(livestep, name) for name in livestep.__all__}
    shown = {
        name: value
        for name, value in public.items()
        if inspect.isclass(value) or inspect.isfunction(value)
    }
    assert len(shown) > 40
    assert [name for name, value in shown.items() if not value.__doc__] == []


def test_the_picture_of_predictions_is_an_image_whose_lines_arrive_one_by_one() -> None:
    picture = (ROOT / "docs" / "images" / "predictions.svg").read_text(encoding="utf-8")
    assert ElementTree.fromstring(picture).tag.endswith("svg")
    assert picture.count("@keyframes livestep-show-") >= 15


def test_a_line_of_the_picture_is_hidden_until_it_was_printed() -> None:
    drawn = animated("<svg><style></style></svg>", [0.0, 5.0], last_s=5.0)
    first, second = re.findall(r"@keyframes .*", drawn)
    assert "0%, 0.00% { opacity: 0 }" in first
    assert "0%, 50.00% { opacity: 0 }" in second
    with pytest.raises(ValueError, match="style sheet"):
        animated("<svg></svg>", [0.0])


def _headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
