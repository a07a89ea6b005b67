"""The examples: their event logs, their training, and the command.

Only `livestep example` trains the nets in full; here each learns from a small part of its data.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import orjson
import pytest
import torch
from click.testing import CliRunner

from livestep import GRU, encode, load_model, save_model
from livestep.models.examples import (
    EXAMPLES,
    ExampleEvent,
    TrainedExample,
    digits,
    names,
    offline_answers,
    purchases,
    spelling,
    vowels,
)
from livestep.models.examples.base import mixed, right_share
from livestep.models.examples.training import fit, fold_scale, label_loss, shuffled
from livestep.models.seeding import seeded
from livestep.models.sequences.rules import MARKS
from livestep.pipeline.batch.marks import END, marks_of
from livestep.pipeline.cli import cli
from livestep.pipeline.publishing.columns import BadRow, EventColumns
from livestep.pipeline.publishing.limits import TopicLimits
from livestep.pipeline.publishing.setup import open_source

MODULES: dict[str, ModuleType] = {
    "digits": digits,
    "digits-rows": digits,
    "names": names,
    "vowels": vowels,
    "spelling": spelling,
    "purchases": purchases,
}
each_example = pytest.mark.parametrize("name", EXAMPLES)

#: Size of the two parts of a split in the short trainings.
TRAINING_COUNT, HELD_OUT_COUNT = 600, 40


class Short(NamedTuple):
    """A short training.

    Attributes:
        trained: The result.
        reports: All progress reports.
        events: The held-out events of its scores.
    """

    trained: TrainedExample
    reports: list[tuple[float, str]]
    events: list[ExampleEvent]


@pytest.fixture(scope="module", params=EXAMPLES)
def short(request: pytest.FixtureRequest) -> tuple[str, Short]:
    name = request.param
    with pytest.MonkeyPatch.context() as patch:
        make_short(patch)
        reports: list[tuple[float, str]] = []
        example = EXAMPLES[name]
        trained = example.train(0, lambda fraction, text: reports.append((fraction, text)))
        return name, Short(trained, reports, list(example.events(0, None)))


def make_short(patch: pytest.MonkeyPatch) -> None:
    """Reduce the data and the epochs of each example."""
    for module in (digits, names, spelling, purchases):
        training, held_out = module.split()
        few = (head(training, TRAINING_COUNT), head(held_out, HELD_OUT_COUNT))
        patch.setattr(module, "split", lambda few=few: few)
    utterances = {part: vowels.read_utterances(part) for part in ("TRAIN", "TEST")}
    utterances["TEST"] = utterances["TEST"][::10]
    patch.setattr(vowels, "read_utterances", utterances.__getitem__)
    patch.setattr(names, "EVENTS_EACH", 1)
    for module, count in ((names, 12), (vowels, 8), (spelling, 40), (purchases, 30)):
        patch.setattr(module, "EPOCHS", count)
    for member in ("EPOCHS_PLAIN", "EPOCHS_ROWS"):
        patch.setattr(digits, member, 8)


def head(part: Any, count: int) -> Any:
    return dict(list(part.items())[:count]) if isinstance(part, dict) else part[:count]


def by_key(events: Iterator[ExampleEvent] | list[ExampleEvent]) -> dict[str, list[dict[str, Any]]]:
    sequences: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        sequences.setdefault(event.key, []).append(event.event)
    return sequences


def said(output: str, *texts: str) -> list[dict[str, Any]]:
    return [{output: {"label": text, "probabilities": {}}} for text in texts]


@each_example
def test_each_event_fits_the_inputs(name: str) -> None:
    module = MODULES[name]
    features = []
    for _, _, event in EXAMPLES[name].events(0, None):
        of_event = {member: value for member, value in event.items() if member not in MARKS}
        if of_event:
            features.append(of_event)
        else:
            assert event == {"end": True}
    rows = encode(module.INPUTS, features)
    assert len(rows) == len(features) > 200
    assert (rows != 0).any(axis=1).all()


@each_example
def test_each_key_has_one_label_per_answer(name: str) -> None:
    labels = EXAMPLES[name].labels()
    sequences = by_key(EXAMPLES[name].events(0, None))
    if name == "names":
        assert labels == {}
        return
    assert labels.keys() == sequences.keys()
    for key, of_key in sequences.items():
        assert len(labels[key]) == len(of_key) if name == "purchases" else len(labels[key]) >= 1
        if name in ("vowels", "spelling"):
            assert [event.get("end", False) for event in of_key] == [
                *[False] * (len(of_key) - 1),
                True,
            ]


def test_letters_keep_their_order_while_words_are_mixed() -> None:
    events = list(spelling.events(seed=3, key_count=50))
    for word, of_word in by_key(events).items():
        assert "".join(event["letter"] for event in of_word[:-1]) == word
    # And the words are mixed
    assert len({event.key for event in events[:25]}) > 10


def test_purchases_are_ordered_by_date() -> None:
    moments = [event.timestamp_ms for event in purchases.events()]
    assert moments == sorted(moments)


@each_example
def test_a_seed_mixes_the_keys_but_changes_no_events(name: str) -> None:
    events = EXAMPLES[name].events
    assert list(events(1, 30)) == list(events(1, 30))
    assert by_key(events(1, 30)) == by_key(events(2, 30))
    assert len(by_key(events(1, 30))) == 30
    if name != "purchases":
        assert list(events(1, 30)) != list(events(2, 30))


def test_mixed_keeps_the_order_of_each_key() -> None:
    sequences = {str(key): [{"x": x} for x in range(key)] for key in range(20)}
    events = list(mixed(sequences, seed=0))
    assert len(events) == sum(range(20))
    for key, of_key in by_key(events).items():
        assert of_key == sequences[key]


def test_the_share_of_right_answers_skips_unknown_labels() -> None:
    answers = {"a": said("back", "yes", "no", "no"), "b": said("back", "no")}
    labels = {"a": ["yes", "yes", None], "b": [None], "c": ["yes"]}
    assert right_share(answers, labels, "back") == 0.5
    with pytest.raises(ValueError, match="longer"):
        right_share({"a": answers["a"][:1]}, labels, "back")
    assert math.isnan(right_share({"b": answers["b"]}, labels, "back"))


def test_a_word_is_right_in_any_of_its_pronunciations_but_only_if_it_stops() -> None:
    held_out = spelling.split()[1]
    word, ways = next((word, ways) for word, ways in held_out.items() if len(set(ways)) > 1)
    for way in ways:
        figures = spelling.score({word: said("phoneme", *way, spelling.STOP)})
        assert figures == {"word_accuracy": 1.0, "phoneme_error_rate": 0.0}
        figures = spelling.score({word: said("phoneme", *way)})
        assert figures == {"word_accuracy": 0.0, "phoneme_error_rate": 0.0}
    figures = spelling.score({word: said("phoneme", spelling.STOP)})
    assert figures == {"word_accuracy": 0.0, "phoneme_error_rate": 1.0}


def test_generated_names_are_scored_by_the_request() -> None:
    answers = {
        "female-M-0": said("character", *"MELANIE", "end"),
        "male-M-0": said("character", *"MELANIE", "end"),
        "male-any-0": said("character", *"QQ"),
        "male-B-0": said("character", *"JAMES", "end"),
    }
    assert names.score(answers) == {
        "stopped": 0.75,
        "first_letter": pytest.approx(2 / 3),
        "in_census": 0.75,
        "right_gender": pytest.approx(2 / 3),
    }


def test_a_short_training_learns_and_reports_its_progress(short: tuple[str, Short]) -> None:
    _, (trained, reports, _) = short
    fractions = [fraction for fraction, _ in reports]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    losses = [float(text.split("loss ")[1]) for _, text in reports]
    assert len(losses) >= 3
    assert losses[-1] < 0.95 * losses[0]
    assert not trained.net.training
    assert trained.report
    for figure, value in trained.report.items():
        assert value >= 0 and (value <= 1 or figure.startswith("bits"))


def test_a_short_training_is_better_than_chance(short: tuple[str, Short]) -> None:
    name, (trained, _, _) = short
    report = trained.report
    if name == "names":
        assert report["bits_per_character"] < math.log2(27) - 1
        assert report["stopped"] > 0.9
    elif name == "spelling":
        assert report["phoneme_error_rate"] < 0.9
    else:
        chance = {"digits": 0.1, "digits-rows": 0.1, "vowels": 1 / 9, "purchases": 0.5}[name]
        assert report["accuracy"] > chance + 0.1


def test_the_saved_model_gets_the_scores_of_the_training(
    short: tuple[str, Short], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_short(monkeypatch)
    name, (trained, _, events) = short
    save_model(
        trained.net, tmp_path, trained.inputs, trained.outputs, trained.codec, rules=trained.rules
    )
    loaded = load_model(tmp_path)
    answers = {
        key: [answer["value"] for answer in loaded.answer_events(of_key, key)]
        for key, of_key in by_key(events).items()
    }
    assert answers == offline_answers(trained, events)
    figures = EXAMPLES[name].score(answers)
    assert figures == {figure: trained.report[figure] for figure in figures}
    for key, labels in EXAMPLES[name].labels().items():
        assert len(answers[key]) == len(labels) or name == "spelling"


@pytest.mark.parametrize("name", ["digits", "digits-rows", "vowels", "purchases"])
def test_a_net_accepts_raw_inputs_although_it_learns_from_scaled_ones(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given the same short training with and without the scale folded in
    make_short(monkeypatch)
    for member in ("EPOCHS", "EPOCHS_PLAIN", "EPOCHS_ROWS"):
        monkeypatch.setattr(MODULES[name], member, 1, raising=False)
    taking_raw = EXAMPLES[name].train(0, None).net
    monkeypatch.setattr(MODULES[name], "fold_scale", lambda layer, mean, deviation: None)
    taking_scaled = EXAMPLES[name].train(0, None).net

    # When one gets raw inputs and the other scaled ones
    frames = torch.tensor([f for one in vowels.read_utterances("TRAIN") for f in one.frames])
    mean, deviation = {
        "vowels": (frames.mean(dim=0), frames.std(dim=0)),
        "purchases": (torch.zeros(3), torch.tensor(purchases.SCALES)),
    }.get(name, (torch.zeros(64), torch.full((64,), digits.BLACK)))
    raw = torch.from_numpy(encode(MODULES[name].INPUTS, features_of(name))).unsqueeze(1)

    # Then their outputs are equal
    with torch.no_grad():
        expected = taking_scaled.unroll((raw - mean) / deviation)
        assert torch.allclose(taking_raw.unroll(raw), expected, atol=1e-3)


def features_of(name: str) -> list[dict[str, Any]]:
    """Return the held-out events of an example, without marks."""
    events = [event for _, _, event in EXAMPLES[name].events(0, None)]
    return [
        {member: value for member, value in event.items() if member not in MARKS}
        for event in events
    ]


def test_a_layer_with_folded_scale_accepts_raw_inputs() -> None:
    torch.manual_seed(0)
    mean, deviation = torch.tensor([1.0, -2.0, 100.0]), torch.tensor([2.0, 0.5, 50.0])
    net, x = GRU(3, 8, 2), torch.randn(5, 4, 3) * deviation + mean
    before = net.unroll((x - mean) / deviation)
    fold_scale(net.recurrent, mean, deviation)
    assert torch.allclose(net.unroll(x), before, atol=1e-5)


def test_fit_is_seeded_and_keeps_torchs_global_generator() -> None:
    def weights(seed: int) -> torch.Tensor:
        net = seeded(seed, lambda: torch.nn.Linear(2, 3))
        x, labels = torch.ones(50, 2), torch.zeros(50, dtype=torch.int64)

        def loss_of(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            noise = torch.randn(len(rows), 2, generator=generator)
            return label_loss(net(x[rows] + noise), labels[rows])

        batches = shuffled(50, 10)
        fit(net, loss_of, batches, epochs=3, rate=0.1, seed=seed, on_progress=None)
        return net.weight.detach()

    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second, other = weights(1), weights(1), weights(2)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ["purchases", "vowels"])
def test_the_command_writes_a_model_and_events_that_publish_reads(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_short(monkeypatch)
    model, file = tmp_path / "model", tmp_path / "new" / "events.jsonl"
    result = CliRunner().invoke(
        cli,
        ["example", name, "--model", str(model), "--events", str(file), "--seed", "3"],
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    assert "\n  accuracy " in result.output
    options = {"purchases": " --timestamp time", "vowels": " --marks", "spelling": " --marks"}
    assert f"--key key{options.get(name, '')}\n" in result.output
    assert load_model(model).rules == MODULES[name].RULES
    # And the file, published for the model, has the events of the example
    columns = EventColumns(
        ("key",),
        timestamp="time" if name == "purchases" else None,
        has_marks="--marks" in result.output,
    )
    blocks = [file.read_bytes().splitlines()]
    source = open_source(blocks, "file", "jsonl", columns, str(model), None)
    published = []
    for record in itertools.chain.from_iterable(source.batches(TopicLimits())):
        assert not isinstance(record, BadRow)
        marks = {"end": True} if marks_of(record.headers) == (END, 0) else {}
        event = orjson.loads(record.value) if record.value else {}
        published.append((record.key.decode(), record.timestamp_ms, event | marks))
    assert published == [tuple(event) for event in EXAMPLES[name].events(3, None)]


def test_a_file_that_cannot_be_written_is_an_error_before_any_training(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    result = CliRunner().invoke(
        cli,
        ["example", "digits", "--model", "m", "--events", str(tmp_path / "taken" / "e.jsonl")],
    )
    assert result.exit_code == 2
    assert "--events" in result.output and "taken" in result.output
    assert not Path("m").exists()


def test_the_help_of_the_command_lists_each_example() -> None:
    text = CliRunner().invoke(cli, ["example", "--help"]).output
    assert all(f"\n  {name} " in text for name in EXAMPLES)
