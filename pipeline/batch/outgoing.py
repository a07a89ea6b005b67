"""The verb send: formats answers and dead letters as records whose headers name their source."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from livestep.models.loaded_model import LoadedModel
from livestep.pipeline.batch.answers import Answers, Refusal
from livestep.pipeline.batch.codec import Codec
from livestep.pipeline.batch.marks import GAP
from livestep.pipeline.batch.packing import Batch, DeadRecord
from livestep.pipeline.records import (
    Source,
    answer_headers,
    dead_letter_headers,
    prediction_headers,
)
from livestep.pipeline.types import Headers, Outgoing

#: Limit for the key, value and own headers of a dead letter. Kafka's default max.message.bytes is
#: 1,048,588; the rest is left for our headers and Kafka's framing.
DEAD_LETTER_BYTES_MAX = 1_040_000

#: Maximum characters of a dead letter's detail, which may quote the record.
DETAIL_CHARS_MAX = 500

#: Maximum bytes that Kafka adds to the name and value of one header.
HEADER_FRAME_BYTES = 10


class OutgoingRecords:
    """Formats the results of a batch as records.

    Args:
        model: The model that made the outputs.
        codec: Its wire format.
        input_topic: Topic that the sources name.
        output_partitions: Number of partitions of the output topic.
        dead_letter_partitions: Number of partitions of the dead-letter topic.
    """

    def __init__(
        self,
        *,
        model: LoadedModel,
        codec: Codec,
        input_topic: str,
        output_partitions: int,
        dead_letter_partitions: int,
    ) -> None:
        self._codec = codec
        self._is_generating = model.rules.is_generating
        self._output_size = model.net.output_size
        self._drawn_outputs = [link.output for link in model.rules.feedback if link.temperature]
        self._fingerprint = model.fingerprint.encode()
        self._input_topic = input_topic
        self._output_partitions = output_partitions
        self._dead_letter_partitions = dead_letter_partitions
        # Common prefix of a partition's sources; only the offset differs from event to event.
        self._prefixes: dict[int, bytes] = {}

    def predictions(self, batch: Batch, answers: Answers) -> Iterator[Outgoing]:
        """Format answers, in order: key, value, partition, event time, headers."""
        width = self._output_size
        drawn = {
            name: answers.outputs[:, width + i].astype(np.int64)
            for i, name in enumerate(self._drawn_outputs)
        }
        values = self._codec.encode(answers.outputs[:, :width], drawn)
        records, keys = batch.records, batch.keys
        prefixes, fingerprint = self._prefixes, self._fingerprint
        for partition in {partition for partition, _ in keys} - prefixes.keys():
            prefixes[partition] = Source(self._input_topic, partition, 0).to_bytes()[:-1]
        output_partitions = self._output_partitions
        for event, row, value, timestep, extra in zip(
            answers.event.tolist(),
            batch.key_index[answers.event].tolist(),
            values,
            answers.timesteps.tolist(),
            self._extra_headers(batch, answers),
            strict=True,
        ):
            record = records[event]
            partition, key = keys[row]
            source = prefixes[partition] + b"%d" % record.offset()
            headers = prediction_headers(source, timestep, fingerprint)
            if extra:
                headers += extra
            time_ms = record.timestamp()[1]
            yield key, value, partition % output_partitions, time_ms, headers

    def _extra_headers(self, batch: Batch, answers: Answers) -> Iterable[Headers | None]:
        """Return for each answer the headers that only some answers have."""
        is_by_gap = (batch.marks[answers.event] & GAP) != 0
        if not (self._is_generating or is_by_gap.any()):
            return itertools.repeat(None, len(is_by_gap))
        return (
            answer_headers(step, finish, is_gap)
            for step, finish, is_gap in zip(
                answers.step.tolist(), answers.finish.tolist(), is_by_gap.tolist(), strict=True
            )
        )

    def dead_letters(self, dead: Sequence[DeadRecord]) -> Iterator[Outgoing]:
        """Format dead letters: the unchanged record, with the reason in additional headers.

        Parts that would make one too long for its topic are omitted; its detail lists them.
        """
        for letter in dead:
            record = letter.record
            partition = record.partition()
            source = Source(self._input_topic, partition, record.offset())
            key, value = record.key(), record.value()
            own = (record.headers() if letter.has_headers else None) or []
            detail = letter.detail[:DETAIL_CHARS_MAX]
            if left_out := _too_long(key, value, own):
                key = None if "key" in left_out else key
                value = None if "value" in left_out else value
                own = [] if "headers" in left_out else own
                detail += f"; omitted because it is too long: {', '.join(left_out)}"
            headers = dead_letter_headers(own, letter.reason, detail, source)
            time_ms = record.timestamp()[1]
            yield key, value, partition % self._dead_letter_partitions, time_ms, headers


def _too_long(key: bytes | None, value: bytes | None, headers: Sequence[Any]) -> list[str]:
    """Return the parts to omit so that a record fits into a dead letter, the longest first."""
    sizes = {
        "key": len(key or b""),
        "value": len(value or b""),
        "headers": sum(
            len(name.encode()) + len(text or b"") + HEADER_FRAME_BYTES for name, text in headers
        ),
    }
    left_out: list[str] = []
    if sum(sizes.values()) <= DEAD_LETTER_BYTES_MAX:
        return left_out
    for part in sorted(sizes, key=lambda one: -sizes[one]):
        if sum(sizes.values()) <= DEAD_LETTER_BYTES_MAX:
            break
        sizes[part] = 0
        left_out.append(part)
    return left_out


def refused_records(batch: Batch, refusals: Sequence[Refusal]) -> list[DeadRecord]:
    """Return the records of refusals, each once, with its first reason and all details.

    A session gap and the event after it share one record, and both may be refused; so may several
    sequences that one record ended.
    """
    found: dict[tuple[int, int], DeadRecord] = {}
    for event, reason, detail in refusals:
        record = batch.records[event]
        place = (record.partition(), record.offset())
        if (first := found.get(place)) is not None:
            reason, detail = first.reason, f"{first.detail}; {detail}"
        found[place] = DeadRecord(record, reason, detail)
    return list(found.values())
