"""What services hold of workers, and how a slope is told from noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import redis
from kafka import KafkaAdminClient

#: Of a normal distribution: 95 % lie within so many standard errors.
CONFIDENCE_95 = 1.96

#: States of a transaction that has ended.
_OVER = frozenset({"CompleteCommit", "CompleteAbort", "Empty", "Dead"})


@dataclass(frozen=True)
class Slope:
    """A straight line through samples, by least squares.

    Attributes:
        per_hour: The slope, per hour.
        error_per_hour: Half the width of its 95 % interval, as if the samples were independent.
    """

    per_hour: float
    error_per_hour: float

    def __str__(self) -> str:
        return f"{self.per_hour:+,.1f} ± {self.error_per_hour:,.1f} / h"


def slope(seconds: Sequence[float], values: Sequence[float]) -> Slope:
    """Fit a line.

    Example:
        >>> slope([0, 1800, 3600], [5.0, 6.0, 7.0])
        Slope(per_hour=2.0, error_per_hour=0.0)
    """
    hours, y = np.asarray(seconds, dtype=float) / 3600, np.asarray(values, dtype=float)
    centred = hours - hours.mean()
    spread = float((centred**2).sum())
    if len(y) < 3 or spread == 0:
        return Slope(0.0, math.inf)
    gradient = float((centred * y).sum()) / spread
    rest = y - y.mean() - gradient * centred
    error = math.sqrt(float((rest**2).sum()) / (len(y) - 2) / spread)
    return Slope(round(gradient, 3), round(CONFIDENCE_95 * error, 3))


@dataclass(frozen=True)
class RedisUse:
    """What Redis says of itself."""

    bytes_in: int
    bytes_out: int
    commands: int
    memory_bytes: int
    connections: int

    def since(self, before: RedisUse) -> RedisUse:
        """Traffic since then; memory and connections are those of now."""
        return RedisUse(
            self.bytes_in - before.bytes_in,
            self.bytes_out - before.bytes_out,
            self.commands - before.commands,
            self.memory_bytes,
            self.connections,
        )


def redis_use(url: str) -> RedisUse:
    """Ask Redis; the connection that asks is not counted."""
    with redis.Redis.from_url(url) as client:
        info: dict[str, Any] = client.info()
    return RedisUse(
        info["total_net_input_bytes"],
        info["total_net_output_bytes"],
        info["total_commands_processed"],
        info["used_memory"],
        info["connected_clients"] - 1,
    )


@dataclass(frozen=True)
class LeftBehind:
    """What services hold of workers that have left: all zero if they left nothing."""

    redis_connections: int
    group_members: int
    open_transactions: int


def left_behind(bootstrap_servers: str, redis_url: str, group: str) -> LeftBehind:
    """Ask the services what they hold of a group's workers."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        described = admin.describe_groups([group])
        members = sum(len(one["members"]) for one in _rows(described))
        transactions = [
            one
            for one in admin.list_transactions().values()
            for one in (one if isinstance(one, list) else [one])
        ]
    finally:
        admin.close()
    is_open = [one for one in transactions if _is_open(one, group)]
    return LeftBehind(redis_use(redis_url).connections, members, len(is_open))


def _rows(described: Any) -> list[Any]:
    return list(described.values()) if isinstance(described, dict) else list(described)


def _is_open(transaction: Any, group: str) -> bool:
    state = getattr(transaction.state, "value", transaction.state)
    return transaction.transactional_id.startswith(f"{group}.") and state not in _OVER
