"""What the Python peers share: where things are, and one step of the model.

Every peer steps one event of one key at a time, as its users do: the state comes from the peer's
own store and goes back there.  The weights are those of the livestep model.  Settings come from
the environment, set by `tests/bench/contestants.py`.
"""

from __future__ import annotations

import os

import numpy as np
import torch

torch.set_num_threads(1)

BOOTSTRAP_SERVERS = os.environ.get("BENCH_BOOTSTRAP_SERVERS", "")
INPUT_TOPIC = os.environ.get("BENCH_INPUT_TOPIC", "")
OUTPUT_TOPIC = os.environ.get("BENCH_OUTPUT_TOPIC", "")
GROUP = os.environ.get("BENCH_GROUP", "")
REDIS_URL = os.environ.get("BENCH_REDIS_URL", "")

#: Empty when the peer starts, removed after the run.
STATE_DIRECTORY = os.environ.get("BENCH_STATE_DIRECTORY", "")

#: How often a peer that commits by time does so; Kafka Streams has rows for two intervals.
COMMIT_INTERVAL_S = 1.0


def load_weights() -> dict[str, torch.Tensor]:
    """Read the weights, by torch's names for them."""
    with np.load(os.environ["BENCH_WEIGHTS"]) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


_weights = load_weights()
_HIDDEN_SIZE = _weights["weight_hh"].shape[1]
_cell = torch.nn.GRUCell(_weights["weight_ih"].shape[1], _HIDDEN_SIZE)
_cell.load_state_dict({name: _weights[name] for name in _cell.state_dict()})
_head = torch.nn.Linear(_HIDDEN_SIZE, _weights["head_weight"].shape[0])
_head.load_state_dict({"weight": _weights["head_weight"], "bias": _weights["head_bias"]})


@torch.inference_mode()
def step(features: list[float], state: bytes | None) -> tuple[list[float], bytes]:
    """Advance one key by one event.

    Args:
        features: (H_in,).
        state: (H,) float32 as bytes; None or empty for a new key.

    Returns:
        outputs: (H_out,).
        next_state: As `state`.
    """
    if state:
        hidden = torch.frombuffer(bytearray(state), dtype=torch.float32)[None]  # (1, H)
    else:
        hidden = torch.zeros(1, _HIDDEN_SIZE)
    hidden = _cell(torch.tensor(features)[None], hidden)
    return _head(hidden)[0].tolist(), hidden.numpy().tobytes()
