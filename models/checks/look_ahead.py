"""The rule that no output may depend on later events.

A live prediction has no later events. A net that was trained with them (a bidirectional RNN, an
average or a norm along time, a convolution with padding on both sides) can be written so that it
steps, but then it predicts something different from what it learned. Three places are checked: the
net's own `unroll`; its `forward`, if that accepts whole sequences; and whether a bidirectional RNN
carries its state from step to step, so that its backward half reads the past instead of the future.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from livestep.models.checks.agreement import EXACT, Agreement, check_close, tolerance_of, worse
from livestep.models.contract import State, StepModel, state_tensors
from livestep.models.foreign.foreign_errors import FOREIGN_ERRORS
from livestep.models.foreign.program_model import ProgramModel
from livestep.models.foreign.user_classes import AdaptedModel

#: Names of torch's RNNs in a graph: `aten.gru.input`, `aten.lstm.input` and so on. The second
#: argument is the state; the eighth is true for a bidirectional RNN.
_RNNS = ("gru", "lstm", "rnn_tanh", "rnn_relu")
_STATE_AT, _PARAMETERS_AT, _BIDIRECTIONAL_AT = 1, 2, 7

#: Lengths and states of the calls of one bidirectional RNN in one step.
_Calls = list[tuple[int, tuple[Tensor, ...]]]


def check_no_look_ahead(model: StepModel, sequence: Tensor, prev_state: State) -> Agreement:
    """Check that no output depends on later inputs.

    Args:
        model: The model.
        sequence: (L, N, H_in), L >= 2, N >= 2.
        prev_state: (N, ...) each, of keys that have seen a few events.

    Raises:
        AssertionError: If one does.
    """
    _check_nothing_runs_backwards(model, sequence[0], prev_state)
    return worse(_check_unroll(model, sequence, prev_state), _check_forward(model, sequence))


def _check_unroll(model: StepModel, sequence: Tensor, prev_state: State) -> Agreement:
    limit, worst = tolerance_of(model), EXACT
    outputs = model.unroll(sequence, prev_state)
    for cut in range(1, len(sequence)):
        changed = model.unroll(_changed_from(sequence, cut, 0), prev_state)
        what = f"unroll: outputs before timestep {cut}, when only later inputs change,"
        worst = worse(worst, check_close(changed[:cut], outputs[:cut], what, limit))
    return worst


def _check_forward(model: StepModel, sequence: Tensor) -> Agreement:
    """Check a module's forward, if it accepts whole sequences: (L, N, H_in), or with N first.

    Either axis may be time: along the key axis, outputs depend on nothing but their own row.
    """
    if not isinstance(model, AdaptedModel):
        return EXACT
    outputs = _whole_outputs(model, sequence)
    again = _whole_outputs(model, sequence)
    if outputs is None or again is None or not torch.equal(outputs, again):
        return EXACT  # other arguments, or random numbers: nothing to compare
    limit, worst = tolerance_of(model), EXACT
    for axis in (0, 1):
        cut = sequence.shape[axis] // 2
        changed = _whole_outputs(model, _changed_from(sequence, cut, axis))
        if changed is None:
            continue
        kept = range(cut)
        pair = [one.index_select(axis, torch.tensor(kept)) for one in (changed, outputs)]
        what = f"forward: outputs before index {cut} of axis {axis}, when only later inputs change,"
        worst = worse(worst, check_close(pair[0], pair[1], what, limit))
    return worst


def _changed_from(sequence: Tensor, cut: int, axis: int) -> Tensor:
    """Replace the inputs after the cut by valid ones: those from other places of the sequence."""
    head, tail = torch.split(sequence, [cut, sequence.shape[axis] - cut], dim=axis)
    return torch.cat([head, tail.roll((1, 1), dims=(0, 1))], dim=axis)


def _whole_outputs(model: AdaptedModel, sequence: Tensor) -> Tensor | None:
    """Call a module's forward with a whole sequence; None unless it returns an output per place."""
    if type(model.module).forward is nn.Module.forward:
        return None
    try:
        result = model.module(model.cast(sequence))
    except FOREIGN_ERRORS:  # it accepts something else
        return None
    outputs = result[0] if isinstance(result, tuple) and result else result
    if not isinstance(outputs, Tensor) or outputs.ndim != 3:
        return None
    return outputs if outputs.shape[:2] == sequence.shape[:2] else None


def _check_nothing_runs_backwards(model: StepModel, inputs: Tensor, prev_state: State) -> None:
    """Check that no bidirectional RNN continues from the state.

    One that reads within an event, such as the letters of a word, starts again for each event.
    """
    if isinstance(model, ProgramModel):
        found = _backwards_in_program(model)
    else:
        found = _backwards_in_module(model, inputs, prev_state)
    if found is not None:
        raise AssertionError(
            f"{found} is bidirectional and continues from the state: its backward half reads later "
            "events in training, but earlier events when it steps"
        )


def _backwards_in_module(model: StepModel, inputs: Tensor, prev_state: State) -> str | None:
    """Name the bidirectional RNN that is called for one timestep with a carried state."""
    rnns = {
        name.removeprefix("module."): module
        for name, module in model.named_modules()
        if isinstance(module, nn.RNNBase) and module.bidirectional
    }
    if not rnns:
        return None
    with _watched(rnns) as calls:
        model.step(inputs, prev_state)
        later = {name: list(made) for name, made in calls.items()}
    with _watched(rnns) as calls:
        model.step(inputs, model.initial_state(len(inputs)))
        first = {name: list(made) for name, made in calls.items()}
    for name in rnns:
        for (length, state), (_, zeros) in zip(later[name], first[name], strict=False):
            if length == 1 and not _are_equal(state, zeros):
                return f"{name!r}, a {type(rnns[name]).__name__},"
    return None


@contextmanager
def _watched(rnns: dict[str, nn.RNNBase]) -> Iterator[dict[str, _Calls]]:
    """Record the lengths and states with which some RNNs are called."""
    calls: dict[str, _Calls] = {name: [] for name in rnns}

    def note(name: str, rnn: nn.RNNBase, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        inputs = options.get("input", args[0] if args else None)
        state = options.get("hx", args[1] if len(args) > 1 else None)
        tensors = () if state is None else state_tensors(state)
        calls[name].append(
            (_length(inputs, rnn.batch_first), tuple(one.clone() for one in tensors))
        )

    hooks = []
    for name, rnn in rnns.items():

        def hook(module: nn.Module, args: Any, options: Any, name: str = name) -> None:
            note(name, module, args, options)  # type: ignore[arg-type]

        hooks.append(rnn.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        yield calls
    finally:
        for one in hooks:
            one.remove()


def _length(inputs: Any, is_batch_first: bool) -> int:
    """Return the number of timesteps of a call of an RNN."""
    if isinstance(inputs, nn.utils.rnn.PackedSequence):
        return len(inputs.batch_sizes)
    return int(inputs.shape[1 if is_batch_first and inputs.ndim == 3 else 0])


def _are_equal(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def _backwards_in_program(model: ProgramModel) -> str | None:
    """Name a program's bidirectional RNN whose state comes from the program's state."""
    if isinstance(model.module, fx.GraphModule):
        return _backwards_in_graph(model.module.graph, model.state_names)
    return _backwards_in_script(model.module, model.inputs_name, model.program.constants)


def _backwards_in_graph(graph: fx.Graph, states: set[str]) -> str | None:
    """Search an exported program; its placeholders have the names of the arguments."""
    for node in graph.nodes:
        kind, _, overload = str(node.target).removeprefix("aten.").partition(".")
        is_rnn = node.op == "call_function" and kind in _RNNS and overload == "input"
        if is_rnn and node.args[_BIDIRECTIONAL_AT]:
            given = node.args[_STATE_AT]
            sources = list(given) if isinstance(given, list | tuple) else [given]
            if states & _ancestors(sources, lambda one: one.name, _graph_sources):
                return f"{node.name!r}, an aten.{kind},"
    return None


def _graph_sources(node: fx.Node) -> list[Any]:
    """List the sources of a value; a size carries no values."""
    return [] if "sym_size" in str(node.target) else node.all_input_nodes


def _backwards_in_script(program: Any, inputs_name: str, constants: Container[str]) -> str | None:
    """Search TorchScript; the inputs of its graph are the arguments, tuples not flattened."""
    graph = program.inlined_graph
    states = {
        value.debugName()
        for value, argument in zip(graph.inputs(), program.forward.schema.arguments, strict=True)
        if argument.name not in ("self", inputs_name) and argument.name not in constants
    }
    for kind in _RNNS:
        for node in graph.findAllNodes(f"aten::{kind}", recurse=True):
            values = list(node.inputs())
            # The overload for packed sequences has a tensor here.
            is_plain = isinstance(values[_PARAMETERS_AT].type(), torch.ListType)
            if not is_plain or not values[_BIDIRECTIONAL_AT].toIValue():
                continue
            if states & _ancestors(
                [values[_STATE_AT]], lambda one: one.debugName(), _script_sources
            ):
                return f"an aten::{kind}"
    return None


def _script_sources(value: Any) -> list[Any]:
    """List the sources of a TorchScript value, over all branches."""
    node = value.node()
    if node.kind() in ("aten::size", "aten::len"):
        return []
    blocks = [output for block in node.blocks() for output in block.outputs()]
    return [*node.inputs(), *blocks]


def _ancestors(
    values: list[Any], name_of: Callable[[Any], str], sources: Callable[[Any], list[Any]]
) -> set[str]:
    """Name some values of a graph and all their sources, direct and indirect."""
    names: set[str] = set()
    waiting = values
    while waiting:
        value = waiting.pop()
        if name_of(value) not in names:
            names.add(name_of(value))
            waiting.extend(sources(value))
    return names
