"""How many keys an exported program accepts per call, and any other number in pieces.

An exported program has a range for its key axis (`torch.export.Dim("N", max=1024)`, or one that
torch finds); a call outside it raises. Rows don't depend on each other, so a batch can be cut into
pieces, and the last piece padded with rows whose results are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from livestep.models.model_errors import ModelError
from livestep.models.sequences.blocks import padded

#: More keys than any batch has.
UNBOUNDED = 1 << 40

Step = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, tuple[Tensor, ...]]]


class BatchSizes:
    """The numbers of keys that a program accepts per call.

    Args:
        ranges: The numbers that each argument accepts; a valid number is in all of them.

    Attributes:
        least: The smallest valid number.
        most: The largest valid number; `UNBOUNDED` if there is no limit.

    Raises:
        ModelError: If no number is valid.

    Example:
        >>> sizes = BatchSizes([range(4, 201, 2)])
        >>> sizes.least, sizes.most, 5 in sizes, sizes.at_least(5)
        (4, 200, False, 6)
    """

    def __init__(self, ranges: Sequence[range] = ()) -> None:
        self._ranges = tuple(ranges)
        self._period = math.lcm(1, *(one.step for one in ranges))
        self.most = UNBOUNDED
        if ranges:
            # Steps repeat after a period: if nothing fits in one, nothing does.
            last = min(one[-1] if one else -1 for one in ranges)
            fitting = (number for number in range(last, last - self._period, -1) if number in self)
            self.most = next(fitting, 0)
        if self.most < 1:
            found = " and ".join(f"{one.start} to {one.stop - 1}" for one in ranges)
            raise ModelError(
                "no number of keys fits all arguments of the program; export it with one Dim",
                found=found,
            )
        self.least = self.at_least(0)

    def __contains__(self, count: int) -> bool:
        return count >= 0 and all(count in one for one in self._ranges)

    def at_least(self, count: int) -> int:
        """Return the smallest valid number that is at least `count`; `count` is at most `most`."""
        first = max((count, *(one.start for one in self._ranges)))
        return next(number for number in range(first, first + self._period) if number in self)

    def __str__(self) -> str:
        """Describe the limits; empty if any number is valid."""
        parts = []
        if self.least > 1:
            parts.append(f"at least {self.least:,}")
        if self.most < UNBOUNDED - self._period:
            parts.append(f"at most {self.most:,}")
        if self._period > 1:
            parts.append(f"in steps of {self._period}")
        return ", ".join(parts)


def batch_sizes(
    examples: Mapping[str, Any], axes: Mapping[str, int], bounds: Mapping[Any, Any]
) -> BatchSizes:
    """Find how many keys an exported program accepts, from the ranges of its key axes.

    Args:
        examples: Its arguments as the program describes them, by name.
        axes: The key axis of each argument for which it isn't the first.
        bounds: Its `range_constraints`.

    Raises:
        ModelError: If it accepts no number of keys, or a size has a formula that torch never
            writes.
    """
    ranges = []
    for name, example in examples.items():
        shape, axis = getattr(example, "shape", ()), axes.get(name, 0)
        if axis < len(shape) and not isinstance(shape[axis], int):
            ranges.append(_sizes_of_axis(shape[axis], bounds))
    return BatchSizes(ranges)


def _sizes_of_axis(size: Any, bounds: Mapping[Any, Any]) -> range:
    """Return the values that a `torch.SymInt` can have: a multiple of a symbol plus a number."""
    formula = size.node.expr
    symbols = list(formula.free_symbols)
    if len(symbols) != 1 or not formula.diff(symbols[0]).is_Integer:
        raise ModelError(
            "unsupported size in the program: not a multiple of one symbol plus a number",
            found=formula,
        )
    (symbol,) = symbols
    factor = int(formula.diff(symbol))
    lowest, highest = 0, None
    if symbol in bounds:
        lowest = max(0, int(bounds[symbol].lower))
        if bounds[symbol].upper.is_Integer:
            highest = int(bounds[symbol].upper)
    if factor < 1:
        raise ModelError(
            "unsupported size in the program: not a multiple of one symbol plus a number",
            found=formula,
        )
    first = int(formula.subs(symbol, lowest))
    last = UNBOUNDED if highest is None else int(formula.subs(symbol, highest))
    return range(first, last + 1, factor)


def step_in_pieces(
    step: Step, inputs: Tensor, state: tuple[Tensor, ...], sizes: BatchSizes
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Step N keys in calls of valid sizes.

    Args:
        step: Steps n inputs and their states.
        inputs: (N, H_in).
        state: (N, ...) each.
        sizes: The valid values of n.

    Returns:
        outputs: (N, H_out).
        next_state: (N, ...) each.
    """
    results = []
    for start in range(0, max(1, len(inputs)), sizes.most):
        rows = [tensor[start : start + sizes.most] for tensor in (inputs, *state)]
        count = len(rows[0])
        wanted = sizes.at_least(count)
        piece, *piece_state = (padded(tensor, wanted) for tensor in rows)
        outputs, following = step(piece, tuple(piece_state))
        results.append([tensor[:count] for tensor in (outputs, *following)])
    whole = [torch.cat(pieces) for pieces in zip(*results, strict=True)]
    return whole[0], tuple(whole[1:])
