"""The status line: since the last one, in the words of the seven verbs."""

import numpy as np

from livestep.pipeline.batch.packing import Batch, DeadRecord
from livestep.pipeline.columns.log_records import LogRecord
from livestep.pipeline.engine.status import DEAD_LETTER_INTERVAL_S, VERBS, DeadLetterLog, Meter


def batch(events, dead=0):
    marks = np.zeros(events, np.uint8)
    letters = [letter("no-key")] * dead
    return Batch([None] * events, None, None, marks, None, [], {}, letters)


def letter(reason, detail="", offset=0):
    return DeadRecord(LogRecord("events", 3, offset, 0, b"k", b"v", []), reason, detail)


def line(meter, **changes):
    return meter.line(**{"lag": 0, "pool_keys": 0, "partitions": 1, "replaying": 0, **changes})


def test_a_line_names_what_an_operator_asks_for():
    meter = Meter()
    meter.count(batch(30, dead=2), is_replay=False)
    meter.count(batch(10), is_replay=False)
    text = line(meter, lag=1_234_567, pool_keys=1_000, partitions=3)
    assert "lag 1,234,567, 1,000 keys in pool, 20 events a batch, 3 partitions" in text
    assert "2 dead letters" in text
    assert "replay" not in text
    assert all(f"{verb} 0.0" in text for verb in VERBS[1:])


def test_a_line_counts_since_the_last_one():
    meter = Meter()
    meter.count(batch(30), is_replay=False)
    line(meter)
    meter.count(batch(7), is_replay=False)
    assert "7 events a batch" in line(meter)
    assert line(meter).startswith("0 events/s")


def test_an_idle_worker_logs_no_microseconds():
    assert "us an event" not in line(Meter())


def test_replayed_events_are_counted_apart():
    meter = Meter()
    meter.count(batch(30, dead=5), is_replay=True)
    text = line(meter, replaying=1)
    assert text.startswith("0 events/s")
    assert "(1 in replay, " in text
    # Their dead letters were sent before.
    assert "dead letter" not in text


def test_a_verb_gets_the_time_of_its_block_also_when_it_fails():
    meter = Meter()
    for failure in (None, ValueError()):
        before = meter.seconds["step"]
        try:
            with meter.time("step"):
                sum(range(1000))
                if failure:
                    raise failure
        except ValueError:
            pass
        assert meter.seconds["step"] > before
    assert meter.seconds["send"] == 0


def test_many_dead_letters_are_few_lines_that_count_all_of_them(caplog):
    # Given a clock that advances by a second with each of a hundred batches of a thousand letters
    now_s = 0.0
    log = DeadLetterLog(lambda: now_s)
    for number in range(100):
        dead = [letter("not-json", offset=number)] * 990 + [letter("no-key", offset=number)] * 10
        log.count(dead, 10_000)
        now_s += 1.0
    log.write()
    log.write()

    # Then the first is told at once, the others in a line each interval, and nothing twice
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "1,000 dead letters: not-json 990, no-key 10; the last is events/3/0: ''"
    assert len(lines) == 1 + 100 / DEAD_LETTER_INTERVAL_S
    counts = [int(line.split(" ")[0].replace(",", "")) for line in lines]
    assert sum(counts) == 100_000
    assert sum(int(line.split("no-key ")[1].split(";")[0]) for line in lines) == 1_000


def test_text_of_a_record_cannot_add_lines_to_the_log(caplog):
    log = DeadLetterLog()
    log.count(
        [letter("wrong-kind", "no\nERROR livestep: all is lost \x1b[2J\u202e" + "x" * 1_000)], 10
    )
    (record,) = caplog.records
    assert "no\\nERROR livestep: all is lost \\x1b[2J\\u202exxx" in record.getMessage()
    assert len(record.getMessage()) < 400


def test_the_status_line_counts_waiting_dead_letters(caplog):
    # Given letters that came while a line was not due
    now_s = 0.0
    meter = Meter()
    meter.dead_letter_log = DeadLetterLog(lambda: now_s)
    meter.count(batch(0, dead=1), is_replay=False)
    meter.count(batch(0, dead=5), is_replay=False)
    line(meter)
    assert len(caplog.records) == 1
    # When it is due and no more come, then the status line brings them
    now_s = DEAD_LETTER_INTERVAL_S
    line(meter)
    assert "5 dead letters: no-key 5; " in caplog.records[1].getMessage()


def told(caplog):
    return [record.getMessage() for record in caplog.records]


def test_a_line_warns_that_most_records_are_dead_letters(caplog):
    # Given a worker whose first batches are good
    now_s = 0.0
    meter = Meter()
    meter.dead_letter_log = DeadLetterLog(lambda: now_s)
    meter.count(batch(1_000, dead=30), is_replay=False)
    assert "MOST" not in told(caplog)[0]

    # When most records of the next interval are dead letters, then the line reports it
    meter.count(batch(20, dead=80), is_replay=False)
    now_s = DEAD_LETTER_INTERVAL_S
    line(meter)
    assert told(caplog)[1].startswith(
        "MOST RECORDS ARE DEAD LETTERS (80 of 100): do they belong to this model? 80 dead letters: "
    )
    assert caplog.records[1].levelname == "WARNING"

    # When half of them are, then it doesn't
    meter.count(batch(40, dead=40), is_replay=False)
    now_s *= 2
    line(meter)
    assert told(caplog)[2].startswith("40 dead letters: ")


def test_one_bad_record_on_a_quiet_topic_is_not_most_of_them(caplog):
    now_s = 0.0
    log = DeadLetterLog(lambda: now_s)
    log.count([letter("not-json")], 5)
    now_s = DEAD_LETTER_INTERVAL_S
    log.count([letter("not-json")], 1)
    assert [text.startswith("1 dead letters") for text in told(caplog)] == [True, True]


def test_a_few_records_that_are_all_dead_letters_are_most_of_them(caplog):
    log = DeadLetterLog()
    log.count([letter("not-json")] * 3, 3)
    assert told(caplog)[0].startswith("MOST RECORDS ARE DEAD LETTERS (3 of 3):")


def test_events_whose_step_is_refused_count_once(caplog):
    # Given a model that answers NaN: its events are usable records, and dead letters
    meter = Meter()
    of_nan = batch(50, dead=50)
    of_nan.refused_count = 50
    meter.count(of_nan, is_replay=False)
    assert told(caplog)[0].startswith("MOST RECORDS ARE DEAD LETTERS (50 of 50):")
