"""What the examples have in common: their form, their data files, the log of held-out events.

The data lie in packages that carry them.
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

#: Called with the share that is done, from 0 to 1 and never falling, and a sentence about it.
Progress = Callable[[float, str], None]

#: Of each key, the values that were answered, in order: as `fields.decode` gives them.
Answers = Mapping[str, Sequence[Mapping[str, Any]]]

#: Of each key, what the answers should have said; None where nobody knows.
Labels = dict[str, list[str | None]]

#: Of the choice of what is held out. No seed of a training changes it, so that figures compare.
SPLIT_SEED = 0


class ExampleEvent(NamedTuple):
    """One event of an example's log.

    Attributes:
        key: Whose.
        timestamp_ms: Event time; None if the data have none.
        event: Its members, the marks of the sequence among them.
    """

    key: str
    timestamp_ms: int | None
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TrainedExample:
    """A net that was trained, and what `save_model` needs with it.

    Attributes:
        net: In eval mode, on the CPU.
        inputs: What its H_in columns mean.
        outputs: What its H_out columns mean.
        rules: How events become sequences, and what is answered.
        codec: What a record's value is.
        report: Figures on held-out data, by name: shares from 0 to 1 unless the name says more.
    """

    net: SizedModel
    inputs: tuple[Field, ...]
    outputs: tuple[Category | Number, ...]
    rules: SequenceRules
    codec: CodecName
    report: dict[str, float]


@dataclass(frozen=True, slots=True)
class Example:
    """One example: data, a net that learns them, and events to stream.

    Attributes:
        data: The package that carries the data, and what they are.
        train: Trains a net from a seed, on one thread.
        events: Gives the held-out events in the log's order, from a seed that mixes the keys and,
            if wanted, the number of keys.
        labels: Gives what the answers to these events should say.
        score: Turns answers to these events into figures; those of `TrainedExample.report` that
            come from answers are made by it, so that a stream's can be compared with them.
    """

    data: str
    train: Callable[[int, Progress | None], TrainedExample]
    events: Callable[[int, int | None], Iterator[ExampleEvent]]
    labels: Callable[[], Labels]
    score: Callable[[Answers], dict[str, float]]


def data_file(package: str, file: str, install: str) -> Path:
    """Find a data file inside an installed package, without importing that.

    Args:
        package: Its name as a module.
        file: Path within it.
        install: What to give `pip install` if it is missing.

    Returns:
        path: Of the file, which exists.

    Raises:
        ModelError: If the package is not installed, or has no such file.
    """
    missing = f"the example's data are in the package {package}: pip install {install}"
    path = package_folder(package, missing) / file
    if not path.is_file():
        raise ModelError(f"the package {package} has no such file", file=path)
    return path


def parted(items: Iterable[T], held_out_count: int) -> tuple[list[T], list[T]]:
    """Part items at random, the same way for all seeds of a training.

    Args:
        items: In an order that is always the same.
        held_out_count: How many are kept out.

    Returns:
        seen: All others.
        held_out: So many.
    """
    drawn = list(items)
    random.Random(SPLIT_SEED).shuffle(drawn)
    return drawn[held_out_count:], drawn[:held_out_count]


def mixed(sequences: Mapping[str, Sequence[dict[str, Any]]], seed: int) -> Iterator[ExampleEvent]:
    """Mix the events of many keys at random, each key's in their order, as live sources do.

    Args:
        sequences: The events of each key.
        seed: Of the mixing.

    Returns:
        events: All of them, without a time.

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
    """Take the first keys only; all of them if no number is given."""
    return dict(list(sequences.items())[:key_count])


def offline_answers(
    trained: TrainedExample, events: Iterable[ExampleEvent]
) -> dict[str, list[dict[str, Any]]]:
    """Answer all events offline, one key after another: what a stream is compared with.

    Args:
        trained: The net and its rules.
        events: Of any number of keys.

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
    """Let a net that was trained answer held-out events, and report its score.

    Args:
        net: In eval mode.
        fields: Inputs and outputs.
        rules: Of its sequences.
        score: As `Example.score`.
        events: Held out.
    """
    trained = TrainedExample(net, *fields, rules, "json", report={})
    trained.report.update(score(offline_answers(trained, events)))
    return trained


def right_share(answers: Answers, labels: Labels, output: str) -> float:
    """Count how many answers name the right label.

    Args:
        answers: By key; a key without labels is refused.
        labels: By key, as many as answers; an answer whose label is None doesn't count.
        output: Name of the category output that is looked at.

    Returns:
        share: From 0 to 1; NaN if there is nothing to count.

    Raises:
        ValueError: If a key has another number of answers than of labels.

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
