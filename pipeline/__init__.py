"""Live predictions for every key of a Kafka topic: the engine, and the clients beside it.

The names below import their module when they are first used, so that a client loads neither torch
nor Faust nor Redis.
"""

from typing import TYPE_CHECKING

from models.lazy_names import lazy_names

if TYPE_CHECKING:
    from pipeline.client import DeadLetterReader, EventPublisher, PredictionReader
    from pipeline.records import DeadLetter, Prediction, Source
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "pipeline.client": ("DeadLetterReader", "EventPublisher", "PredictionReader"),
            "pipeline.records": ("DeadLetter", "Prediction", "Source"),
        },
    )

__all__ = [
    "DeadLetter",
    "DeadLetterReader",
    "EventPublisher",
    "Prediction",
    "PredictionReader",
    "Source",
]
