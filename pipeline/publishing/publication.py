"""Send the records of a file, despite bad rows, refusals and signals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.console import Console

from livestep.pipeline.clients.event_record import EventRecord
from livestep.pipeline.clients.record_sender import (
    DeliveryFailedError,
    RecordSender,
    Refusal,
    SilenceError,
)
from livestep.pipeline.errors import BrokerError
from livestep.pipeline.publishing.columns import BadRow, Batch
from livestep.pipeline.publishing.expiry import Expiry
from livestep.pipeline.publishing.files import LineError
from livestep.pipeline.publishing.interrupts import Interrupts
from livestep.pipeline.publishing.limits import shown_time
from livestep.pipeline.publishing.position import Position
from livestep.pipeline.publishing.rejects import Rejects
from livestep.pipeline.records import key_text

#: How many rows left out are shown; the file of rejects has all of them.
SHOWN_ROWS_MAX = 20

#: How long the broker may be silent after a signal, in seconds.
_SILENCE_AFTER_SIGNAL_S = 10.0


@dataclass(frozen=True)
class Course:
    """How a file is published.

    Attributes:
        name: Name of the file.
        topic: Topic to publish to.
        is_skipping_errors: Whether bad rows are left out; otherwise the first one ends the run.
        rate: Limit of events per second; None for no limit.
        rejects: File for the rows that are left out.
    """

    name: str
    topic: str
    is_skipping_errors: bool = False
    rate: float | None = None
    rejects: Rejects | None = None


class Publication:
    """One run of `livestep publish`.

    Args:
        course: What to do.
        position: Rows that are done.
        sender: Sends records.
        interrupts: Signals.
        console: Shows messages.
        expiry: Finds events that Kafka will soon delete.

    Attributes:
        left_out_count: How many rows were left out.
        row_count: Number of the last row that was read.
    """

    def __init__(
        self,
        course: Course,
        position: Position,
        sender: RecordSender,
        interrupts: Interrupts,
        console: Console,
        expiry: Expiry,
    ) -> None:
        self.left_out_count = 0
        self.row_count = 0
        self._course = course
        self._position = position
        self._sender = sender
        self._interrupts = interrupts
        self._console = console
        self._expiry = expiry
        self._sent_count = 0
        self._started_s = time.monotonic()
        self._is_refused = False
        self._is_whole = False
        self._is_time_doubtful = False

    @property
    def is_skip_beyond_end(self) -> bool:
        """Whether --skip is larger than the number of rows."""
        return self._is_whole and self._position.row_count > self.row_count

    def run(self, batches: Iterable[Batch]) -> None:
        """Send records, and report the progress in any case.

        Raises:
            LineError: If a row can't be sent, unless such rows are left out.
            BrokerError: If the broker refuses a record, or does not respond.
            Interrupted: If a signal ends it.
            OutputError: If the file of rejects can't be written.
        """
        silence_s_max = _SILENCE_AFTER_SIGNAL_S
        try:
            try:
                self._send_all(batches)
                self._is_whole = True
            finally:
                # Whatever the cause: records in flight arrive, and are counted.
                if not self._is_refused:
                    self._deliver(lambda: self._sender.flush(silence_s_max))
        except SilenceError as error:
            self._is_whole = False
            raise BrokerError(str(error)) from error
        finally:
            self._report()

    def _send_all(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            self._interrupts.check()
            if batch:
                self._begin()
                self._send_batch(batch)
        self._begin()
        self._deliver(self._sender.flush)

    def _send_batch(self, batch: Batch) -> None:
        """Send the records of a batch up to each row that is left out, then report that row."""
        done_count = self._position.row_count
        ready: list[EventRecord] = []
        for row in batch:
            if row.number <= done_count and self._position.has_done(row):
                continue
            if isinstance(row, EventRecord):
                ready.append(row)
                continue
            self._send(ready)
            ready = []
            self._leave_out(row)
            self.row_count = row.number
        self._send(ready)
        self.row_count = batch[-1].number

    def _send(self, records: list[EventRecord]) -> None:
        """Send consecutive records, one by one if there is a limit of events per second."""
        if self._course.rate is None:
            self._send_now(records)
            return
        for record in records:
            self._pace(self._course.rate)
            self._send_now([record])

    def _send_now(self, records: list[EventRecord]) -> None:
        if not records:
            return
        self._look_at_times(records)
        self.row_count = records[-1].number
        self._sent_count += len(records)
        self._deliver(lambda: self._sender.send(records))

    def _begin(self) -> None:
        if self._course.rejects is not None:
            self._course.rejects.begin()

    def _look_at_times(self, records: list[EventRecord]) -> None:
        """Warn once about times that are probably not in milliseconds, or that Kafka deletes."""
        for record in records:
            if record.is_time_doubtful and not self._is_time_doubtful:
                self._is_time_doubtful = True
                self._console.print(
                    f"warning: line {record.line}: the timestamp "
                    f"{shown_time(record.timestamp_ms or 0)} is before 1980 (is it in "
                    "milliseconds?)",
                    soft_wrap=True,
                )
        self._expiry.note_sent(records)

    def _deliver(self, send: Callable[[], None]) -> None:
        """Send; a record that the broker refuses is left out, or ends the run."""
        try:
            send()
        except DeliveryFailedError:
            while (refusal := self._sender.recover()) is not None:
                if not (self._course.is_skipping_errors and refusal.is_of_the_record):
                    self._is_refused = True
                    raise self._refused(refusal) from None
                record = refusal.record
                reason = f"Kafka refused it: {refusal.reason}"
                self._leave_out(BadRow(record.number, record.line, key_text(record.key), reason))
                self._sender.leave_out(record)

    def _refused(self, refusal: Refusal) -> BrokerError:
        record = refusal.record
        return BrokerError(
            f"{self._course.name}, line {record.line} (key {key_text(record.key)!r}): Kafka "
            f"refused it: {refusal.reason}"
        )

    def _leave_out(self, row: BadRow) -> None:
        """Leave a row out.

        Raises:
            LineError: If bad rows end the run.
        """
        if not self._course.is_skipping_errors:
            raise LineError(self._course.name, row.line, row.reason, row.key)
        self.left_out_count += 1
        if self.left_out_count <= SHOWN_ROWS_MAX:
            whose = "" if row.key is None else f" (key {row.key!r})"
            self._console.print(f"left out: line {row.line}{whose}: {row.reason}", soft_wrap=True)
        if self._course.rejects is not None:
            self._course.rejects.write(row)

    def _pace(self, rate: float) -> None:
        """Wait until the next event may be sent, counted from the first one."""
        if not self._sent_count:
            self._started_s = time.monotonic()
        early_s = self._started_s + self._sent_count / rate - time.monotonic()
        if early_s > 0:
            self._interrupts.sleep(early_s)

    def _report(self) -> None:
        """Report how many events are in the topic, and how to continue."""
        sender, course = self._sender, self._course
        elapsed_s = max(time.monotonic() - self._started_s, 1e-9)
        count = sender.delivered_count
        text = (
            f"published {count:,} events to topic {course.topic!r} in {elapsed_s:.1f} s "
            f"({count / elapsed_s:,.0f} events/s)"
        )
        if self.left_out_count:
            text += f"; {self.left_out_count:,} rows left out"
            if self.left_out_count > SHOWN_ROWS_MAX:
                text += f", {SHOWN_ROWS_MAX} of them shown"
        position = self._position.after(
            self.row_count, sender.undelivered, sender.delivered_number_max
        )
        if self.is_skip_beyond_end:
            text += f"; {course.name} has only {rows_text(self.row_count)}"
        elif self._is_whole:
            text += (
                f"; all {self.row_count:,} rows are done: --skip {position} continues after them"
            )
        else:
            text += f"; not all rows are done: --skip {position} continues from here"
        self._console.print(text, soft_wrap=True)
        self._expiry.report()
        if unanswered := sender.unanswered:
            lines = [record.line for record in unanswered]
            self._console.print(
                f"{len(unanswered):,} more events may be in the topic, since Kafka has not "
                f"responded: lines {min(lines)} to {max(lines)}. Check the topic first: --skip "
                f"{position} sends them again",
                soft_wrap=True,
            )


def rows_text(count: int) -> str:
    """Format a number of rows.

    Example:
        >>> rows_text(1), rows_text(1_000)
        ('1 row', '1,000 rows')
    """
    return f"{count:,} row{'' if count == 1 else 's'}"
