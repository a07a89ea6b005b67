"""Rows that are left out are listed once, and no file is lost."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import click
import orjson
import pytest
from rich.console import Console

from livestep.pipeline.clients.event_record import EventRecord
from livestep.pipeline.clients.record_sender import RecordSender
from livestep.pipeline.publishing.columns import BadRow
from livestep.pipeline.publishing.expiry import Expiry
from livestep.pipeline.publishing.files import LineError
from livestep.pipeline.publishing.interrupts import Interrupts
from livestep.pipeline.publishing.position import Position
from livestep.pipeline.publishing.publication import Course, Publication
from livestep.pipeline.publishing.rejects import Rejects


class SentAtOnce:
    """Acts as a broker that acknowledges each record at once."""

    def __init__(self) -> None:
        self.delivered_count = 0
        self.delivered_number_max = 0
        self.undelivered: list[EventRecord] = []
        self.unanswered: list[EventRecord] = []

    def send(self, records: Sequence[EventRecord]) -> None:
        self.delivered_count += len(records)
        self.delivered_number_max = records[-1].number

    def flush(self, silence_s_max: float = 0) -> None:
        """Nothing is pending."""


def publication(
    position: Position | None = None, rejects: Rejects | None = None
) -> tuple[Publication, io.StringIO]:
    """Create a publication, and the stream of its messages."""
    told = io.StringIO()
    console = Console(file=told, highlight=False, markup=False)
    course = Course("rows.csv", "events", True, rejects=rejects)
    expiry = Expiry("events", "kafka:9092", {}, console.print)
    sender = cast(RecordSender, SentAtOnce())
    return Publication(course, position or Position(), sender, Interrupts(), console, expiry), told


def good(number: int, *, is_doubtful: bool = False) -> EventRecord:
    return EventRecord(number, number + 1, b"k", b"1", 5, [], False, is_doubtful)


def bad(number: int) -> BadRow:
    return BadRow(number, number + 1, "k", "soon")


def listed(path: Path) -> list[int]:
    return [orjson.loads(line)["row"] for line in path.read_bytes().splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("k,a\nx,1\n")
    return path


# ---- which file is accepted


def test_the_published_file_is_refused_under_any_name(file: Path, tmp_path: Path) -> None:
    (tmp_path / "symbolic").symlink_to(file)
    (tmp_path / "hard").hardlink_to(file)
    for path in (file, tmp_path / "symbolic", tmp_path / "hard", tmp_path / "." / "rows.csv"):
        with (
            file.open("rb") as source,
            pytest.raises(click.BadParameter, match="is the published file itself"),
        ):
            Rejects(path, source)
    assert file.read_text() == "k,a\nx,1\n"
    with file.open("rb") as source:
        Rejects(tmp_path / "other.jsonl", source)


@pytest.mark.parametrize("text", ["", "-"])
def test_a_missing_path_is_wrong_usage(text: str) -> None:
    with pytest.raises(click.BadParameter, match="the path of a file is missing"):
        Rejects(Path(text), io.BytesIO())


def test_a_file_that_cant_be_opened_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(click.BadParameter, match="No such file or directory"):
        Rejects(tmp_path / "nowhere" / "rejects.jsonl", io.BytesIO()).open(0)


# ---- what happens to an existing file


def test_an_existing_file_is_replaced_when_the_first_row_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    path.write_text("of another day\n")
    with Rejects(path, io.BytesIO()) as rejects:
        rejects.open(0)
        assert path.read_text() == "of another day\n"
        publication(rejects=rejects)[0].run([[bad(1), good(2), bad(3)]])
    assert listed(path) == [1, 3]
    # And a publish without rejects leaves none behind
    with Rejects(path, io.BytesIO()) as rejects:
        rejects.open(0)
        publication(rejects=rejects)[0].run([[]])
    assert listed(path) == []


def test_an_existing_file_remains_if_no_row_can_be_read(tmp_path: Path) -> None:
    def rows() -> Iterator[list[EventRecord]]:
        raise LineError("rows.jsonl", 1, "there is no member")
        yield

    path = tmp_path / "rejects.jsonl"
    path.write_text("of another day\n")
    with pytest.raises(LineError), Rejects(path, io.BytesIO()) as rejects:
        rejects.open(0)
        publication(rejects=rejects)[0].run(rows())
    assert path.read_text() == "of another day\n"


@pytest.mark.parametrize("done_row_count", range(1, 8))
def test_a_continued_publish_lists_each_row_once(tmp_path: Path, done_row_count: int) -> None:
    """This includes rows after those that are done: the previous publish had read them."""
    records = [bad(1), good(2), bad(3), good(4), bad(5), good(6), bad(7)]
    path = tmp_path / "rejects.jsonl"
    with Rejects(path, io.BytesIO()) as rejects:
        rejects.open(0)
        publication(rejects=rejects)[0].run([records[:2], records[2:5]])
    with Rejects(path, io.BytesIO()) as rejects:
        rejects.open(done_row_count)
        publication(Position(done_row_count), rejects)[0].run([records])
    assert listed(path) == ([1, 3, 5] if done_row_count == 7 else [1, 3, 5, 7])


def test_a_file_with_other_content_is_not_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    for text in ('{"row":1}\nnotes\n', "[]\n", '{"k":1}\n', '{"row":"1"}\n'):
        path.write_text(text)
        with pytest.raises(click.BadParameter, match="is not a row that was left out"):
            Rejects(path, io.BytesIO()).open(1)
        assert path.read_text() == text


def test_a_reason_that_is_not_utf_8_is_escaped(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    with Rejects(path, io.BytesIO()) as rejects:
        rejects.open(0)
        rejects.write(BadRow(1, 2, "\udcff", "\udcfe"))
    assert orjson.loads(path.read_bytes()) == {
        "row": 1,
        "line": 2,
        "key": "\\udcff",
        "reason": "\\udcfe",
    }


# ---- messages


def test_a_skip_beyond_the_end_is_reported_with_the_number_of_rows() -> None:
    done, told = publication(Position(5))
    done.run([[good(1)]])
    assert done.is_skip_beyond_end
    assert done.row_count == 1
    assert "rows.csv has only 1 row" in told.getvalue()
    assert "--skip" not in told.getvalue()
    for count in (1, 2):
        done, told = publication(Position(1))
        done.run([[good(1), good(2)][:count]])
        assert not done.is_skip_beyond_end
        assert f"all {count} rows are done: --skip {count}" in told.getvalue()


def test_there_is_a_warning_about_the_first_doubtful_time() -> None:
    done, told = publication()
    done.run([[good(1), good(2, is_doubtful=True), good(3, is_doubtful=True)]])
    assert told.getvalue().count("is it in milliseconds?") == 1
    assert "line 3: the timestamp 5 (1970-01-01T00:00:00+00:00) is before 1980" in told.getvalue()
