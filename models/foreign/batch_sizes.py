"""How many keys an exported program takes in one call, and any other number in pieces.

Whoever exports a program gives the axis of the keys a range (`torch.export.Dim("N", max=1024)`), or
torch finds one; a call outside it raises. Rows don't depend on each other, so a batch can be cut
into pieces, and the last piece filled up with rows that are thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from livestep.models.model_errors import ModelError

#: No batch has as many keys.
UNBOUNDED = 1 << 40

Step = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, tuple[Tensor, ...]]]


class BatchSizes:
    """The numbers of keys that a program takes in one call.

    Args:
        ranges: Each with the numbers that one argument takes; all of them have to take a number.

    Attributes:
        least: The smallest.
        most: The largest; `UNBOUNDED` if there is no bound.

    Raises:
        ModelError: If there is none.

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
            raise ModelError("the arguments of the program agree on no number of keys", found=found)
        self.least = self.at_least(0)

    def __contains__(self, count: int) -> bool:
        return count >= 0 and all(count in one for one in self._ranges)

    def at_least(self, count: int) -> int:
        """Give the smallest number that is taken and not below `count`, which is `most` at most."""
        first = max((count, *(one.start for one in self._ranges)))
        return next(number for number in range(first, first + self._period) if number in self)

    def __str__(self) -> str:
        """Say it in words; nothing if any number is taken."""
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
    """Say how many keys an exported program takes, by its arguments whose key axis has a range.

    Args:
        examples: Its arguments as the program describes them, by name.
        axes: The key axis of those for which it isn't the first.
        bounds: Its `range_constraints`.

    Raises:
        ModelError: If it takes no number of keys, or a size is a formula that torch never writes.
    """
    ranges = []
    for name, example in examples.items():
        shape, axis = getattr(example, "shape", ()), axes.get(name, 0)
        if axis < len(shape) and not isinstance(shape[axis], int):
            ranges.append(_sizes_of_axis(shape[axis], bounds))
    return BatchSizes(ranges)


def _sizes_of_axis(size: Any, bounds: Mapping[Any, Any]) -> range:
    """Give the numbers that a `torch.SymInt` may be: a multiple of a symbol, and a number."""
    formula = size.node.expr
    symbols = list(formula.free_symbols)
    if len(symbols) != 1 or not formula.diff(symbols[0]).is_Integer:
        raise ModelError("a size of the program that follows no rule", found=formula)
    (symbol,) = symbols
    factor = int(formula.diff(symbol))
    lowest, highest = 0, None
    if symbol in bounds:
        lowest = max(0, int(bounds[symbol].lower))
        if bounds[symbol].upper.is_Integer:
            highest = int(bounds[symbol].upper)
    if factor < 1:
        raise ModelError("a size of the program that follows no rule", found=formula)
    first = int(formula.subs(symbol, lowest))
    last = UNBOUNDED if highest is None else int(formula.subs(symbol, highest))
    return range(first, last + 1, factor)


def step_in_pieces(
    step: Step, inputs: Tensor, state: tuple[Tensor, ...], sizes: BatchSizes
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Step N keys by calls of sizes that are taken.

    Args:
        step: Takes n inputs and their states.
        inputs: (N, H_in).
        state: (N, ...) each.
        sizes: What n may be.

    Returns:
        outputs: (N, H_out).
        next_state: (N, ...) each.
    """
    results = []
    for start in range(0, max(1, len(inputs)), sizes.most):
        rows = [tensor[start : start + sizes.most] for tensor in (inputs, *state)]
        count = len(rows[0])
        wanted = sizes.at_least(count)
        piece, *piece_state = (_filled(tensor, wanted) for tensor in rows)
        outputs, following = step(piece, tuple(piece_state))
        results.append([tensor[:count] for tensor in (outputs, *following)])
    whole = [torch.cat(pieces) for pieces in zip(*results, strict=True)]
    return whole[0], tuple(whole[1:])


def _filled(tensor: Tensor, count: int) -> Tensor:
    """Fill up to so many rows with the last row, which is as good as any; with zeros if none is."""
    missing = count - len(tensor)
    if not missing:
        return tensor
    last = tensor[-1:] if len(tensor) else tensor.new_zeros(1, *tensor.shape[1:])
    return torch.cat([tensor, last.expand(missing, *tensor.shape[1:])])
