"""The status that a worker logs every few seconds, by the seven verbs."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from livestep.pipeline.batch.packing import Batch, DeadRecord

VERBS = ("poll", "pack", "load", "step", "send", "commit", "save")

_log = logging.getLogger("livestep.dead_letters")

#: Seconds between two lines about dead letters, however many there are.
DEAD_LETTER_INTERVAL_S = 10.0

#: So few records since the last line don't show whether most are dead letters.
_FEW_RECORDS = 20

#: Characters of a dead letter's detail that a line shows.
_DETAIL_CHARS = 200


def are_mostly_dead(dead: int, records: int) -> bool:
    """Whether most records are dead letters: events and model hardly fit then.

    Example:
        >>> are_mostly_dead(1, 2), are_mostly_dead(2, 3)
        (False, True)
    """
    return 2 * dead > records


def describe_dead_letters(reasons: Counter[str], last: DeadRecord) -> str:
    """Name the reasons with their numbers, and one dead letter as an example.

    Args:
        reasons: How many there are for each.
        last: The last one; what its record holds can't look like another line.
    """
    record = last.record
    counts = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
    return (
        f"{counts}; the last is {record.topic}/{record.partition}/{record.offset}: "
        f"{ascii(last.detail[:_DETAIL_CHARS])}"
    )


class DeadLetterLog:
    """Logs dead letters: one line now and then, with their reasons and the last as an example.

    The first one is logged at once. Nothing is logged twice or left out, as long as
    `write` is called at the end. A line reports if most records have become dead letters: of those
    since the last line, or of all where these are only a few.

    Args:
        now_s: What time it is, in seconds.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._reasons: Counter[str] = Counter()
        self._last: DeadRecord | None = None
        self._records = 0
        self._all_dead = 0
        self._all_records = 0
        self._due_s = now_s()
        self._lock = threading.Lock()  # The status line is written by another thread.

    def count(self, dead: Sequence[DeadRecord], record_count: int) -> None:
        """Count what is committed.

        Args:
            dead: Dead letters.
            record_count: All records that these are among.
        """
        with self._lock:
            self._records += record_count
            self._all_records += record_count
            if dead:
                self._all_dead += len(dead)
                self._reasons.update(letter.reason for letter in dead)
                self._last = dead[-1]
        self.write_if_due()

    def write_if_due(self) -> None:
        """Write the line if there is something to log and the last one is old enough."""
        if self._reasons and self._now_s() >= self._due_s:
            self.write()

    def write(self) -> None:
        """Write the line if there is something to log."""
        with self._lock:
            reasons, last, records = self._reasons, self._last, self._records
            self._reasons, self._last, self._records = Counter(), None, 0
            self._due_s = self._now_s() + DEAD_LETTER_INTERVAL_S
        if last is None:
            return
        dead = reasons.total()
        text = f"{dead:,} dead letters: {describe_dead_letters(reasons, last)}"
        if records < _FEW_RECORDS:
            dead, records = self._all_dead, self._all_records
        if are_mostly_dead(dead, records):
            text = (
                f"MOST RECORDS ARE DEAD LETTERS ({dead:,} of {records:,}): do they belong to this "
                f"model? {text}"
            )
        _log.warning("%s", text)


class Meter:
    """Counts events and the seconds of each verb; `line` formats them since the last line."""

    def __init__(self) -> None:
        self.dead_letter_log = DeadLetterLog()
        self.events = 0
        self.replayed = 0
        self.dead_letters = 0
        self.batches = 0
        self.seconds = dict.fromkeys(VERBS, 0.0)
        self._last = (time.monotonic(), 0, 0, 0, dict(self.seconds))

    @contextmanager
    def time(self, verb: str) -> Iterator[None]:
        """Add the time of a block to a verb."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[verb] += time.perf_counter() - started

    def count(self, batch: Batch, *, is_replay: bool) -> None:
        """Count a batch that is committed, or replayed."""
        self.batches += 1
        if is_replay:
            self.replayed += batch.event_count
        else:
            self.events += batch.event_count
            self.dead_letters += len(batch.dead)
            records = batch.event_count + len(batch.dead) - batch.refused_count
            self.dead_letter_log.count(batch.dead, records)

    def line(
        self, *, lag: int, pool_keys: int, partitions: int, replaying: int, waiting: int = 0
    ) -> str:
        """Write the status since the last line.

        Args:
            lag: Events not yet polled.
            pool_keys: Keys in the pool.
            partitions: Partitions owned.
            replaying: Of these: in replay.
            waiting: Batches committed and not yet saved; one is always behind.
        """
        self.dead_letter_log.write_if_due()
        now = time.monotonic()
        then, events_then, replayed_then, batches_then, seconds_then = self._last
        self._last = (now, self.events, self.replayed, self.batches, dict(self.seconds))
        events, replayed = self.events - events_then, self.replayed - replayed_then
        stepped, batches = events + replayed, self.batches - batches_then
        elapsed_s = max(now - then, 1e-9)
        verbs = " ".join(
            f"{verb} {(self.seconds[verb] - seconds_then[verb]) / max(stepped, 1) * 1e6:.1f}"
            for verb in VERBS[1:]
        )
        text = (
            f"{events / elapsed_s:,.0f} events/s, lag {lag:,}, {pool_keys:,} keys in pool, "
            f"{stepped / max(batches, 1):,.0f} events a batch, {partitions} partitions"
        )
        if replaying or replayed:
            text += f" ({replaying} in replay, {replayed / elapsed_s:,.0f} events/s replayed)"
        if waiting > 1:
            text += f", {waiting} batches wait for Redis"
        if self.dead_letters:
            text += f", {self.dead_letters:,} dead letters"
        return f"{text}; us an event: {verbs}" if stepped else text
