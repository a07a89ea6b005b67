"""What `livestep audit` prints, which keys it covers, and which events it judges."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from livestep import GRU, SequenceRules, save_model
from livestep.pipeline.audit.audit_report import Fault
from livestep.pipeline.audit.judge import Judge
from livestep.pipeline.audit.output_audit import audit
from livestep.pipeline.audit.unrolled import unroll_log
from livestep.pipeline.commands.audit import key_filter, print_report, report_json
from livestep.pipeline.errors import ConfigError
from tests.support.judged import CLEAN_AUDIT, event, faults, letter
from tests.support.worker_records import answers_to
from tests.support.world import small_model

FAULT = Fault("out_of_order", "predictions", 2, 17, "flat [1]", "timestep 3, not 4")


def printed(**changes: object) -> list[str]:
    console = Console(file=io.StringIO(), width=40, soft_wrap=True, highlight=False)
    print_report(dataclasses.replace(CLEAN_AUDIT, **changes), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_clean_report_ends_with_the_promise_that_was_checked() -> None:
    lines = printed()
    assert lines[0].split() == ["events", "100", "of", "4", "keys"]
    assert lines[-1].startswith("every event has its answers, once, in order")


def test_a_fault_is_printed_with_topic_partition_offset_and_key() -> None:
    lines = printed(out_of_order=1, examples=(FAULT,))
    assert "out of order: predictions/2/17, key 'flat [1]': timestep 3, not 4" in lines
    assert not any(line.startswith("every event") for line in lines)


def test_notes_and_records_that_were_not_judged_are_printed() -> None:
    lines = printed(not_judged=5, notes=("partition 0 begins late",))
    assert "note: partition 0 begins late" in lines
    assert any(line.split()[:3] == ["not", "judged", "5"] for line in lines)


def test_the_json_report_has_the_verdict_the_counts_and_the_faults() -> None:
    found = json.loads(report_json(dataclasses.replace(CLEAN_AUDIT, lost=1, examples=(FAULT,))))
    assert (found["is_clean"], found["lost"], found["events"]) == (False, 1, 100)
    assert found["examples"][0]["partition"] == 2
    assert found["examples"][0]["key"] == "flat [1]"


@pytest.mark.parametrize("kind", ["lost", "repeated", "out_of_order", "different"])
def test_each_count_alone_is_not_clean(kind: str) -> None:
    assert not dataclasses.replace(CLEAN_AUDIT, **{kind: 1}).is_clean


def test_repeated_records_are_no_fault_at_least_once() -> None:
    assert dataclasses.replace(CLEAN_AUDIT, repeated=3, may_repeat=True).is_clean
    assert not dataclasses.replace(CLEAN_AUDIT, lost=1, may_repeat=True).is_clean


def test_all_keys_are_covered_by_default() -> None:
    assert key_filter((), 1.0) is None


def test_named_keys_alone_are_covered() -> None:
    covers = key_filter(("a", "\udcff"), 1.0)
    assert covers is not None
    assert [key for key in (b"a", b"b", b"\xff", b"", None) if covers(key)] == [b"a", b"\xff"]


def test_a_share_of_the_keys_is_the_same_keys_each_time() -> None:
    keys = [b"key-%d" % number for number in range(10_000)]
    covers, again = key_filter((), 0.1), key_filter((), 0.1)
    assert covers is not None and again is not None
    chosen = [key for key in keys if covers(key)]
    assert 800 < len(chosen) < 1_200
    assert chosen == [key for key in keys if again(key)]
    assert not covers(None)


def test_some_keys_of_a_model_with_session_gaps_are_refused() -> None:
    model = small_model(rules=SequenceRules("many-to-one", session_gap_ms=1_000))
    with pytest.raises(ConfigError, match="audit all keys"):
        audit("127.0.0.1:1", "events", "predictions", model, key_filter=lambda key: True)


def judged_to(end: int, *, may_repeat: bool = False, repeat: bool = False) -> Judge:
    """Judge three answered events of one key up to an offset."""
    model = small_model()
    members = [{"x": [0.1, 0.2]}, {"x": [0.3, 0.4]}, {"x": [0.5, 0.6]}]
    records = [event(offset, **one) for offset, one in enumerate(members)]
    answers = answers_to(b"k", [("events", 0, n) for n in range(3)], members, model)
    judge = Judge("events", 1, model, judged={0: range(0, end)}, may_repeat=may_repeat)
    covered = [one for one in records if judge.covers((one.partition, one.offset))]
    judge.take_events(unroll_log(covered, model, judge.dead, lambda *_: None))
    for answer in [*answers, *(answers[:1] if repeat else [])]:
        judge.take_prediction(answer)
    return judge


def test_answers_to_events_that_are_not_judged_are_counted_and_no_fault() -> None:
    report = judged_to(2).report()
    assert faults(report) == (0, 0, 0, 0)
    assert (report.events, report.not_judged) == (2, 1)


def test_dead_letters_of_events_that_are_not_judged_are_counted_and_no_fault() -> None:
    judge = judged_to(3)
    judge.take_dead_letter(letter(event(9), "not-json"))
    report = judge.report()
    assert (report.not_judged, report.dead_letters, report.is_clean) == (1, 1, True)


def test_a_repeated_answer_is_an_example_only_if_it_is_a_fault() -> None:
    assert judged_to(3, repeat=True).report().examples[0].kind == "repeated"
    report = judged_to(3, repeat=True, may_repeat=True).report()
    assert (report.repeated, report.examples, report.is_clean) == (1, (), True)


def test_the_command_reports_a_broker_that_does_not_answer_in_one_line(tmp_path: Path) -> None:
    save_model(GRU(2, 4, 1), tmp_path)
    flags = ("--model", str(tmp_path), "--input-topic", "in", "--output-topic", "out")
    done = subprocess.run(
        [sys.executable, "-m", "livestep.pipeline.cli", "audit", *flags],
        env={**os.environ, "LIVESTEP_BOOTSTRAP_SERVERS": "127.0.0.1:1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("error: no Kafka broker answers at 127.0.0.1:1")
    assert done.stderr.count("\n") == 1
