"""What is stepped: recurrent models, the contract they keep, and how they lie on disk.

Knows torch; knows nothing of Kafka or Redis. A name below imports its module when it is first used:
fields, rules and `model.json` can be had without torch.

    contract.py      StepModel: initial_state, step, unroll, step_packed
    cells.py         VanillaRNN, GRU, LSTM
    nets.py          FullyConnected, Glimpses, EncoderDecoder
    field_types.py   what the columns of inputs and outputs mean: Number, Category, Text
    fields.py        events to arrays and back
    event_checks.py  why an event doesn't fit
    rules.py         how events become sequences: shapes, feedback, generation
    feedback.py      FedBack: an output that becomes a part of the next input, and draws
    forcing.py       training with feedback: teacher_forced, free_running
    generation.py    one sequence generated offline
    offline.py       all answers to a key's events, or a partition's, offline: the truth
    offline_log.py   the same for events as JSON objects
    session_gaps.py  which sequences the log's clock ends
    disk.py          save_model, load_model: model.safetensors and model.json
    description.py   what model.json says, and its checks
    reading.py       reading a directory's files; read_description needs no torch
    weights.py       the classes that take weights, the checks of weights, and the fingerprint
    storable.py      what save_model takes, and what to give it instead of anything else
    same_net.py      whether what would be loaded steps like the model that is saved, bit for bit
    net_differences.py  what differs in two nets, in words
    stored_weights.py  weights between a module and the bytes of model.safetensors
    writing.py       writing a directory's files, all or none
    building.py      from what model.json says to a net that steps
    user_classes.py  what classes of the user's own have to be, and the adapter around them
    class_imports.py finding them by name, if their package is allowed
    programs.py      TorchScript and exported programs, stepped
    program_reading.py  reading their files, and what their signatures say
    program_states.py  which of their arguments are states, and their shapes
    file_kinds.py    what a file is that should be a program
    batch_sizes.py   how many keys a program takes in one call; other numbers in pieces
    archive_checks.py  opening an exported program and running nothing that stands in it
    devices.py       the CPU or a CUDA device
    checks.py        what every model has to hold
    trials.py        all checks in the order of cause and effect: check_model
    check_data.py    what checks are made of: the tolerance, random inputs and states
    look_ahead.py    whether a net uses later events
    check_report.py  all checks as a table, and the speed
    package_data.py  data that a package carries
    seeding.py       one thread, and nets from a seed of their own
    examples/        an example on real data for each shape
    cook/            the example: a room-mate who cooks by the weather, and a net that learns it
    errors.py        ModelError, FieldError
    lazy_names.py    names that are imported when they are first used
"""

from typing import TYPE_CHECKING

from models.lazy_names import lazy_names

if TYPE_CHECKING:
    from models.cells import GRU, LSTM, LSTMState, VanillaRNN
    from models.checks import TOLERANCE
    from models.contract import State, StepModel, like_state, state_tensors
    from models.devices import choose_device
    from models.disk import LoadedModel, load_model, save_model, save_program
    from models.errors import FieldError, FieldReason, ModelError
    from models.feedback import FedBack
    from models.field_types import Category, Field, Number, OutputField, Text, total_width
    from models.fields import activate, decode, encode, encode_columns
    from models.forcing import free_running, teacher_forced
    from models.generation import generate
    from models.nets import EncoderDecoder, FullyConnected, Glimpses
    from models.offline import OfflineAnswer, OfflineEvent, answers_offline, answers_to_log
    from models.offline_log import answer_events, answer_log
    from models.rules import Feedback, Generation, SequenceRules, check_rules
    from models.trials import check_model
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "models.cells": ("GRU", "LSTM", "LSTMState", "VanillaRNN"),
            "models.checks": ("TOLERANCE",),
            "models.contract": ("State", "StepModel", "like_state", "state_tensors"),
            "models.devices": ("choose_device",),
            "models.disk": ("LoadedModel", "load_model", "save_model", "save_program"),
            "models.errors": ("FieldError", "FieldReason", "ModelError"),
            "models.feedback": ("FedBack",),
            "models.field_types": (
                "Category",
                "Field",
                "Number",
                "OutputField",
                "Text",
                "total_width",
            ),
            "models.fields": ("activate", "decode", "encode", "encode_columns"),
            "models.forcing": ("free_running", "teacher_forced"),
            "models.generation": ("generate",),
            "models.nets": ("EncoderDecoder", "FullyConnected", "Glimpses"),
            "models.offline": (
                "OfflineAnswer",
                "OfflineEvent",
                "answers_offline",
                "answers_to_log",
            ),
            "models.offline_log": ("answer_events", "answer_log"),
            "models.rules": ("Feedback", "Generation", "SequenceRules", "check_rules"),
            "models.trials": ("check_model",),
        },
    )

__all__ = [
    "GRU",
    "LSTM",
    "TOLERANCE",
    "Category",
    "EncoderDecoder",
    "FedBack",
    "Feedback",
    "Field",
    "FieldError",
    "FieldReason",
    "FullyConnected",
    "Generation",
    "Glimpses",
    "LSTMState",
    "LoadedModel",
    "ModelError",
    "Number",
    "OfflineAnswer",
    "OfflineEvent",
    "OutputField",
    "SequenceRules",
    "State",
    "StepModel",
    "Text",
    "VanillaRNN",
    "activate",
    "answer_events",
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
    "save_model",
    "save_program",
    "state_tensors",
    "teacher_forced",
    "total_width",
]
