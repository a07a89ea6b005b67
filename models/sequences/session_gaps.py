"""Which sequences a session gap ends, and where: the simple version, for offline use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from livestep.models.sequences.rules import GAP_ENDS_MAX


def session_gaps(gap_ms: int, records: Iterable[tuple[bytes, int, bool]]) -> Iterator[list[bytes]]:
    """Yield, for each record of a partition, the keys whose sequences a gap ends before it.

    The clock is the largest event time so far. A sequence whose last event is more than the gap
    before the clock ends: at once if the record is of the same key, else the longest idle first,
    at most `rules.GAP_ENDS_MAX` per record.

    Args:
        gap_ms: `SequenceRules.session_gap_ms`.
        records: Of one partition, in the log's order, without invalid ones: key, event time, and
            whether the key's sequence is open after it.

    Yields:
        keys: Keys whose sequences end before the record.

    Example:
        >>> records = [(b"a", 0, True), (b"b", 5, True), (b"b", 11, True)]
        >>> list(session_gaps(10, records))
        [[], [], [b'a']]
    """
    open_since: OrderedDict[bytes, int] = OrderedDict()
    clock = -1
    for key, time_ms, is_open in records:
        clock = max(clock, time_ms)
        ended: list[bytes] = []
        if key in open_since and clock - open_since[key] > gap_ms:
            del open_since[key]
            ended.append(key)
        while open_since and len(ended) < GAP_ENDS_MAX:
            longest_idle = next(iter(open_since))
            if clock - open_since[longest_idle] <= gap_ms:
                break
            del open_since[longest_idle]
            ended.append(longest_idle)
        open_since.pop(key, None)
        if is_open:
            open_since[key] = clock
        yield ended
