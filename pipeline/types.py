"""Types shared by all packages: log positions, records, arrays. Imports numpy only."""

from __future__ import annotations

from typing import NewType

import numpy as np
import numpy.typing as npt

#: A position in one partition's log.
Offset = NewType("Offset", int)

#: A key is unique within its partition: the same bytes in two partitions are two keys.
PartitionKey = tuple[int, bytes]

#: The clock of a partition without records: earlier than every event.
NO_TIME = -1

#: One record to send: key, value, partition, timestamp in ms (0: now), headers.
Headers = list[tuple[str, str | bytes | None]]
Outgoing = tuple[bytes | None, bytes | None, int, int, Headers]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
MarkArray = npt.NDArray[np.uint8]
