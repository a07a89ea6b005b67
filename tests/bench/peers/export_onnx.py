"""Write the model as ONNX, one step of one key, for the Kafka Streams peer: `export_onnx.py FILE`.

Built by hand from the weights, since torch's exporter needs packages that nothing else here needs.
ONNX orders the gates of a GRU update, reset, new; torch reset, update, new.

Source:
    https://onnx.ai/onnx/operators/onnx__GRU.html
"""

from __future__ import annotations

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from peer import load_weights


def in_onnx_order(gates: np.ndarray) -> np.ndarray:
    """Turn (3H, ...) in torch's order of gates into ONNX's."""
    reset, update, new = np.split(gates, 3)
    return np.concatenate([update, reset, new])


def build() -> onnx.ModelProto:
    """Build the graph: inputs x (1, H_in) and h (1, H), outputs y (1, H_out) and next_h (1, H)."""
    weights = {name: tensor.numpy() for name, tensor in load_weights().items()}
    output_size, hidden_size = weights["head_weight"].shape
    input_size = weights["weight_ih"].shape[1]
    bias = np.concatenate([in_onnx_order(weights["bias_ih"]), in_onnx_order(weights["bias_hh"])])
    constants = {
        "W": in_onnx_order(weights["weight_ih"])[None],
        "R": in_onnx_order(weights["weight_hh"])[None],
        "B": bias[None],
        "head_weight": weights["head_weight"].T.copy(),
        "head_bias": weights["head_bias"],
        "axis": np.array([0], dtype=np.int64),
    }
    # linear_before_reset=1 is torch's formula of the new gate.
    gru = {"hidden_size": hidden_size, "linear_before_reset": 1}
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axis"], ["sequence"]),
        helper.make_node("Unsqueeze", ["h", "axis"], ["states"]),
        helper.make_node("GRU", ["sequence", "W", "R", "B", "", "states"], ["", "last"], **gru),
        helper.make_node("Squeeze", ["last", "axis"], ["next_h"]),
        helper.make_node("Gemm", ["next_h", "head_weight", "head_bias"], ["y"]),
    ]

    def row(name: str, width: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width])

    graph = helper.make_graph(
        nodes,
        "gru_step",
        [row("x", input_size), row("h", hidden_size)],
        [row("y", output_size), row("next_h", hidden_size)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


if __name__ == "__main__":
    model = build()
    onnx.checker.check_model(model)
    onnx.save(model, sys.argv[1])
