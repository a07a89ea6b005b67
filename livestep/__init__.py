"""Live predictions from recurrent models, for every key of a Kafka topic.

All that a user's program needs has its name here.  A name imports its module when it is first used:
a client loads neither torch nor Faust nor Redis.

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

from typing import TYPE_CHECKING

from livestep.models.lazy_names import lazy_names

if TYPE_CHECKING:
    from livestep.models.checks.agreement import TOLERANCE
    from livestep.models.checks.check_model import check_model
    from livestep.models.contract import State, StepModel, like_state, state_tensors
    from livestep.models.devices import choose_device
    from livestep.models.disk.loading import load_model
    from livestep.models.disk.saving import save_model, save_program
    from livestep.models.fields.encoding import activate, decode, encode, encode_columns
    from livestep.models.fields.field_types import (
        Category,
        Field,
        Number,
        OutputField,
        Text,
        total_width,
    )
    from livestep.models.loaded_model import LoadedModel
    from livestep.models.model_errors import FieldError, FieldReason, ModelError
    from livestep.models.nets.cells import GRU, LSTM, LSTMState, VanillaRNN
    from livestep.models.nets.encoder_decoder import EncoderDecoder
    from livestep.models.nets.stateless import FullyConnected, Glimpses
    from livestep.models.sequences.feedback import FedBack
    from livestep.models.sequences.forcing import free_running, teacher_forced
    from livestep.models.sequences.generation import generate
    from livestep.models.sequences.offline import (
        OfflineAnswer,
        OfflineEvent,
        answers_offline,
        answers_to_log,
    )
    from livestep.models.sequences.offline_json import answer_log
    from livestep.models.sequences.rules import Feedback, Generation, SequenceRules, check_rules
    from livestep.pipeline.clients.publisher import EventPublisher
    from livestep.pipeline.clients.readers import DeadLetterReader, PredictionReader
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
            "livestep.models.contract": (
                "State",
                "StepModel",
                "like_state",
                "state_tensors",
            ),
            "livestep.models.devices": ("choose_device",),
            "livestep.models.disk.loading": ("load_model",),
            "livestep.models.disk.saving": (
                "save_model",
                "save_program",
            ),
            "livestep.models.loaded_model": ("LoadedModel",),
            "livestep.models.model_errors": (
                "FieldError",
                "FieldReason",
                "ModelError",
            ),
            "livestep.models.fields.field_types": (
                "Category",
                "Field",
                "Number",
                "OutputField",
                "Text",
                "total_width",
            ),
            "livestep.models.fields.encoding": (
                "activate",
                "decode",
                "encode",
                "encode_columns",
            ),
            "livestep.models.nets.cells": (
                "GRU",
                "LSTM",
                "LSTMState",
                "VanillaRNN",
            ),
            "livestep.models.nets.encoder_decoder": ("EncoderDecoder",),
            "livestep.models.nets.stateless": (
                "FullyConnected",
                "Glimpses",
            ),
            "livestep.models.sequences.feedback": ("FedBack",),
            "livestep.models.sequences.forcing": (
                "free_running",
                "teacher_forced",
            ),
            "livestep.models.sequences.generation": ("generate",),
            "livestep.models.sequences.offline": (
                "OfflineAnswer",
                "OfflineEvent",
                "answers_offline",
                "answers_to_log",
            ),
            "livestep.models.sequences.offline_json": ("answer_log",),
            "livestep.models.sequences.rules": (
                "Feedback",
                "Generation",
                "SequenceRules",
                "check_rules",
            ),
            "livestep.pipeline.clients.publisher": ("EventPublisher",),
            "livestep.pipeline.clients.readers": (
                "DeadLetterReader",
                "PredictionReader",
            ),
            "livestep.pipeline.memory.memory_broker": ("MemoryBroker",),
            "livestep.pipeline.memory.memory_store": ("MemoryStore",),
            "livestep.pipeline.memory.memory_workers": (
                "memory_broker",
                "run_to_end",
                "start_worker",
            ),
            "livestep.pipeline.memory.predict": ("predict_in_memory",),
            "livestep.pipeline.records": (
                "DeadLetter",
                "Prediction",
                "Source",
            ),
        },
    )

__all__ = [
    "Category",
    "DeadLetter",
    "DeadLetterReader",
    "EncoderDecoder",
    "EventPublisher",
    "FedBack",
    "Feedback",
    "Field",
    "FieldError",
    "FieldReason",
    "FullyConnected",
    "GRU",
    "Generation",
    "Glimpses",
    "LSTM",
    "LSTMState",
    "LoadedModel",
    "MemoryBroker",
    "MemoryStore",
    "ModelError",
    "Number",
    "OfflineAnswer",
    "OfflineEvent",
    "OutputField",
    "Prediction",
    "PredictionReader",
    "SequenceRules",
    "Source",
    "State",
    "StepModel",
    "TOLERANCE",
    "Text",
    "VanillaRNN",
    "activate",
    "answer_log",
    "answers_offline",
    "answers_to_log",
    "check_model",
    "check_rules",
    "choose_device",
    "decode",
    "encode",
    "encode_columns",
    "free_running",
    "generate",
    "like_state",
    "load_model",
    "memory_broker",
    "predict_in_memory",
    "run_to_end",
    "save_model",
    "save_program",
    "start_worker",
    "state_tensors",
    "teacher_forced",
    "total_width",
]
