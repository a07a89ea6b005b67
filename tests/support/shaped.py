"""Random models of every shape of sequence, and random events for them: marks, bad ones, all."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from livestep import (
    GRU,
    LSTM,
    Category,
    Feedback,
    Field,
    Generation,
    LoadedModel,
    Number,
    SequenceRules,
    StepModel,
    VanillaRNN,
)
from livestep.models.contract import State
from livestep.models.fields.field_types import columns_of
from livestep.models.sequences.rules import Shape
from livestep.pipeline.clients.event_encoding import mark_headers
from tests.support.world import loaded

SHAPES: tuple[Shape, ...] = get_args(Shape)

#: The last one ends a generated sequence.
LETTERS = ("a", "b", "c", ".")

#: Beyond this a step of `Fragile` is not finite.
FRAGILE_LIMIT = 1e30


class Fragile(StepModel):
    """A cell whose outputs become infinite where an input is huge.

    Args:
        cell: What it is otherwise.
        breaking: A column that has the same effect where it is 1 and all else is 0, as it is in a
            generated sequence; None for no such column.
    """

    def __init__(self, cell: StepModel, breaking: int | None = None) -> None:
        super().__init__(cell.input_size, cell.output_size)
        self.cell = cell
        self.breaking = breaking

    def initial_state(self, batch_size: int) -> State:
        return self.cell.initial_state(batch_size)

    def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
        safe = torch.where(inputs.abs() > FRAGILE_LIMIT, 0.0, inputs)
        outputs, state = self.cell.step(safe, prev_state)
        is_broken = inputs[:, :1].abs() > FRAGILE_LIMIT
        if self.breaking is not None:
            others = inputs.abs().sum(dim=1, keepdim=True)
            is_broken |= (inputs[:, [self.breaking]] == 1) & (others == 1)
        return torch.where(is_broken, torch.inf, outputs), state


class ShapedRecord(NamedTuple):
    """A record of an input topic.

    Attributes:
        key: Its key.
        value: Its value.
        headers: Its headers.
        timestamp_ms: Its event time.
        is_bad: Whether it is one that can't be used, whatever came before it.
    """

    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]]
    timestamp_ms: int
    is_bad: bool = False


def shaped_fields(
    rng: random.Random, shape: Shape, codec: str
) -> tuple[tuple[Field, ...], tuple[Field, ...], tuple[Feedback, ...]]:
    """Draw inputs, outputs and links; a shape that generates feeds back."""
    is_generating = shape in ("one-to-many", "encode-decode")
    inputs: list[Field] = [Number("x", rng.randint(1, 2))]
    outputs: list[Field] = []
    links: list[Feedback] = []
    if shape != "one-to-one" and (is_generating or rng.random() < 0.6):
        if is_generating or rng.random() < 0.7:
            temperature = rng.choice([0.0, 0.7, 1.5]) if codec == "json" else 0.0
            links.append(Feedback("letter", "last_letter", temperature))
            inputs.append(Category("last_letter", LETTERS, optional=True))
        if not links or rng.random() < 0.3:
            links.append(Feedback("y", "last_y"))
            inputs.append(Number("last_y", 2, optional=True))
    if rng.random() < 0.5 or any(link.output == "y" for link in links):
        outputs.append(Number("y", 2))
    if not outputs or rng.random() < 0.5 or any(link.output == "letter" for link in links):
        outputs.append(Category("letter", LETTERS))
    return tuple(inputs), tuple(outputs), tuple(links)


def shaped_rules(rng: random.Random, shape: Shape, links: tuple[Feedback, ...]) -> SequenceRules:
    """Draw the rest of the rules."""
    generation = None
    if shape in ("one-to-many", "encode-decode"):
        stop = ("letter", ".") if rng.random() < 0.7 else (None, None)
        generation = Generation(rng.randint(1, 7), *stop)
    is_stateless = shape in ("one-to-one", "one-to-many")
    gap_ms = 100 if rng.random() < 0.4 and not is_stateless else None
    return SequenceRules(shape, links, generation, gap_ms)


def shaped_net(rng: random.Random, input_size: int, output_size: int) -> StepModel:
    """Draw a small cell with lively weights, so that labels change from step to step."""
    torch.manual_seed(rng.randrange(1_000_000))
    cell = rng.choice([VanillaRNN, GRU, LSTM])(input_size, rng.randint(2, 6), output_size)
    with torch.no_grad():
        for weights in cell.parameters():
            weights.mul_(3.0)
    return cell


def shaped_parts(rng: random.Random, shape: Shape) -> tuple[StepModel, dict[str, Any]]:
    """Draw a net of a shape, and what its numbers mean: inputs, outputs, codec, rules."""
    codec = rng.choice(["json", "json", "float32"])
    inputs, outputs, links = shaped_fields(rng, shape, codec)
    rules = shaped_rules(rng, shape, links)
    net = shaped_net(rng, *[sum(field.width for field in fields) for fields in (inputs, outputs)])
    return net, {"inputs": inputs, "outputs": outputs, "codec": codec, "rules": rules}


def shaped_model(rng: random.Random, shape: Shape) -> LoadedModel:
    """Draw a model of a shape, some of whose steps are not finite."""
    net, parts = shaped_parts(rng, shape)
    breaking = None
    if parts["rules"].is_generating and rng.random() < 0.3:
        breaking = columns_of(parts["inputs"], "last_letter").start + LETTERS.index("b")
    return loaded(Fragile(net, breaking), **parts)


def with_other_weights(model: LoadedModel, seed: int) -> LoadedModel:
    """Make the next version of a model, for the same events."""
    net = copy.deepcopy(model.net)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weights in net.parameters():
            weights.copy_(torch.randn_like(weights))
    return replace(model, net=net, fingerprint="00000000000000bb")


def is_huge(record: ShapedRecord) -> bool:
    """Whether a record has a number that breaks a step of `Fragile`."""
    value = record.value or b""
    if b"e+" in value:
        return True
    is_raw = len(value) % 4 == 0 and not value.startswith(b"{")
    return is_raw and bool((np.abs(np.frombuffer(value, "<f4")) > FRAGILE_LIMIT).any())


class ShapedEvents:
    """Random events for a model, some of them bad, with an event time that advances.

    Args:
        model: Whose.
        rng: What draws.
        keys: How many keys.
        bad_share: Share of records that can't be used.
        is_fragile: Whether some numbers are huge.
        begin_ms: Event time of the beginning.
    """

    def __init__(
        self,
        model: LoadedModel,
        rng: random.Random,
        *,
        keys: int,
        bad_share: float = 0.06,
        is_fragile: bool = True,
        begin_ms: int = 1_000,
    ) -> None:
        self._model = model
        self._rng = rng
        self._keys = [b"key-%d" % number for number in range(keys)]
        self._bad_share = bad_share
        self._is_fragile = is_fragile
        self._now_ms = begin_ms

    def take(self, count: int) -> Iterator[ShapedRecord]:
        """Draw the next records."""
        for _ in range(count):
            self._now_ms += self._rng.choice([1, 10, 60, -5])
            key = self._rng.choice(self._keys)
            draw = self._rng.random()
            if draw < self._bad_share:
                yield self._bad(key)
            elif draw < self._bad_share + 0.05:
                yield ShapedRecord(key, None, [], self._now_ms)
            else:
                yield self._event(key)

    def ends(self) -> Iterator[ShapedRecord]:
        """Forget every key."""
        for key in self._keys:
            yield ShapedRecord(key, None, [], self._now_ms)

    def _event(self, key: bytes) -> ShapedRecord:
        rng, rules = self._rng, self._model.rules
        marks: dict[str, Any] = {
            mark: True for mark, share in (("start", 0.08), ("end", 0.25)) if rng.random() < share
        }
        is_bare = bool(marks) and rng.random() < 0.3
        if rules.generation is not None and rng.random() < 0.3 and not is_bare:
            marks["steps_max"] = rng.randint(1, rules.generation.steps_max)
        features = {} if is_bare else self._features()
        if self._model.codec == "float32" or (is_bare and rng.random() < 0.5):
            value = b"" if is_bare else self._raw(features)
            return ShapedRecord(key, value, mark_headers(**marks), self._now_ms)
        if rng.random() < 0.5:
            members = {**features, **marks}
            return ShapedRecord(key, json.dumps(members).encode(), [], self._now_ms)
        if is_bare:
            return ShapedRecord(key, json.dumps(marks).encode(), [], self._now_ms)
        return ShapedRecord(key, json.dumps(features).encode(), mark_headers(**marks), self._now_ms)

    def _features(self) -> dict[str, Any]:
        """Draw the members of an event; what is fed back is there now and then."""
        rng = self._rng
        features: dict[str, Any] = {}
        for field in self._model.inputs:
            if field.name.startswith("last_") and rng.random() < 0.7:
                if rng.random() < 0.2:
                    features[field.name] = None
            elif isinstance(field, Category):
                features[field.name] = rng.choice(field.values)
            else:
                numbers = [round(rng.gauss(0, 1), 3) for _ in range(field.width)]
                if field.name == "x" and self._is_fragile and rng.random() < 0.04:
                    numbers[0] = 2 * FRAGILE_LIMIT
                features[field.name] = numbers if field.width > 1 else numbers[0]
        return features

    def _raw(self, features: dict[str, Any]) -> bytes:
        """Write members as float32, NaN where one is absent."""
        blocks = []
        for field in self._model.inputs:
            value = features.get(field.name)
            if value is None:
                blocks.append(np.full(field.width, np.nan, "<f4"))
            elif isinstance(field, Category):
                blocks.append(np.eye(field.width, dtype="<f4")[field.values.index(value)])
            else:
                blocks.append(np.atleast_1d(np.array(value, "<f4")))
        return np.concatenate(blocks).tobytes()

    def _bad(self, key: bytes) -> ShapedRecord:
        """Draw a record that can't be used: all but a mark of it may be right."""
        rng = self._rng
        is_json = self._model.codec == "json"
        features = self._features()
        good = json.dumps(features).encode() if is_json else self._raw(features)
        limit = self._model.rules.generation.steps_max if self._model.rules.generation else 0
        bad: list[tuple[bytes | None, list[tuple[str, bytes]]]] = [
            (b"{" if is_json else b"123", []),
            (b"", []),
            (good, [("sequence", b"ended")]),
            (good, [("sequence", b"")]),
            (good, [("sequence", b"end"), ("steps-max", b"0")]),
            (good, [("steps-max", b"%d" % (limit + 1))]),
            (good, [("steps-max", b"many")]),
        ]
        if is_json:
            for members in (
                {"end": 1},
                {"start": "true"},
                {"end": True, "steps_max": 0},
                {"end": True, "steps_max": limit + 1},
                {"end": True, "unknown": 1},
                {"x": None, "end": True, "y": 1},
            ):
                bad.append((json.dumps({**features, **members}).encode(), []))
        value, headers = rng.choice(bad)
        return ShapedRecord(key, value, headers, self._now_ms, is_bad=True)
