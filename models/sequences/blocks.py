"""Steps in blocks of a fixed number of rows, so that a row's result is equal bit for bit.

For another batch size torch may choose another kernel, which adds in another order. So a net is
only called with blocks of certain sizes, the last one padded, and a row's result depends neither on
the rows that share its block nor on its place in it. The engine, the offline answers and the audit
all step by this module.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from livestep.models.contract import (
    State,
    StepModel,
    check_inputs,
    check_packed,
    check_sequence,
    check_state_rows,
    like_state,
    state_tensors,
)
from livestep.models.devices import device_of
from livestep.models.fields.field_types import Field
from livestep.models.model_errors import ModelError
from livestep.models.sequences.block_sizes import FUSED_STEPS, BlockSizes
from livestep.models.sequences.feedback import FedBack
from livestep.models.sequences.random_rows import random_field_rows

#: Rows of the block that defines a net's results.
BLOCK_ROWS = 128

#: Further sizes: for a few rows, and for many. A net uses one of them only where its results equal
#: those of `BLOCK_ROWS` bit for bit. All are multiples of 32: torch's elementwise functions compute
#: the last elements of an array, those that don't fill a vector of the CPU, in another way.
OTHER_BLOCK_ROWS = (32, 512)

#: Bytes to which the rows of a block are aligned, as torch aligns new tensors: a product of
#: matrices may add in another order for memory that isn't.
ALIGNMENT = 64

#: Rows with which a net is measured.
PROBE_ROWS = max(OTHER_BLOCK_ROWS)

#: How often a block is timed; the fastest counts.
_TIMED_RUNS = 3


class BlockStepper(StepModel):
    """A net that is only called with blocks of fixed numbers of rows.

    Args:
        net: The net, possibly a `FedBack`.
        sizes: Its blocks, from `block_sizes`.

    Example:
        >>> from livestep import GRU, Number
        >>> net = GRU(3, 8, 2).eval()
        >>> stepper = block_stepper(net, [Number("x", 3)])
        >>> x = torch.randn(200, 3)
        >>> with torch.inference_mode():
        ...     bool((stepper.step(x)[0][50:51] == stepper.step(x[50:51])[0]).all())
        True
    """

    def __init__(self, net: StepModel, sizes: BlockSizes) -> None:
        super().__init__(net.input_size, net.output_size)
        self.net = net
        self.sizes = sizes

    def initial_state(self, batch_size: int) -> State:
        """Make the state of new keys, as the net does."""
        return self.net.initial_state(batch_size)

    def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
        """Advance every row by one timestep; see `StepModel.step`."""
        check_inputs(inputs, self.input_size)
        if not len(inputs):
            return self.net.step(inputs, prev_state)
        return self.step_packed(PackedSequence(inputs, torch.tensor([len(inputs)])), prev_state)

    def unroll(self, sequence: Tensor, prev_state: State | None = None) -> Tensor:
        """Step over whole sequences; see `StepModel.unroll`."""
        check_sequence(sequence, self.input_size)
        length, key_count = sequence.shape[:2]
        rows = PackedSequence(sequence.flatten(0, 1), torch.full((length,), key_count))
        return self.step_packed(rows, prev_state)[0].reshape(length, key_count, -1)

    def step_packed(
        self, sequence: PackedSequence, prev_state: State | None = None
    ) -> tuple[Tensor, State]:
        """Advance every key by its own number of timesteps; see `StepModel.step_packed`.

        A block of keys is stepped through all its timesteps, so that their states are not copied
        in between; when some have finished, the others may move to smaller blocks.
        """
        check_packed(sequence, self.input_size)
        counts: list[int] = sequence.batch_sizes.tolist()
        starts = [0, *accumulate(counts)]
        state = self.initial_state(counts[0]) if prev_state is None else prev_state
        check_state_rows(state, counts[0])
        outputs: list[_Rows] = []
        finished: list[_Rows] = []
        waiting = list(self._blocks(0, 0, counts[0], state))
        while waiting:
            block = waiting.pop()
            while block.count:
                end = block.rank  # the timestep at which the first of its keys has finished
                while end < len(counts) and counts[end] - block.first >= block.count:
                    end += 1
                self._step_ranks(block, sequence, starts[:end], outputs)
                active = max(0, counts[end] - block.first) if end < len(counts) else 0
                finished.append(block.finish(active))
                if active and self.sizes.cut(active) != [block.rows]:
                    waiting += self._blocks(block.first, block.rank, active, block.state)
                    break
        return _joined(outputs)[0], like_state(_joined(finished), state)

    def _step_ranks(
        self,
        block: _Block,
        sequence: PackedSequence,
        starts: Sequence[int],
        outputs: list[_Rows],
    ) -> None:
        """Step a block through its next timesteps, up to the last of `starts`."""
        is_fused = block.rows in self.sizes.fused_rows
        while block.rank < len(starts):
            next_starts = starts[block.rank : block.rank + FUSED_STEPS]
            begins = [start + block.first for start in next_starts]
            data = _gathered(sequence.data, begins, block.count, block.rows)
            is_one_call = is_fused and len(begins) == FUSED_STEPS
            calls = [data] if is_one_call else torch.split(data, block.rows)
            outputs_by_step: list[Tensor] = []
            for inputs in calls:
                if len(inputs) == block.rows:
                    y, following = self.net.step(padded(inputs, block.rows), block.state)
                else:
                    lengths = torch.full((FUSED_STEPS,), block.rows)
                    packed = PackedSequence(inputs, lengths)
                    y, following = self.net.step_packed(packed, block.state)
                check_stepped(y, following, block.state, self.output_size)
                block.state = following
                outputs_by_step += torch.split(y, block.rows)
            outputs += [
                (begin, (y[: block.count],))
                for begin, y in zip(begins, outputs_by_step, strict=True)
            ]
            block.rank += len(begins)

    def _blocks(self, first: int, rank: int, count: int, state: State) -> Iterator[_Block]:
        """Cut the first `count` rows of a state, and the keys to which they belong, into blocks."""
        begin = 0
        for rows in self.sizes.cut(count):
            end = min(begin + rows, count)
            part = [padded(tensor[begin:end], rows) for tensor in state_tensors(state)]
            yield _Block(first + begin, rank, end - begin, rows, like_state(part, state))
            begin = end


@dataclass(slots=True)
class _Block:
    """Some keys, side by side in packed order, and how far they are.

    Attributes:
        first: The first key.
        rank: Their next timestep.
        count: Number of keys; the other rows are padding.
        rows: Rows of the block.
        state: (rows, ...) each. Before the next timestep.
    """

    first: int
    rank: int
    count: int
    rows: int
    state: State

    def finish(self, active: int) -> _Rows:
        """Keep only the first `active` keys, and return the states of the others."""
        parts = tuple(tensor[active : self.count] for tensor in state_tensors(self.state))
        self.count = active
        return self.first + active, parts


def _gathered(data: Tensor, begins: Sequence[int], count: int, rows: int) -> Tensor:
    """Return the inputs of some timesteps of a block, (timesteps * rows, H_in).

    Args:
        data: In packed order.
        begins: Of each timestep, the first row.
        count: Rows of each timestep; the others repeat the last.
        rows: Rows of the block.
    """
    if len(begins) == 1:
        return padded(data[begins[0] : begins[0] + count], rows)
    places = torch.arange(rows).clamp(max=count - 1) + torch.tensor(begins).unsqueeze(1)
    return data.index_select(0, places.flatten().to(data.device))


#: The first row of some rows of tensors, and the rows.
_Rows = tuple[int, tuple[Tensor, ...]]


def _joined(pieces: list[_Rows]) -> list[Tensor]:
    """Put rows in order."""
    if len(pieces) == 1:
        return list(pieces[0][1])
    in_order = [tensors for _, tensors in sorted(pieces, key=itemgetter(0))]
    return [torch.cat(parts) for parts in zip(*in_order, strict=True)]


def check_stepped(outputs: Tensor, state: State, prev_state: State, output_size: int) -> None:
    """Check that a model keeps the shapes of its outputs and states.

    Args:
        outputs: Of a step.
        state: After the step.
        prev_state: Before it.
        output_size: H_out.

    Raises:
        ModelError: If it doesn't.
    """
    if outputs.dim() != 2 or outputs.shape[1] != output_size:
        raise ModelError(
            "a step returned outputs of the wrong width",
            expected=f"(n, {output_size})",
            found=tuple(outputs.shape),
        )
    before = [(tensor.dtype, tuple(tensor.shape)) for tensor in state_tensors(prev_state)]
    after = [(tensor.dtype, tuple(tensor.shape)) for tensor in state_tensors(state)]
    if before != after:
        raise ModelError("a step changed the state's shape", expected=before, found=after)


def padded(tensor: Tensor, count: int) -> Tensor:
    """Pad to `count` rows with the last row, which is valid input; with zeros if there is none.

    Args:
        tensor: (n, ...), n <= count.
        count: Rows of the result.

    Returns:
        padded: (count, ...), aligned; the same tensor if it already is.
    """
    missing = count - len(tensor)
    if not missing:
        return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()
    last = tensor[-1:] if len(tensor) else tensor.new_zeros(1, *tensor.shape[1:])
    return torch.cat([tensor, last.expand(missing, *tensor.shape[1:])])


def block_stepper(net: StepModel, inputs: Sequence[Field]) -> BlockStepper:
    """Step a net in its blocks.

    Args:
        net: The net, or a `FedBack` around it.
        inputs: What the columns of the net's inputs mean.
    """
    inner = net.net if isinstance(net, FedBack) else net
    return BlockStepper(net, block_sizes(inner, inputs))


#: By net: where it was measured, and its blocks.
_KNOWN: weakref.WeakKeyDictionary[StepModel, tuple[object, BlockSizes]] = (
    weakref.WeakKeyDictionary()
)


def block_sizes(net: StepModel, inputs: Sequence[Field]) -> BlockSizes:
    """Measure which blocks a net can use: once per net and process, some milliseconds.

    Args:
        net: Not wrapped in a `FedBack`.
        inputs: What the columns of its inputs mean.
    """
    place = (device_of(net), torch.get_num_threads())
    known = _KNOWN.get(net)
    if known is None or known[0] != place:
        rows = random_field_rows(inputs, PROBE_ROWS, torch.Generator().manual_seed(0))
        known = place, measured_sizes(net, rows.to(device_of(net)))
        _KNOWN[net] = known
    return known[1]


@torch.inference_mode()
def measured_sizes(net: StepModel, rows: Tensor) -> BlockSizes:
    """Measure which blocks a net can use, with some rows.

    The results are those of blocks of `BLOCK_ROWS` rows, or of the closest number that the net
    accepts: they don't depend on what is measured.

    Args:
        net: Not wrapped in a `FedBack`.
        rows: (`PROBE_ROWS`, H_in). Valid inputs.
    """
    own = net.nearest_batch_size(BLOCK_ROWS)
    others = {net.nearest_batch_size(count) for count in OTHER_BLOCK_ROWS} - {own}
    reference = BlockStepper(net, BlockSizes({own: 1.0}))
    try:
        _, state = reference.step(rows)
        expected = reference.step(rows, state)
        seconds_by_rows = {own: _call_s(net, rows, state, own)}
        for size in others:
            stepper = BlockStepper(net, BlockSizes({size: 1.0}))
            if _are_equal(stepper, rows, state, expected):
                seconds_by_rows[size] = _call_s(net, rows, state, size)
        fused = [size for size in seconds_by_rows if size <= own and _is_fusible(net, rows, size)]
    except ModelError:
        # A class may reject random numbers: its own block is always right, others are only faster.
        return BlockSizes({own: 1.0})
    return BlockSizes(seconds_by_rows, fused)


def _is_fusible(net: StepModel, rows: Tensor, size: int) -> bool:
    """Whether `step_packed` of `FUSED_STEPS` timesteps equals as many steps, twice in a row."""
    stepwise = BlockStepper(net, BlockSizes({size: 1.0}))
    fused = BlockStepper(net, BlockSizes({size: 1.0}, [size]))
    repeated = rows.repeat(-(-2 * FUSED_STEPS * size // len(rows)), 1)[: 2 * FUSED_STEPS * size]
    packed = PackedSequence(repeated, torch.full((2 * FUSED_STEPS,), size))
    (outputs, state), (expected, end) = (one.step_packed(packed) for one in (fused, stepwise))
    found, wanted = (outputs, *state_tensors(state)), (expected, *state_tensors(end))
    return all(map(torch.equal, found, wanted))


def _are_equal(
    stepper: BlockStepper, rows: Tensor, state: State, expected: tuple[Tensor, State]
) -> bool:
    """Whether blocks of another size have equal results, each row at another place."""
    shift = stepper.sizes.rows[0] // 2 + 1
    moved = like_state([tensor.roll(shift, 0) for tensor in state_tensors(state)], state)
    outputs, next_state = stepper.step(rows.roll(shift, 0), moved)
    found = (outputs, *state_tensors(next_state))
    return all(
        torch.equal(one.roll(-shift, 0), other)
        for one, other in zip(found, (expected[0], *state_tensors(expected[1])), strict=True)
    )


def _call_s(net: StepModel, rows: Tensor, state: State, size: int) -> float:
    """Measure one call with `size` rows, in seconds."""
    block = padded(rows[:size], size)
    part = like_state([padded(tensor[:size], size) for tensor in state_tensors(state)], state)
    fastest_s = float("inf")
    for _ in range(_TIMED_RUNS):
        start_s = time.perf_counter()
        net.step(block, part)
        if rows.is_cuda:
            torch.cuda.synchronize()
        fastest_s = min(fastest_s, time.perf_counter() - start_s)
    return fastest_s
