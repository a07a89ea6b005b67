"""Live predictions from recurrent models, for every key of a Kafka topic.

Save a model, stream events, read a prediction for each; every key has its own hidden state. The
names below are the public API: import them from `livestep`, not from the modules inside.

    save_model, load_model             a model as a directory, with the meaning of its columns
    check_model                        reports which rules your own model breaks
    predict_in_memory                  what a worker would answer, without Kafka and Redis
    EventPublisher, PredictionReader   the clients of a running worker

A worker runs as `livestep worker`. Each name is imported when it is first used, so that a client
loads neither torch nor Faust nor Redis.

Example:
    >>> from livestep import GRU, load_model, predict_in_memory, save_model
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     save_model(GRU(input_size=1, hidden_size=4, output_size=1), directory)
    ...     model = load_model(directory)
    >>> events = [("a", {"x": 0.5}), ("b", {"x": 1.0}), ("a", {"x": 0.7})]
    >>> [(one.key, one.timestep) for one in predict_in_memory(model, events)]
    [('a', 0), ('b', 0), ('a', 1)]
"""

import os
from typing import TYPE_CHECKING

from livestep.models.lazy_names import lazy_names

# Without it, MKL's products of small matrices are rounded by where a row is in memory, so that a
# key's predictions would depend on the rest of its batch. MKL reads it when it is first used.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

if TYPE_CHECKING:
    from livestep.models.checks.agreement import TOLERANCE
    from livestep.models.checks.check_model import check_model
    from livestep.models.contract import State, StepModel
    from livestep.models.disk.loading import load_model
    from livestep.models.disk.saving import save_model, save_program
    from livestep.models.fields.encoding import activate, decode, encode
    from livestep.models.fields.field_types import (
        Category,
        Field,
        Number,
        OutputField,
        Text,
        total_width,
    )
    from livestep.models.loaded_model import LoadedModel
    from livestep.models.model_errors import FieldError, ModelError
    from livestep.models.nets.cells import GRU, LSTM, LSTMState, VanillaRNN
    from livestep.models.nets.encoder_decoder import EncoderDecoder
    from livestep.models.nets.stateless import FullyConnected, Glimpses
    from livestep.models.sequences.feedback import FedBack
    from livestep.models.sequences.forcing import free_running, teacher_forced
    from livestep.models.sequences.generation import generate
    from livestep.models.sequences.offline_json import answer_log
    from livestep.models.sequences.rules import Feedback, Generation, SequenceRules
    from livestep.pipeline.clients.publisher import EventPublisher
    from livestep.pipeline.clients.readers import DeadLetterReader, PredictionReader
    from livestep.pipeline.errors import (
        BrokerError,
        ConfigError,
        DecodeError,
        EngineError,
        MissingTopicError,
    )
    from livestep.pipeline.memory.memory_broker import MemoryBroker
    from livestep.pipeline.memory.memory_store import MemoryStore
    from livestep.pipeline.memory.memory_workers import memory_broker, run_to_end, start_worker
    from livestep.pipeline.memory.predict import predict_in_memory
    from livestep.pipeline.records import DeadLetter, Prediction, Source
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "livestep.models.checks.agreement": ("TOLERANCE",),
            "livestep.models.checks.check_model": ("check_model",),
            "livestep.models.contract": ("State", "StepModel"),
            "livestep.models.disk.loading": ("load_model",),
            "livestep.models.disk.saving": ("save_model", "save_program"),
            "livestep.models.fields.encoding": ("activate", "decode", "encode"),
            "livestep.models.fields.field_types": (
                "Category",
                "Field",
                "Number",
                "OutputField",
                "Text",
                "total_width",
            ),
            "livestep.models.loaded_model": ("LoadedModel",),
            "livestep.models.model_errors": ("FieldError", "ModelError"),
            "livestep.models.nets.cells": ("GRU", "LSTM", "LSTMState", "VanillaRNN"),
            "livestep.models.nets.encoder_decoder": ("EncoderDecoder",),
            "livestep.models.nets.stateless": ("FullyConnected", "Glimpses"),
            "livestep.models.sequences.feedback": ("FedBack",),
            "livestep.models.sequences.forcing": ("free_running", "teacher_forced"),
            "livestep.models.sequences.generation": ("generate",),
            "livestep.models.sequences.offline_json": ("answer_log",),
            "livestep.models.sequences.rules": ("Feedback", "Generation", "SequenceRules"),
            "livestep.pipeline.clients.publisher": ("EventPublisher",),
            "livestep.pipeline.clients.readers": ("DeadLetterReader", "PredictionReader"),
            "livestep.pipeline.errors": (
                "BrokerError",
                "ConfigError",
                "DecodeError",
                "EngineError",
                "MissingTopicError",
            ),
            "livestep.pipeline.memory.memory_broker": ("MemoryBroker",),
            "livestep.pipeline.memory.memory_store": ("MemoryStore",),
            "livestep.pipeline.memory.memory_workers": (
                "memory_broker",
                "run_to_end",
                "start_worker",
            ),
            "livestep.pipeline.memory.predict": ("predict_in_memory",),
            "livestep.pipeline.records": ("DeadLetter", "Prediction", "Source"),
        },
    )

__all__ = [
    # Nets, and the base class of your own.
    "GRU",
    "LSTM",
    "LSTMState",
    "VanillaRNN",
    "FullyConnected",
    "Glimpses",
    "EncoderDecoder",
    "StepModel",
    "State",
    # What the columns of inputs and outputs mean.
    "Number",
    "Category",
    "Text",
    "Field",
    "OutputField",
    "total_width",
    "encode",
    "decode",
    "activate",
    # How events form sequences.
    "SequenceRules",
    "Feedback",
    "Generation",
    # Train with feedback.
    "FedBack",
    "teacher_forced",
    "free_running",
    # Save, load, check.
    "save_model",
    "save_program",
    "load_model",
    "LoadedModel",
    "check_model",
    "TOLERANCE",
    # Predict without Kafka and Redis, and test.
    "predict_in_memory",
    "answer_log",
    "generate",
    "memory_broker",
    "MemoryBroker",
    "MemoryStore",
    "start_worker",
    "run_to_end",
    # Publish events, read predictions.
    "EventPublisher",
    "PredictionReader",
    "Prediction",
    "Source",
    "DeadLetterReader",
    "DeadLetter",
    # Errors.
    "ModelError",
    "FieldError",
    "EngineError",
    "ConfigError",
    "MissingTopicError",
    "BrokerError",
    "DecodeError",
]
