"""Log and store in this process, beside the real ones: the engine with no services.

`predict_in_memory` runs the worker's engine over both, for tests of a model of your own.  Its
parts keep what the promise rests on, so that a test can crash between any two of their calls.
"""

from pipeline.memory.broker import (
    MemoryBroker,
    MemoryGroup,
    MemoryProducer,
    MemoryRecord,
    MemoryTransaction,
)
from pipeline.memory.log import MemoryLog, MemoryReplay
from pipeline.memory.predict import predict_in_memory
from pipeline.memory.store import MemoryStore

__all__ = [
    "MemoryBroker",
    "MemoryGroup",
    "MemoryLog",
    "MemoryProducer",
    "MemoryRecord",
    "MemoryReplay",
    "MemoryStore",
    "MemoryTransaction",
    "predict_in_memory",
]
