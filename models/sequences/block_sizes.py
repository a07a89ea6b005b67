"""The sizes of a net's blocks, and how a number of rows is cut into them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

#: Timesteps of a block that are stepped by one call of `step_packed`, where that is equal.
FUSED_STEPS = 16


class BlockSizes:
    """How many rows a net is called with, and how a number of rows is cut into such blocks.

    Args:
        seconds_by_rows: By number of rows, how long one call takes. Decides only which blocks are
            used, never a result.
        fused_rows: Those of them whose `step_packed` equals `FUSED_STEPS` steps bit for bit.

    Example:
        >>> sizes = BlockSizes({32: 1.0, 128: 1.5})
        >>> sizes.cut(20), sizes.cut(70), sizes.cut(150)
        ([32], [128], [128, 32])
    """

    def __init__(
        self, seconds_by_rows: Mapping[int, float], fused_rows: Collection[int] = ()
    ) -> None:
        self.rows = tuple(sorted(seconds_by_rows))
        self.fused_rows = frozenset(fused_rows)
        self._unit = self.rows[0]
        # By number of rows, in units of the smallest block: the largest block of the cheapest cut.
        self._largest = [0]
        cost_s = [0.0]
        for units in range(1, -(-self.rows[-1] // self._unit) + 1):
            cuts = []
            for rows, seconds in seconds_by_rows.items():
                rest = max(0, units - rows // self._unit)
                cuts.append((seconds + cost_s[rest], max(rows, self._largest[rest])))
            cheapest_s, largest = min(cuts)
            cost_s.append(cheapest_s)
            self._largest.append(largest)

    def cut(self, count: int) -> list[int]:
        """Return the rows of the blocks for `count` rows; only the last may have to be padded."""
        blocks = []
        while count > 0:
            units = min(-(-count // self._unit), len(self._largest) - 1)
            blocks.append(self._largest[units])
            count -= blocks[-1]
        return blocks
