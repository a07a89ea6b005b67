"""Live predictions for every key of a Kafka topic: the engine, and the clients beside it."""

from pipeline.client import DeadLetterReader, EventPublisher, PredictionReader
from pipeline.records import DeadLetter, Prediction, Source

__all__ = [
    "DeadLetter",
    "DeadLetterReader",
    "EventPublisher",
    "Prediction",
    "PredictionReader",
    "Source",
]
