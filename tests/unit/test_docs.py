"""The code on the pages of `docs/` runs, in order, without services."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.code_blocks import ROOT, run_code_blocks

PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_code_block_of_a_page_runs_in_order(page: Path, tmp_path: Path) -> None:
    assert run_code_blocks(page, tmp_path, {"OMP_NUM_THREADS": "1"}) > 0


def test_the_readme_links_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert PAGES
    assert [page.name for page in PAGES if f"docs/{page.name}" not in readme] == []
