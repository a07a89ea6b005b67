"""What the examples share: their interface, data files, logs of held-out events, and scores.

The data files are part of installed packages.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from livestep.models.contract import SizedModel
from livestep.models.fields.field_types import Category, CodecName, Field, Number
from livestep.models.loaded_model import LoadedModel
from livestep.models.model_errors import ModelError
from livestep.models.package_data import package_folder
from livestep.models.sequences.rules import SequenceRules

T = TypeVar("T")

#: Called with the finished share, from 0 to 1 and never falling, and a sentence about it.
Progress = Callable[[float, str], None]

#: For each key, its answers in order, as returned by `decode`.
Answers = Mapping[str, Sequence[Mapping[str, Any]]]

#: For each key, the right labels in order; None where the label is unknown.
Labels = dict[str, list[str | None]]

#: Seed of the held-out choice. Training seeds don't change it, so that scores can be compared.
SPLIT_SEED = 0


class ExampleEvent(NamedTuple):
    """One event of an example's log.

    Attributes:
        key: The key.
        timestamp_ms: Event time; None if the data have none.
        event: Its members, including the marks of the sequence.
    """

    key: str
    timestamp_ms: int | None
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TrainedExample:
    """A trained net, and what `save_model` needs with it.

    Attributes:
        net: In eval mode, on the CPU.
        inputs: The fields of its H_in columns.
        outputs: The fields of its H_out columns.
        rules: How events become sequences, and what is answered.
        codec: The format of a record's value.
        report: Scores on held-out data, by name: shares from 0 to 1 unless the name has a unit.
    """

    net: SizedModel
    inputs: tuple[Field, ...]
    outputs: tuple[Category | Number, ...]
    rules: SequenceRules
    codec: CodecName
    report: dict[str, float]


@dataclass(frozen=True, slots=True)
class Example:
    """One example: data, a net that learns from them, and events to stream.

    Attributes:
        data: The package with the data, and what they are.
        train: Trains a net from a seed, on one thread.
        events: Returns the held-out events in the order of the log. Accepts a seed that mixes the
            keys, and optionally the number of keys.
        labels: Returns the right answers to these events.
        score: Computes the scores of answers to these events, the same as in
            `TrainedExample.report`, so that the answers of a stream can be compared.
    """

    data: str
    train: Callable[[int, Progress | None], TrainedExample]
    events: Callable[[int, int | None], Iterator[ExampleEvent]]
    labels: Callable[[], Labels]
    score: Callable[[Answers], dict[str, float]]


def data_file(package: str, file: str, install: str) -> Path:
    """Find a data file inside an installed package, without importing the package.

    Args:
        package: Module name of the package.
        file: Path within the package.
        install: Arguments of `pip install` for the error message.

    Returns:
        path: Path of the existing file.

    Raises:
        ModelError: If the package or the file is missing.
    """
    missing = f"this example needs the data of the package {package}: pip install {install}"
    path = package_folder(package, missing) / file
    if not path.is_file():
        raise ModelError(
            f"{package} has no such file; install another version",
            file=path,
        )
    return path


def parted(items: Iterable[T], held_out_count: int) -> tuple[list[T], list[T]]:
    """Split items at random, in the same way for all training seeds.

    Args:
        items: The items, always in the same order.
        held_out_count: Number of items to hold out.

    Returns:
        seen: All other items.
        held_out: `held_out_count` items.
    """
    drawn = list(items)
    random.Random(SPLIT_SEED).shuffle(drawn)
    return drawn[held_out_count:], drawn[:held_out_count]


def mixed(sequences: Mapping[str, Sequence[dict[str, Any]]], seed: int) -> Iterator[ExampleEvent]:
    """Mix the events of many keys at random; each key's events keep their order.

    Args:
        sequences: The events of each key.
        seed: Seed of the mix.

    Returns:
        events: All events, without a time.

    Example:
        >>> log = mixed({"a": [{"x": 1}, {"x": 2}], "b": [{"x": 3}]}, seed=1)
        >>> [(key, event["x"]) for key, _, event in log]
        [('a', 1), ('b', 3), ('a', 2)]
    """
    waiting = {key: iter(events) for key, events in sequences.items()}
    order = [key for key, events in sequences.items() for _ in events]
    random.Random(seed).shuffle(order)
    for key in order:
        yield ExampleEvent(key, None, next(waiting[key]))


def first_keys(sequences: Mapping[str, Any], key_count: int | None) -> dict[str, Any]:
    """Return the first `key_count` keys; None for all."""
    return dict(list(sequences.items())[:key_count])


def offline_answers(
    trained: TrainedExample, events: Iterable[ExampleEvent]
) -> dict[str, list[dict[str, Any]]]:
    """Answer all events offline, key by key: the reference for a stream.

    Args:
        trained: The net and its rules.
        events: Events of any number of keys.

    Returns:
        answers: By key, in order.
    """
    model = LoadedModel(
        net=trained.net,
        inputs=trained.inputs,
        outputs=trained.outputs,
        codec=trained.codec,
        fingerprint="",
        name="example",
        rules=trained.rules,
    )
    by_key: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        by_key.setdefault(event.key, []).append(event.event)
    return {
        key: [answer["value"] for answer in model.answer_events(of_key, key)]
        for key, of_key in by_key.items()
    }


def examined(
    net: SizedModel,
    fields: tuple[tuple[Field, ...], tuple[Category | Number, ...]],
    rules: SequenceRules,
    score: Callable[[Answers], dict[str, float]],
    events: Iterable[ExampleEvent],
) -> TrainedExample:
    """Let a trained net answer the held-out events, and add its scores.

    Args:
        net: In eval mode.
        fields: Inputs and outputs.
        rules: Rules of its sequences.
        score: As in `Example`.
        events: The held-out events.
    """
    trained = TrainedExample(net, *fields, rules, "json", report={})
    trained.report.update(score(offline_answers(trained, events)))
    return trained


def right_share(answers: Answers, labels: Labels, output: str) -> float:
    """Return the share of answers with the right label.

    Args:
        answers: By key; each key must have labels.
        labels: By key, one per answer; answers whose label is None don't count.
        output: Name of the category output to compare.

    Returns:
        share: From 0 to 1; NaN if there is nothing to count.

    Raises:
        ValueError: If a key has a different number of answers and labels.

    Example:
        >>> answer = {"dish": {"label": "1", "probabilities": {"1": 0.75, "2": 0.25}}}
        >>> right_share({"a": [answer, answer, answer]}, {"a": ["1", "2", None]}, "dish")
        0.5
    """
    right = [
        answer[output]["label"] == label
        for key, of_key in answers.items()
        for answer, label in zip(of_key, labels[key], strict=True)
        if label is not None
    ]
    return sum(right) / len(right) if right else float("nan")
