"""The verb step: runs a whole batch through the model, whatever keys it contains.

All events are stepped in one packed call, those of each sequence in order.  If the model generates,
each generated step of all sequences together is one more call.  Both go through the net in blocks
of fixed shape, so that a prediction does not depend on its batch; with the setting `rounding=free`,
the net steps whole batches.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from livestep.models.contract import State, StepModel, like_state, state_tensors
from livestep.models.loaded_model import LoadedModel
from livestep.models.rounding import Rounding
from livestep.models.sequences.blocks import block_stepper, check_stepped
from livestep.models.sequences.feedback import FedBack, draw_columns, key_seed
from livestep.pipeline.batch.answers import Answers, Outcome, Refusal, answer
from livestep.pipeline.batch.generating import Generator, Openings, finite_rows
from livestep.pipeline.batch.marks import NOT_STEPPED
from livestep.pipeline.batch.packing import Batch, rank
from livestep.pipeline.batch.sequences import Sequences, split
from livestep.pipeline.state.pool import CLOCK, ENDED, LAST_OUTPUT, StateLayout, States
from livestep.pipeline.types import BoolArray, FloatArray, IntArray


@dataclass(slots=True)
class Stepped:
    """Result of stepping a batch.

    Attributes:
        answers: The answers to send.
        states: The N keys' next states, in the order of `Batch.keys`.
        refusals: The events that get a dead letter.
    """

    answers: Answers
    states: States
    refusals: list[Refusal] = field(default_factory=list)


class Stepper:
    """Steps batches through one model on one device.

    Args:
        model: The model, its net in evaluation mode.
        device: Device of the net.
        rounding: "exact" for blocks, "free" for whole batches.

    Attributes:
        layout: Layout of one key's state: the net's tensors; with feedback, the values fed back;
            for many to one, the last output; with a session gap, the clock at the last event.
    """

    def __init__(
        self, model: LoadedModel, device: torch.device, rounding: Rounding = "exact"
    ) -> None:
        rules = model.rules
        self._rules = rules
        self._device = device
        fed_back = None
        if rules.feedback:
            fed_back = FedBack(model.net, model.inputs, model.outputs, rules.feedback).eval()
        net: StepModel = model.net
        self._sampled_count = 0
        if fed_back is not None and rules.is_feeding_events:
            net, self._sampled_count = fed_back, fed_back.sampled_count
        self._generator = None
        if fed_back is not None and rules.is_generating:
            self._generator = Generator(model, fed_back, device, rounding)
        self._net = block_stepper(net, model.inputs) if rounding == "exact" else net
        self._is_drawing = fed_back is not None and fed_back.sampled_count > 0
        self._template: State = self._net.initial_state(1)
        extras: dict[str, Tensor] = {}
        if rules.shape == "many-to-one":
            extras[LAST_OUTPUT] = torch.zeros(1, self._net.output_size, device=device)
        if rules.session_gap_ms is not None:
            extras[CLOCK] = torch.zeros(1, 1, dtype=torch.int64, device=device)
        self._zeros = (*state_tensors(self._template), *extras.values())
        self.layout = StateLayout(self._template, device, extras)

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Step once and discard the result, so that torch's setup doesn't delay the first event."""
        data = torch.zeros(2, self._net.input_size, device=self._device)
        sequence = PackedSequence(data, torch.ones(2, dtype=torch.int64))
        self._net.step_packed(sequence, self._template)

    @torch.inference_mode()
    def step(self, batch: Batch, states: States, *, is_replay: bool = False) -> Stepped:
        """Step every event of the batch, those of each sequence in order.

        Args:
            batch: n events of N keys.
            states: The N keys' states before the batch; they are not modified.
            is_replay: Compute only the states: no answers, and no generated sequences.
        """
        # A crash here replays this poll; nothing is written.
        sequences = split(batch, self._rules)
        outcome = self._step_events(batch, states, sequences)
        next_states = self._next_states(batch, states, outcome)
        if is_replay:
            nothing = np.zeros(0, dtype=np.int64)
            return Stepped(Answers.of(nothing, outcome.outputs[:0], nothing), next_states)
        answers, refusals = answer(batch, outcome, self._rules)
        if self._generator is not None:
            generated = self._generator.generate(self._openings(batch, outcome, answers))
            for event in answers.event[~generated.is_finite].tolist():
                key = batch.keys[batch.key_index[event]][1]
                detail = f"the sequence generated for key {key!r} has NaN or infinity; none is sent"
                refusals.append((event, "not-finite-step", detail))
            answers = answers.generated(generated)
        return Stepped(answers, next_states, refusals)

    def _step_events(self, batch: Batch, states: States, sequences: Sequences) -> Outcome:
        """Step the events that have features."""
        begin = self._beginnings(states, sequences)
        events = np.flatnonzero((batch.marks & NOT_STEPPED) == 0)
        seen = np.maximum(states.timesteps, 0)  # `ENDED` is negative: that key starts over at 0
        before = np.where(sequences.is_continued, seen[sequences.key], 0)
        of_event = sequences.of_event[events]
        if not len(events):
            outputs = np.zeros((0, self._net.output_size), dtype=np.float32)
            none = np.zeros(0, dtype=np.int64)
            outcome = Outcome(sequences, events, outputs, none.astype(bool), none, begin, before)
            return self._with_extras(batch, begin, outcome)
        ranks = rank(of_event)
        rows = self._on_device(ranks.rows)
        packed_events = events[ranks.events]
        sequence = PackedSequence(
            self._on_device(self._inputs(batch, packed_events)),
            torch.from_numpy(ranks.batch_sizes),
        )
        net_tensors = self.layout.net_of(begin)
        previous = tuple(tensor.index_select(0, rows) for tensor in net_tensors)
        begin_state = like_state(previous, self._template)
        packed, following = self._net.step_packed(sequence, begin_state)
        # An error here stops the worker before anything of the batch is sent or saved.
        check_stepped(packed, following, begin_state, self._net.output_size)
        next_rows = state_tensors(following)

        is_finite = np.ones(len(events), dtype=bool)
        if not (_all_finite(packed) and all(map(_all_finite, next_rows))):
            packed, next_rows, finite = self._step_guarded(sequence, previous)
            is_finite[ranks.events] = finite

        outputs = np.empty((len(events), packed.shape[1]), dtype=np.float32)
        outputs[ranks.events] = packed.cpu().numpy()
        tensors = tuple(
            tensor.index_copy(0, rows, next_row)
            for tensor, next_row in zip(net_tensors, next_rows, strict=True)
        )
        counts = before + np.bincount(of_event[is_finite], minlength=len(sequences))
        timesteps = before[of_event] + count_before(of_event, is_finite)
        outcome = Outcome(sequences, events, outputs, is_finite, timesteps, tensors, counts)
        return self._with_extras(batch, begin, outcome)

    def _beginnings(self, states: States, sequences: Sequences) -> tuple[Tensor, ...]:
        """Return the states that the S sequences start from, (S, ...) each."""
        count = len(sequences)
        if not sequences.is_continued.any():
            return tuple(row.expand(count, *row.shape[1:]).clone() for row in self._zeros)
        if count == len(states) and sequences.is_last.all() and sequences.is_continued.all():
            return states.tensors  # one sequence per key, in the order of the keys
        keys = self._on_device(sequences.key)
        goes_on = self._on_device(sequences.is_continued)
        return tuple(
            torch.where(
                goes_on.reshape(count, *[1] * (row.dim() - 1)), tensor.index_select(0, keys), row
            )
            for tensor, row in zip(states.tensors, self._zeros, strict=True)
        )

    def _inputs(self, batch: Batch, events: IntArray) -> FloatArray:
        """Return the model's inputs of some events: (n, H_in), with sampling (n, H_in + S)."""
        inputs = batch.inputs[events]
        if self._rules.is_generating:
            # In a generating model, values are fed back only within the generated sequence.
            inputs = np.nan_to_num(inputs, nan=0.0)
        if not self._sampled_count:
            return inputs
        columns = draw_columns(
            self._key_seeds(batch, events), batch.offsets[events], 0, self._sampled_count
        )
        return np.concatenate([inputs, columns], axis=1)

    def _key_seeds(self, batch: Batch, events: IntArray) -> npt.NDArray[np.uint64]:
        seeds = np.array([key_seed(key) for _, key in batch.keys], dtype=np.uint64)
        return seeds[batch.key_index[events]]

    def _with_extras(self, batch: Batch, begin: tuple[Tensor, ...], outcome: Outcome) -> Outcome:
        """Add the state's tensors that don't belong to the net: last outputs, clocks."""
        extras = self.layout.extras_of(begin)
        if LAST_OUTPUT in extras:
            good = np.flatnonzero(outcome.is_finite)
            # A sequence's events are in order, so the last assignment wins.
            last = np.full(len(outcome.sequences), -1, dtype=np.int64)
            last[outcome.sequences.of_event[outcome.events[good]]] = good
            rows = np.flatnonzero(last >= 0)
            outputs = self._on_device(outcome.outputs[last[rows]])
            last_outputs = extras[LAST_OUTPUT].index_copy(0, self._on_device(rows), outputs)
            extras[LAST_OUTPUT] = last_outputs
            outcome.last_outputs = last_outputs.cpu().numpy()
        if CLOCK in extras:
            clocks = extras[CLOCK][:, 0].cpu().numpy().copy()
            clocks[outcome.sequences.of_event] = batch.clocks
            extras[CLOCK] = self._on_device(clocks.reshape(-1, 1))
        outcome.tensors = (*self.layout.net_of(outcome.tensors), *extras.values())
        return outcome

    def _next_states(self, batch: Batch, states: States, outcome: Outcome) -> States:
        """Return the N keys' states after the batch: of their last sequences, if still open."""
        sequences = outcome.sequences
        if self._rules.is_stateless:
            return states
        offsets = states.offsets.copy()
        # A key's events are in order, so the last assignment wins.
        offsets[batch.key_index] = batch.offsets
        if sequences.of_event is batch.key_index:  # one sequence per key, and all are open
            return States(outcome.tensors, offsets, outcome.counts)
        last = np.flatnonzero(sequences.is_last)
        keys = sequences.key[last]
        # A bare start does not open a sequence; an event whose step was skipped does.
        events = np.bincount(sequences.of_event[outcome.events], minlength=len(sequences))
        is_open = (sequences.closing[last] < 0) & (events[last] > 0)
        timesteps = states.timesteps.copy()
        timesteps[keys] = np.where(is_open, outcome.counts[last], ENDED)
        picked = self._on_device(last)
        target = self._on_device(keys)
        mask = self._on_device(is_open)
        tensors = tuple(
            tensor.index_copy(
                0,
                target,
                torch.where(
                    mask.reshape(len(last), *[1] * (row.dim() - 1)),
                    ended.index_select(0, picked),
                    row,
                ),
            )
            for tensor, ended, row in zip(states.tensors, outcome.tensors, self._zeros, strict=True)
        )
        return States(tensors, offsets, timesteps)

    def _openings(self, batch: Batch, outcome: Outcome, answers: Answers) -> Openings:
        """Return the starting points of the generated sequences, one for each answer."""
        rows = self._on_device(outcome.sequences.of_event[answers.event])
        assert self._rules.generation is not None
        wanted = batch.steps_max[answers.event]
        empty = np.zeros(0, dtype=np.uint64)
        return Openings(
            tensors=tuple(
                tensor.index_select(0, rows) for tensor in self.layout.net_of(outcome.tensors)
            ),
            key_seeds=self._key_seeds(batch, answers.event) if self._is_drawing else empty,
            offsets=batch.offsets[answers.event],
            steps_max=np.where(wanted > 0, wanted, self._rules.generation.steps_max),
        )

    def _step_guarded(
        self, sequence: PackedSequence, previous: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...], BoolArray]:
        """Step rank by rank and skip events that produce NaN or infinity: slow, but rarely needed.

        Whether an event is skipped depends only on its key's events, so a replay skips the same.
        """
        current = [tensor.clone() for tensor in previous]
        outputs, finite = [], []
        start = 0
        for size in sequence.batch_sizes.tolist():
            prev_state = like_state(tuple(t[:size] for t in current), self._template)
            y, next_state = self._net.step(sequence.data[start : start + size], prev_state)
            start += size
            rows = state_tensors(next_state)
            is_good = finite_rows(y, rows)
            for tensor, row in zip(current, rows, strict=True):
                good = is_good.reshape(size, *[1] * (row.dim() - 1))
                tensor[:size] = torch.where(good, row, tensor[:size])
            # Zeros, so that later code need not handle NaN.
            outputs.append(torch.where(is_good.unsqueeze(1), y, 0))
            finite.append(is_good)
        return torch.cat(outputs), tuple(current), torch.cat(finite).cpu().numpy()

    def _on_device(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self._device.type == "cuda":
            # Pinned memory allows an asynchronous copy.
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor


def count_before(sequence_index: IntArray, is_counted: BoolArray) -> IntArray:
    """Return for each event the number of counted events of its sequence before it.

    Args:
        sequence_index: (n,) int64.  The sequence of each event, in time order.
        is_counted: (n,) bool.  Whether each event is counted.

    Example:
        >>> count_before(np.array([1, 0, 1, 1]), np.array([True, True, False, True])).tolist()
        [0, 0, 1, 1]
    """
    by_sequence = np.argsort(sequence_index, kind="stable")
    counted = is_counted[by_sequence].astype(np.int64)
    before = np.cumsum(counted) - counted  # over all sequences
    _, starts, lengths = np.unique(
        sequence_index[by_sequence], return_index=True, return_counts=True
    )
    counts = np.empty(len(sequence_index), dtype=np.int64)
    counts[by_sequence] = before - np.repeat(before[starts], lengths)
    return counts


def _all_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
