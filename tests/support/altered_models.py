"""Models that compute with more than their arguments and weights, and one with complex weights."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations


class Act(nn.Module):
    """A cell whose activation, scale, norm and data's mean matter; `sizes` names one argument."""

    mean: Tensor

    def __init__(self, hidden: int, activation: str = "tanh", eps: float = 1e-5) -> None:
        super().__init__()
        self.hidden, self.activation, self.scale = hidden, activation, 1.0
        self.cell = nn.Linear(2 + hidden, hidden)
        self.norm = nn.LayerNorm(hidden, eps=eps)
        self.act = nn.ReLU() if activation == "relu" else nn.Tanh()
        self.head = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("mean", torch.zeros(2), persistent=False)
        self.names = {"inputs": ["a", "b"]}

    def sizes(self) -> dict[str, Any]:
        return {"hidden": self.hidden}

    def initial_state(self, batch_size: int) -> Tensor:
        return self.head.weight.new_zeros(batch_size, self.hidden)

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        mixed = self.cell(torch.cat([inputs - self.mean, state], dim=1))
        state = self.act(self.norm(mixed)) * self.scale
        return self.head(self.dropout(state)), state


class Plain(nn.Module):
    """Has defaults for its arguments, no method `sizes`, and keeps no number."""

    def __init__(self, hidden: int = 4, act: str = "tanh") -> None:
        super().__init__()
        self.cell = nn.Linear(1, hidden)
        self.act = nn.ReLU() if act == "relu" else nn.Tanh()
        self.head = nn.Linear(hidden, 1)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.head.weight.new_zeros(batch_size, 1)

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.tanh(self.head(self.act(self.cell(inputs + state))))
        return state, state


class PlainSized(Plain):
    """Says that it needs no arguments, which is wrong as soon as it is given any."""

    def sizes(self) -> dict[str, Any]:
        return {}


class Packing(Act):
    """With a packed way of its own, that alone looks at an attribute."""

    def __init__(self, hidden: int) -> None:
        super().__init__(hidden)
        self.gain = 1.0

    def step_packed(self, sequence: Any, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs, done = [], []
        for inputs in torch.split(sequence.data, sequence.batch_sizes.tolist()):
            done.append(state[len(inputs) :])
            output, state = self.step(inputs, state[: len(inputs)])
            outputs.append(output * self.gain)
        return torch.cat(outputs), torch.cat([state, *reversed(done)])


class Unrolling(Act):
    """With an unroll of its own, that alone looks at an attribute."""

    def __init__(self, hidden: int) -> None:
        super().__init__(hidden)
        self.gain = 1.0

    def unroll(self, sequence: Tensor, state: Tensor) -> Tensor:
        outputs = []
        for inputs in sequence:
            output, state = self.step(inputs, state)
            outputs.append(output * self.gain)
        return torch.stack(outputs)


class Normed(Act):
    """With a weight norm of each kind, made by the constructor, as the class says."""

    def __init__(self, hidden: int) -> None:
        super().__init__(hidden)
        parametrizations.weight_norm(self.cell)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch calls it old; models have it
            self.old = nn.utils.weight_norm(nn.Linear(hidden, hidden))

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs, state = super().step(inputs, state)
        return outputs, self.old(state)


class Indexed(nn.Module):
    """Takes a number for an index, so that most random numbers can't be stepped."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(2, 3)
        self.scale = scale

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, 3)

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = 0.5 * state + self.embed(inputs[:, 0].long()) * self.scale
        return state[:, :1], state


class Changing(nn.Module):
    """Which has a weight, and a buffer that is stored, and one that isn't."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5]))
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("scratch", torch.zeros(1), persistent=False)
        self.lines: list[float] = []

    def initial_state(self, batch_size: int) -> Tensor:
        return self.weight.new_zeros(batch_size, 1)

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.tanh(0.5 * state + inputs)
        return state * self.weight, state


class Counts(Changing):
    """Whose buffer counts, without any effect."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        self.count += len(inputs)
        return super().step(inputs, state)


class CountsLarge(Changing):
    """Whose buffer counts inputs above 5 only: a first trial with zeros doesn't show it."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        self.count = self.count + (inputs > 5).sum()
        return super().step(inputs, state)


class Learns(Changing):
    """A model that keeps learning."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        self.weight.data = self.weight.data + 0.01 * inputs.mean()
        return super().step(inputs, state)


class RunningStatistics(Changing):
    """With a batch norm that keeps learning in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)

    def train(self, mode: bool = True) -> RunningStatistics:
        super().train(mode)
        self.norm.train()
        return self

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if len(inputs) == 1:
            inputs = inputs.repeat(2, 1)
            outputs, state = super().step(self.norm(inputs), state.repeat(2, 1))
            return outputs[:1], state[:1]
        return super().step(self.norm(inputs), state)


class KeepsScratch(Changing):
    """Which answers from a buffer that isn't stored."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        self.scratch = 0.5 * self.get_buffer("scratch") + inputs.mean()
        return super().step(inputs + self.scratch, state)


class KeepsAttribute(Changing):
    """Which answers from a list."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        self.lines = [*self.lines[-3:], float(inputs.mean())]
        return super().step(inputs + sum(self.lines), state)


class LogsOnly(Changing):
    """Which writes to attributes and to a buffer that isn't stored, without any effect."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        self.lines.append(float(inputs.mean()))
        self.scratch = torch.ones(1)
        return super().step(inputs * self.scratch, state)


class DropsAlways(Changing):
    """Whose dropout is always in training."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs, state = super().step(inputs, state)
        return functional.dropout(outputs), state


class DrawsInPython(Changing):
    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return super().step(inputs + random.random() + np.random.rand(), state)  # noqa: NPY002


class DrawsWhenMade(Changing):
    """Whose constructor draws from every generator."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = torch.rand(1).item() + random.random() + np.random.rand()  # noqa: NPY002


class Locked(Changing):
    """Which holds something that can't be copied."""

    def __init__(self, hold: Callable[[], Any] | None = None) -> None:
        super().__init__()
        self.held = hold and hold()


class Resonator(nn.Module):
    """A complex state space model: complex weights, a complex buffer, a real output."""

    def __init__(self, size: int = 4, dtype: torch.dtype = torch.complex64) -> None:
        super().__init__()
        self.pole = nn.Parameter(0.9 * torch.polar(torch.ones(size), torch.rand(size)).to(dtype))
        self.mix = nn.Parameter(torch.randn(size, 2, dtype=dtype))
        self.register_buffer("phase", torch.polar(torch.ones(size), torch.rand(size)).to(dtype))

    def initial_state(self, batch_size: int) -> Tensor:
        return self.pole.new_zeros(batch_size, len(self.pole))

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = state * self.pole + inputs * self.phase
        return (state @ self.mix).real, state
