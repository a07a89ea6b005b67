"""What a worker says of itself every few seconds, in the words of the seven verbs."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pipeline.batch import Batch, DeadRecord

VERBS = ("poll", "pack", "load", "step", "send", "commit", "save")

_log = logging.getLogger("livestep.dead_letters")

#: Seconds between two lines that tell of dead letters, however many there are.
DEAD_LETTER_INTERVAL_S = 10.0

#: Characters of a dead letter's detail that a line shows.
_DETAIL_CHARS = 200


class DeadLetterLog:
    """Tells of dead letters: one line now and then, with their reasons and the last as an example.

    The first one is told at once. Nothing is told twice or left out, as long as `tell` is called in
    the end.

    Args:
        now_s: What time it is, in seconds.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._reasons: Counter[str] = Counter()
        self._last: DeadRecord | None = None
        self._due_s = now_s()
        self._lock = threading.Lock()  # The status line is written by another thread.

    def take(self, dead: Sequence[DeadRecord]) -> None:
        """Count dead letters that are committed."""
        if dead:
            with self._lock:
                self._reasons.update(letter.reason for letter in dead)
                self._last = dead[-1]
        self.tell_if_due()

    def tell_if_due(self) -> None:
        """Write the line if there is something to tell and the last one is old enough."""
        if self._reasons and self._now_s() >= self._due_s:
            self.tell()

    def tell(self) -> None:
        """Write the line if there is something to tell."""
        with self._lock:
            reasons, last = self._reasons, self._last
            self._reasons, self._last = Counter(), None
            self._due_s = self._now_s() + DEAD_LETTER_INTERVAL_S
        if last is None:
            return
        record = last.record
        # A record may hold anything, also what would look like another line of this log.
        _log.warning(
            "%s dead letters: %s; the last is %s/%d/%d: %s",
            f"{reasons.total():,}",
            ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common()),
            record.topic(),
            record.partition(),
            record.offset(),
            ascii(last.detail[:_DETAIL_CHARS]),
        )


class Meter:
    """Counts events and the seconds of each verb; `line` gives them since the last line."""

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
            self.dead_letter_log.take(batch.dead)

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
        self.dead_letter_log.tell_if_due()
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
