"""The verb send: formats answers and dead letters as records whose headers name their source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from livestep.models.loaded_model import LoadedModel
from livestep.pipeline.batch.answers import Answers, Refusal
from livestep.pipeline.batch.codec import Codec
from livestep.pipeline.batch.marks import GAP
from livestep.pipeline.batch.packing import Batch, DeadRecord
from livestep.pipeline.columns.byte_column import ByteColumn
from livestep.pipeline.columns.outgoing_columns import (
    HeaderColumns,
    OutgoingColumns,
    decimal_column,
    source_column,
)
from livestep.pipeline.records import (
    ENDED_BY_GAP,
    ENDED_BY_HEADER,
    FINISH_HEADER,
    FINISHES,
    MODEL_HEADER,
    SOURCE_HEADER,
    STEP_HEADER,
    TIMESTEP_HEADER,
    Source,
    dead_letter_headers,
)
from livestep.pipeline.types import Outgoing

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
        self._topic = input_topic.encode()
        self._output_partitions = output_partitions
        self._dead_letter_partitions = dead_letter_partitions

    def predictions(self, batch: Batch, answers: Answers) -> OutgoingColumns:
        """Format answers, in their order, with the headers that every prediction has."""
        width = self._output_size
        drawn = {
            name: answers.outputs[:, width + i].astype(np.int64)
            for i, name in enumerate(self._drawn_outputs)
        }
        events = answers.event
        partitions = batch.records.partitions[events]
        headers: HeaderColumns = [
            (SOURCE_HEADER, source_column(self._topic, partitions, batch.offsets[events])),
            (TIMESTEP_HEADER, decimal_column(answers.timesteps)),
            (MODEL_HEADER, self._fingerprint),
            *self._extra_headers(batch, answers),
        ]
        return OutgoingColumns(
            # Not the key of the record: an event whose time ends a sequence is of another key.
            keys=batch.keys.names.take(batch.key_index[events]),
            values=self._codec.encode(answers.outputs[:, :width], drawn),
            partitions=partitions % self._output_partitions,
            timestamps_ms=batch.records.timestamps_ms[events],
            headers=headers,
        )

    def _extra_headers(self, batch: Batch, answers: Answers) -> HeaderColumns:
        """Return the headers that only some answers have."""
        headers: HeaderColumns = []
        if self._is_generating:
            steps = decimal_column(answers.step).to_list()
            is_step = (answers.step >= 0).tolist()
            finishes = [FINISHES[finish] or None for finish in answers.finish.tolist()]
            headers += [
                (STEP_HEADER, _where(is_step, steps)),
                (FINISH_HEADER, ByteColumn(finishes)),
            ]
        is_by_gap = (batch.marks[answers.event] & GAP) != 0
        if is_by_gap.any():
            texts = [ENDED_BY_GAP] * len(is_by_gap)
            headers.append((ENDED_BY_HEADER, _where(is_by_gap.tolist(), texts)))
        return headers

    def dead_letters(self, dead: Sequence[DeadRecord]) -> Iterator[Outgoing]:
        """Format dead letters: the unchanged record, with the reason in additional headers.

        Parts that would make one too long for its topic are omitted; its detail lists them.
        """
        for letter in dead:
            record = letter.record
            partition, key, value = record.partition, record.key, record.value
            source = Source(self._input_topic, partition, record.offset)
            own = [] if isinstance(record.headers, str) else record.headers
            detail = letter.detail[:DETAIL_CHARS_MAX]
            if left_out := _too_long(key, value, own):
                key = None if "key" in left_out else key
                value = None if "value" in left_out else value
                own = [] if "headers" in left_out else own
                detail += f"; omitted because it is too long: {', '.join(left_out)}"
            headers = dead_letter_headers(own, letter.reason, detail, source)
            target = partition % self._dead_letter_partitions
            yield key, value, target, record.timestamp_ms, headers


def _where(mask: Sequence[bool], texts: Sequence[bytes | None]) -> ByteColumn:
    return ByteColumn([text if is_one else None for is_one, text in zip(mask, texts, strict=True)])


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
        place = (record.partition, record.offset)
        if (first := found.get(place)) is not None:
            reason, detail = first.reason, f"{first.detail}; {detail}"
        found[place] = DeadRecord(record, reason, detail)
    return list(found.values())
