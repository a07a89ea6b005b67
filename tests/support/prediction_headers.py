"""The headers of predictions, written one record at a time: what the worker's columns amount to."""

from __future__ import annotations

from livestep.pipeline.records import (
    ENDED_BY_GAP,
    ENDED_BY_HEADER,
    FINISH_HEADER,
    FINISHES,
    MODEL_HEADER,
    SOURCE_HEADER,
    STEP_HEADER,
    TIMESTEP_HEADER,
)


def prediction_headers(
    source: bytes, timestep: int, model: bytes
) -> list[tuple[str, str | bytes | None]]:
    """Build the headers that every prediction has.

    Args:
        source: The event, as returned by `Source.to_bytes`.
        timestep: t, from 0.
        model: Fingerprint, already encoded because millions of records share it.
    """
    return [
        (SOURCE_HEADER, source),
        (TIMESTEP_HEADER, b"%d" % timestep),
        (MODEL_HEADER, model),
    ]


def answer_headers(step: int, finish: int, is_by_gap: bool) -> list[tuple[str, str | bytes | None]]:
    """Build the headers that only some predictions have.

    Args:
        step: Number of a generated record in its sequence; negative if it isn't generated.
        finish: Index in `FINISHES`.
        is_by_gap: Whether a session gap ended the sequence.
    """
    headers: list[tuple[str, str | bytes | None]] = []
    if step >= 0:
        headers.append((STEP_HEADER, b"%d" % step))
    if finish:
        headers.append((FINISH_HEADER, FINISHES[finish]))
    if is_by_gap:
        headers.append((ENDED_BY_HEADER, ENDED_BY_GAP))
    return headers
