"""What a JSON prediction of a model looks like, and how rows of numbers become predictions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson

from livestep.models.fields.field_types import Category, OutputField
from livestep.pipeline.columns.byte_column import ByteColumn
from livestep.pipeline.types import FloatArray, IntArray


def pieces_of(fields: Sequence[OutputField]) -> list[dict[str, Any]]:
    """Describe a prediction as a sequence of pieces.

    Args:
        fields: The model's outputs.

    Returns:
        pieces: Each has the members of one kind: `bytes`, which are the same in every prediction;
            `first` and `count`, for the numbers of these columns; `category` and `labels`, for the
            chosen label of a category, counted from 0.

    Example:
        >>> pieces_of([Category("c", ("a",))])[1]
        {'category': 0, 'labels': [b'"a"']}
    """
    pieces = list(_pieces(fields))
    joined: list[dict[str, Any]] = []
    for piece in pieces:
        if "bytes" in piece and joined and "bytes" in joined[-1]:
            joined[-1] = {"bytes": joined[-1]["bytes"] + piece["bytes"]}
        else:
            joined.append(piece)
    return joined


def _pieces(fields: Sequence[OutputField]) -> Iterable[dict[str, Any]]:
    first = category = 0
    for i, field in enumerate(fields):
        yield {"bytes": (b"," if i else b"{") + orjson.dumps(field.name) + b":"}
        if isinstance(field, Category):
            values = [orjson.dumps(value) for value in field.values]
            yield {"bytes": b'{"label":'}
            yield {"category": category, "labels": values}
            yield {"bytes": b',"probabilities":{'}
            for j, value in enumerate(values):
                yield {"bytes": (b"," if j else b"") + value + b":"}
                yield {"first": first + j, "count": 1}
            yield {"bytes": b"}}"}
            category += 1
        else:
            yield {"bytes": b"" if field.size == 1 else b"["}
            yield {"first": first, "count": field.size}
            yield {"bytes": b"" if field.size == 1 else b"]"}
        first += field.width
    yield {"bytes": b"}" if fields else b"{}"}


class PythonJsonEncoder:
    """Writes predictions, one column of all rows at a time.

    Args:
        pieces: Returned by `pieces_of`.
    """

    def __init__(self, pieces: Sequence[dict[str, Any]]) -> None:
        self._pieces = [piece for piece in pieces if "bytes" not in piece]
        self._template = b"".join(
            piece["bytes"].replace(b"%", b"%%") if "bytes" in piece else b"%b" for piece in pieces
        )

    def encode(self, outputs: FloatArray, chosen: Sequence[IntArray]) -> ByteColumn:
        """Encode rows.

        orjson writes a float32 with the digits of a float32: 0.1, not 0.10000000149011612.

        Args:
            outputs: (n, H_out) float32.  Probabilities for a category.
            chosen: For each category, the index of its label: (n,) int64.
        """
        if not len(outputs):
            return ByteColumn()
        columns: list[list[bytes]] = []
        for piece in self._pieces:
            if "labels" in piece:
                labels = piece["labels"]
                columns.append([labels[i] for i in chosen[piece["category"]].tolist()])
            else:
                first, count = piece["first"], piece["count"]
                columns.append(_texts(np.ascontiguousarray(outputs[:, first : first + count])))
        template = self._template
        return ByteColumn([template % row for row in zip(*columns, strict=True)])


def _texts(block: FloatArray) -> list[bytes]:
    """Encode each row's numbers as comma-separated JSON, with one call for the whole block."""
    whole = orjson.dumps(block, option=orjson.OPT_SERIALIZE_NUMPY)
    if block.shape[1] > 1:
        return whole[2:-2].split(b"],[")
    return whole.replace(b"[", b"").replace(b"]", b"").split(b",")
