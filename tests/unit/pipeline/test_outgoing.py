"""What is sent in addition to predictions: a record refused twice is one dead letter."""

from types import SimpleNamespace

from livestep.pipeline.batch.outgoing import refused_records
from livestep.pipeline.columns.log_records import LogRecord


def test_a_record_is_one_dead_letter_with_its_first_reason_and_all_details():
    # Given a session gap, which shares its record with the event behind it, and another event
    late = LogRecord("events", 0, 7, 0, b"k", b"x", [])
    other = LogRecord("events", 1, 7, 0, b"k", b"x", [])
    batch = SimpleNamespace(records=[late, late, other])

    # When gap and event are refused, then it is by the first reason
    refusals = [(1, "end-without-beginning", "p"), (2, "b", "q"), (0, "not-finite-step", "r")]
    found = [(one.record, one.reason, one.detail) for one in refused_records(batch, refusals)]
    assert found == [(late, "end-without-beginning", "p; r"), (other, "b", "q")]
