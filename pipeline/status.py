"""What a worker says of itself every few seconds, in the words of the seven verbs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.batch import Batch

VERBS = ("poll", "pack", "load", "step", "send", "commit", "save")


class Meter:
    """Counts events and the seconds of each verb; `line` gives them since the last line."""

    def __init__(self) -> None:
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

    def line(self, *, lag: int, pool_keys: int, partitions: int, replaying: int) -> str:
        """Write the status since the last line.

        Args:
            lag: Events not yet polled.
            pool_keys: Keys in the pool.
            partitions: Partitions owned.
            replaying: Of these: in replay.
        """
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
        if self.dead_letters:
            text += f", {self.dead_letters:,} dead letters"
        return f"{text}; us an event: {verbs}" if stepped else text
