"""What is stepped: recurrent models, the contract they keep, and how they lie on disk.

Knows torch; knows nothing of Kafka or Redis.

    contract.py     StepModel: initial_state, step, unroll, step_packed
    cells.py        VanillaRNN, GRU, LSTM
    fields.py       what the columns of inputs and outputs mean; events to arrays and back
    disk.py         save_model, load_model: model.safetensors and model.json
    description.py  what model.json says, its checks, and the fingerprint
    devices.py      the CPU or a CUDA device
    checks.py       the tolerance, and what every model has to hold
    cook/           the example: a room-mate who cooks by the weather, and a net that learns it
    errors.py       ModelError, FieldError
"""

from models.cells import GRU, LSTM, LSTMState, VanillaRNN
from models.checks import TOLERANCE, check_model
from models.contract import State, StepModel, like_state, state_tensors
from models.devices import choose_device
from models.disk import LoadedModel, load_model, save_model
from models.errors import FieldError, FieldReason, ModelError
from models.fields import (
    Category,
    Field,
    Number,
    activate,
    decode,
    encode,
    encode_columns,
    total_width,
)

__all__ = [
    "GRU",
    "LSTM",
    "TOLERANCE",
    "Category",
    "Field",
    "FieldError",
    "FieldReason",
    "LSTMState",
    "LoadedModel",
    "ModelError",
    "Number",
    "State",
    "StepModel",
    "VanillaRNN",
    "activate",
    "check_model",
    "choose_device",
    "decode",
    "encode",
    "encode_columns",
    "like_state",
    "load_model",
    "save_model",
    "state_tensors",
    "total_width",
]
