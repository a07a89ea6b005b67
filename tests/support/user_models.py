"""Models as users bring them: good ones, and each kind of wrong one. No class knows livestep."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn


class Window(nn.Module):
    """Looks at the last `length` samples, which it keeps, and counts in int64 what it has seen."""

    def __init__(self, input_size: int, length: int = 3) -> None:
        super().__init__()
        self.input_size, self.length = input_size, length
        self.head = nn.Linear(length * input_size, 2)

    def initial_state(self, batch_size: int) -> tuple[Tensor, Tensor]:
        samples = self.head.weight.new_zeros(batch_size, self.length, self.input_size)
        count = torch.zeros(batch_size, dtype=torch.int64, device=samples.device)
        return samples, count

    def step(
        self, inputs: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        samples, count = state
        samples = torch.cat([samples[:, 1:], inputs.unsqueeze(1)], dim=1)
        share = self.head(samples.flatten(1)) / (count + 1).unsqueeze(1)
        return share, (samples, count + 1)


class Letters(nn.Module):
    """Embeds letters and a category, which come as indices; -1 is nothing."""

    def __init__(self, letters: int = 3, values: int = 2) -> None:
        super().__init__()
        self.embed_letter = nn.Embedding(letters + 1, 4)
        self.embed_value = nn.Embedding(values + 1, 4)
        self.cell = nn.GRUCell(4, 4)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.embed_letter.weight.new_zeros(batch_size, 4)

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        indices = inputs.long() + 1
        seen = self.embed_value(indices[:, 0]) + self.embed_letter(indices[:, 1:]).sum(dim=1)
        state = self.cell(seen, state)
        return state, state


class Plain(nn.Module):
    """Keeps nothing, and has a mask and no sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
        self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))

    def initial_state(self, batch_size: int) -> tuple[()]:
        return ()

    def step(self, inputs: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        return self.net(inputs), ()


class Count(nn.Module):
    """Counts, with nothing to learn."""

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, 1)

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return state + 1, state + 1


class Sum(nn.Module):
    """A running sum times a weight: the right one that the wrong ones are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5]))

    def initial_state(self, batch_size: int) -> Any:
        return self.weight.new_zeros(batch_size, 1)

    def step(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        total = torch.tanh(0.5 * state + inputs)
        return total * self.weight, total


class FastSum(Sum):
    """With an unroll of its own, which is right."""

    def unroll(self, sequence: Tensor, state: Tensor) -> Tensor:
        outputs = []
        for inputs in sequence:
            state = torch.tanh(0.5 * state + inputs)
            outputs.append(state)
        return torch.stack(outputs) * self.weight


class WrongUnroll(FastSum):
    """Whose unroll begins at zeros, whatever the state."""

    def unroll(self, sequence: Tensor, state: Tensor) -> Tensor:
        return super().unroll(sequence, torch.zeros_like(state))


class WrongPacked(Sum):
    """Whose step_packed gives the states before the last rank."""

    def step_packed(self, sequence: Any, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs = []
        before = state
        for inputs in torch.split(sequence.data, sequence.batch_sizes.tolist()):
            before = state[: len(inputs)]
            output, state = self.step(inputs, before)
            outputs.append(output)
        padded = torch.zeros(int(sequence.batch_sizes[0]), 1)
        padded[: len(before)] = before
        return torch.cat(outputs), padded


class RowsMix(Sum):
    """In which a key sees the mean of its batch."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return super().step(inputs - inputs.mean(dim=0), state)


class RowsMixSlightly(Sum):
    """In which a key sees the mean of its batch, less than rounding could explain."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return super().step(inputs - 1e-6 * inputs.mean(dim=0), state)


class RowsInOrder(Sum):
    """In which a key's output depends on its place in the batch."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        place = torch.arange(len(inputs), dtype=inputs.dtype, device=inputs.device)
        return super().step(inputs + 0.1 * place.unsqueeze(1), state)


class Writes(Sum):
    """Which writes to the state that it is given."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state.mul_(0.5).add_(inputs).tanh_()
        return state * self.weight, state


class Remembers(Sum):
    """Which keeps something next to its state."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return super().step(inputs + 0.1 * (self.calls % 7), state)


class WrongEqualPacked(WrongPacked):
    """Which is wrong only for sequences that are all of one length."""

    def step_packed(self, sequence: Any, state: Tensor) -> tuple[Tensor, Tensor]:
        sizes = sequence.batch_sizes.tolist()
        if sizes[0] == sizes[-1]:
            return super().step_packed(sequence, state)
        outputs, done = [], []
        for inputs in torch.split(sequence.data, sizes):
            done.append(state[len(inputs) :])
            output, state = self.step(inputs, state[: len(inputs)])
            outputs.append(output)
        return torch.cat(outputs), torch.cat([state, *reversed(done)])


class Recognizes(Sum):
    """Which keeps the digits that its state lacks, and finds them if the same tensor comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[Tensor, Tensor]] = []

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        exact = next((exact for rounded, exact in self.kept if rounded is state), state)
        outputs, exact = super().step(inputs, exact)
        rounded = exact.bfloat16().to(exact.dtype)
        self.kept.append((rounded, exact))
        return outputs, rounded


class Grows(Sum):
    """Whose state becomes wider."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return inputs, torch.cat([state, inputs], dim=1)


class GrowsLate(Sum):
    """Whose state becomes wider at the first large input only."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if float(inputs.max()) > 0.5:
            return inputs, torch.cat([state, inputs], dim=1)
        return super().step(inputs, state)


class ChangesDtype(Sum):
    """Whose state becomes float64."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs, state = super().step(inputs, state)
        return outputs, state.double()


class Explodes(Sum):
    """Whose outputs are infinite for inputs below zero."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs, state = super().step(inputs, state)
        return outputs / (inputs > 0).float(), state


class KeyLast(Sum):
    """Whose state has the key in its last axis."""

    def initial_state(self, batch_size: int) -> Tensor:
        return self.weight.new_zeros(1, batch_size)


class LayersFirst(Sum):
    """Whose state is torch's (layers, N, H), of two layers: two keys don't show it."""

    def initial_state(self, batch_size: int) -> Tensor:
        return self.weight.new_zeros(2, batch_size, 1)

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.stack([torch.tanh(state[0] + inputs), state[1]])
        return state[0] * self.weight, state


class LayersFirstLater(LayersFirst):
    """Whose state has the key first at the start, and second after a step."""

    def initial_state(self, batch_size: int) -> Tensor:
        return self.weight.new_zeros(batch_size, 2, 1)

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return super().step(inputs, state if len(state) == 2 else state.transpose(0, 1))


class AsManyColumns(Sum):
    """Whose state has a column for each key."""

    def initial_state(self, batch_size: int) -> Tensor:
        return self.weight.new_zeros(batch_size, batch_size)

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return inputs * self.weight, state + 1


class BeginsDrawn(Sum):
    """In which each new key begins elsewhere."""

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.randn(batch_size, 1)


class TwoRowsOut(Sum):
    """Which always gives two rows."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.weight.expand(2, 1), state


class NotAPair(Sum):
    """Which forgets to return its state."""

    def step(self, inputs: Tensor, state: Tensor) -> Any:
        return inputs


class DictState(Sum):
    """Whose state is not a tensor."""

    def initial_state(self, batch_size: int) -> Any:
        return {"sum": torch.zeros(batch_size, 1)}


class TwoOutputs(Sum):
    """Which gives more columns than its fields have."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs, state = super().step(inputs, state)
        return torch.cat([outputs, outputs], dim=1), state


class LongOutputs(Sum):
    """Which gives integers."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs, state = super().step(inputs, state)
        return outputs.long(), state


class Breaks(Sum):
    """Which raises."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        raise RuntimeError("no such luck")


class Exits(Sum):
    """Which ends the program, as if all were well."""

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        sys.exit(0)


class ExitsWhenMade(Sum):
    """Which ends the program when it is made again."""

    def __init__(self, is_first: bool = False) -> None:
        super().__init__()
        if not is_first:
            sys.exit(0)


class Empty(Sum):
    """Whose second state tensor has no elements."""

    def initial_state(self, batch_size: int) -> Any:
        return super().initial_state(batch_size), self.weight.new_zeros(batch_size, 0)

    def step(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        outputs, total = super().step(inputs, state[0])
        return outputs, (total, state[1])


class Turns(Sum):
    """Whose state is a complex number that turns."""

    def initial_state(self, batch_size: int) -> Any:
        return torch.ones(batch_size, 1, dtype=torch.complex64)

    def step(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        state = state * torch.exp(1j * inputs)
        return state.real * self.weight, state


class Unsigned(Sum):
    """Whose state has a dtype of which torch can't put rows into a table."""

    def initial_state(self, batch_size: int) -> Any:
        return torch.zeros(batch_size, 1, dtype=torch.uint16)

    def step(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        return inputs, state


class Lazy(Sum):
    """With a layer that has no size until it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.LazyLinear(2)


class ListSizes(Sum):
    """Whose method `sizes` names nothing."""

    def sizes(self) -> Any:
        return [1, 2]


class BreaksSizes(Sum):
    """Whose method `sizes` raises."""

    def sizes(self) -> Any:
        raise KeyError("hidden_size")


class NoStep(Sum):
    """Which has no step."""

    step = None  # type: ignore[assignment]


class NeedsSize(Sum):
    """Which can't be made without an argument."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("sizes_seen", torch.zeros(size))


def not_a_class() -> None:
    """Stand where a class should."""
