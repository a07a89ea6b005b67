"""`livestep model`: from nothing to a model of one's own that predicts; checks; imports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from rich.console import Console
from torch import Tensor, nn

from livestep import (
    GRU,
    Category,
    ModelError,
    Number,
    SequenceRules,
    Text,
    load_model,
    predict_in_memory,
    save_model,
)
from livestep.pipeline.cli import cli
from livestep.pipeline.commands.check import Caution, CheckItem, run_tests
from livestep.pipeline.commands.field_options import read_fields
from livestep.pipeline.commands.starter import starter_files
from livestep.pipeline.errors import ConfigError, DecodeError
from livestep.pipeline.settings import Settings
from tests.support.user_models import Letters, RowsMix, Window


def run(*arguments: str | Path, **options: Any) -> Result:
    return CliRunner().invoke(cli, ["model", *map(str, arguments)], **options)


def run_python(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_starter_trains_keeps_the_contract_and_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given the files of `init`, and the training that they contain
    folder = tmp_path / "own"
    done = run("init", folder)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in folder.iterdir()) == sorted(starter_files())
    assert "trained: mean squared error 0.0" in run_python(folder, "train.py")

    # Then its own test passes, and so does the check
    assert "2 passed" in run_python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    monkeypatch.syspath_prepend(folder)
    checked = run("check", folder / "model", env={"LIVESTEP_MODEL_PACKAGES": "my_model"})
    assert checked.exit_code == 0, checked.output
    assert "It can be stepped live." in checked.output

    # And its events are predicted by the real engine, as its steps offline say
    model = load_model(folder / "model", allowed_packages=["my_model"])
    lines = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    events = [(line.pop("sensor"), line) for line in lines]
    predictions = predict_in_memory(model, events)
    for key in ("s-1", "s-2"):
        live = [one.value["next_value"] for one in predictions if one.key == key]
        offline = model.unroll_events([event for name, event in events if name == key])
        assert np.array_equal(np.float32(live), np.float32([one["next_value"] for one in offline]))
    sys.modules.pop("my_model")


def test_the_readme_of_the_starter_names_only_commands_that_exist(tmp_path: Path) -> None:
    run("init", tmp_path / "own")
    readme = (tmp_path / "own" / "README.md").read_text()
    commands = re.search(r"```bash\n(.*?)```", readme, re.DOTALL)
    assert commands is not None
    lines = commands[1].splitlines()
    assert len(lines) <= 10
    for line in lines:
        if line.startswith("livestep "):
            words = line.removeprefix("livestep ").split()
            options = [word for word in words if word.startswith("--")]
            group = words[:2] if words[0] in ("model", "topics") else words[:1]
            help_text = CliRunner().invoke(cli, [*group, "--help"])
            assert help_text.exit_code == 0, line
            assert all(option in help_text.output for option in options), line


def test_a_file_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("mine")
    with pytest.raises(ConfigError, match="train.py already exists; nothing was written"):
        run("init", tmp_path, catch_exceptions=False)
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, reason in (
        (Path("/proc/x"), "No such file or directory"),
        (tmp_path / "file" / "own", "Not a directory"),
    ):
        with pytest.raises(ConfigError, match=f"^{folder} can't be written: {reason}$"):
            run("init", folder, catch_exceptions=False)
    assert ConfigError.exit_code == 3


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    save_model(RowsMix(), tmp_path / "wrong", [Number("x")], [Number("y")])
    return tmp_path / "wrong"


def test_a_wrong_model_is_named_with_what_to_do(wrong: Path) -> None:
    done = run("check", wrong, "--model-packages", "tests")
    assert done.exit_code == 1
    assert re.search(r"keys don't mix +│ NO: .*differ by", done.output)
    assert "axis 0 is the key" in done.output
    unchecked = r"packed equals unroll +│ not checked because .keys don.t mix. failed"
    assert re.search(unchecked, done.output)
    assert "1 to fix; 2 not checked because of that.\n" in done.output


def test_a_package_that_is_not_allowed_is_not_imported_by_a_check(wrong: Path) -> None:
    with pytest.raises(ModelError, match="to --model-packages"):
        run("check", wrong, catch_exceptions=False)


def test_a_class_can_be_checked_before_it_is_saved() -> None:
    done = run("check", "tests.support.user_models:Sum", "--inputs", "x", "--outputs", "y")
    assert done.exit_code == 0, done.output
    sizes = ("--sizes", '{"input_size": 2, "length": 3}', "--outputs", "y:2")
    assert run("check", "tests.support.user_models:Window", *sizes).exit_code == 0
    inputs = '[{"type": "category", "name": "k", "values": ["a", "b"], "encoding": "index"}, ' + (
        '{"type": "text", "name": "word", "alphabet": "xyz", "length": 2}]'
    )
    letters = run(
        "check", "tests.support.user_models:Letters", "--inputs", inputs, "--outputs", "y:4"
    )
    assert letters.exit_code == 0, letters.output
    for name in ("Breaks", "TwoOutputs", "Explodes"):
        done = run("check", f"tests.support.user_models:{name}", "--inputs", "x", "--outputs", "y")
        assert done.exit_code == 1
    with pytest.raises(ModelError, match="--inputs: Sum has no input_size: describe its columns"):
        run("check", "tests.support.user_models:Sum", catch_exceptions=False)


def test_columns_that_do_not_fit_a_class_of_this_package_are_named() -> None:
    sizes = ("--sizes", '{"input_size": 3, "hidden_size": 4, "output_size": 1}')
    message = "--inputs: wrong number of columns for GRU with .*expected 3 columns .*, found 2"
    with pytest.raises(ModelError, match=message):
        run("check", "livestep:GRU", *sizes, "--inputs", "a,b", catch_exceptions=False)
    with pytest.raises(ModelError, match="--outputs: .*expected 1 columns .output_size., found 2"):
        run("check", "livestep:GRU", *sizes, "--outputs", "y:2", catch_exceptions=False)
    assert run("check", "livestep:GRU", *sizes, "--inputs", "a,b,c").exit_code == 0


def test_a_model_of_this_package_is_checked_without_any_setting(tmp_path: Path) -> None:
    save_model(GRU(2, 4, 1), tmp_path)
    done = run("check", tmp_path)
    assert done.exit_code == 0, done.output
    for batch_size in ("1", "64", "1,024"):
        assert re.search(rf"speed at {batch_size} +│ [\d,]+ events/s", done.output)
    with pytest.raises(ModelError, match="not allowed for a directory"):
        run("check", tmp_path, "--inputs", "x", catch_exceptions=False)


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.cell(x, h[0])
        return self.head(hidden), hidden.unsqueeze(0)


FIELDS = ("--inputs", "wind, weather=sunny|rainy", "--outputs", "dish=1|2")


def test_a_torchscript_program_is_imported_with_the_shapes_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(Cell()).save(str(tmp_path / "cell.pt"))
    with pytest.raises(ModelError, match=r"cell.pt: class: .*add torchscript to --model-packages"):
        run("import", tmp_path / "cell.pt", tmp_path / "new", *FIELDS, catch_exceptions=False)
    monkeypatch.setenv("LIVESTEP_MODEL_PACKAGES", "torchscript")
    with pytest.raises(ModelError, match=r"cell.pt: state: .*add --state-shape h="):
        run("import", tmp_path / "cell.pt", tmp_path / "new", *FIELDS, catch_exceptions=False)
    assert not (tmp_path / "new").exists()

    done = run(
        *("import", tmp_path / "cell.pt", tmp_path / "new", *FIELDS),
        *("--state-shape", "h=1,N,4", "--rules", '{"shape": "many-to-one"}'),
    )
    assert done.exit_code == 0, done.output
    assert "torchscript, forward(x, h)\nstate h: float32 (1, N, 4)\n" in done.output
    loaded = load_model(tmp_path / "new", allowed_packages=["torchscript"])
    assert loaded.inputs == (Number("wind"), Category("weather", ("sunny", "rainy")))
    assert loaded.rules == SequenceRules(shape="many-to-one")
    assert run("check", tmp_path / "new").exit_code == 0


def test_a_file_that_is_not_a_program_is_named_before_trust_is_requested(tmp_path: Path) -> None:
    torch.save(Cell().state_dict(), tmp_path / "weights.pt")
    for options in ((), ("--model-packages", "torchscript,exported")):
        with pytest.raises(ModelError, match=r"weights.pt: .*but weights from .*load_state_dict"):
            run(
                *("import", tmp_path / "weights.pt", tmp_path / "new", *FIELDS, *options),
                catch_exceptions=False,
            )


class PairCell(nn.Module):
    """A cell over (N, 1, 3), with a pair of states and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor], rate: int = 2
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        outputs, state = self.rnn(x, state)
        return self.head(outputs) * rate, state


def test_a_pair_of_states_and_a_time_axis_are_shown_at_import(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(PairCell()).save(str(tmp_path / "cell.pt"))
    options = (*FIELDS, "--state-shape", "state_0=1,N,4", "--state-shape", "state_1=1,N,4")
    done = run(
        *("import", tmp_path / "cell.pt", tmp_path / "new", *options),
        *("--time-axis", "1", "--model-packages", "torchscript"),
    )
    assert done.exit_code == 0, done.output
    assert done.output.startswith(
        "torchscript, forward(x, state_0, state_1)\nargument rate: always 2\n"
        "inputs: (N, 1, columns)\nstate state_0: float32 (1, N, 4)\n"
    )
    done = run("check", tmp_path / "new", "--model-packages", "torchscript")
    assert done.exit_code == 0, done.output


def test_an_exported_program_states_its_shapes_itself(tmp_path: Path) -> None:
    count = torch.export.Dim("N", max=1000)  # of which the check of the speed takes more
    program = torch.export.export(
        Cell(), (torch.zeros(2, 3), torch.zeros(1, 2, 4)), dynamic_shapes=({0: count}, {1: count})
    )
    torch.export.save(program, tmp_path / "cell.pt2")
    options = (*FIELDS, "--state", "h")
    with pytest.raises(ModelError, match=r"cell.pt2: class: .*add exported to --model-packages"):
        run("import", tmp_path / "cell.pt2", tmp_path / "new", *options, catch_exceptions=False)
    options += ("--model-packages", "mine, exported")
    done = run("import", tmp_path / "cell.pt2", tmp_path / "new", *options)
    assert done.exit_code == 0, done.output
    assert "exported, forward(x, h)\nstate h: float32 (1, N, 4)\n" in done.output
    assert "keys in one call: at most 1,000; other batches are split" in done.output
    done = run("check", tmp_path / "new", "--model-packages", "exported")
    assert done.exit_code == 0, done.output


def test_fields_can_be_written_short_or_as_json() -> None:
    assert read_fields("wind, x:12, weather=sunny|rainy, dish?=1|2, late?", "--inputs") == [
        Number("wind"),
        Number("x", 12),
        Category("weather", ("sunny", "rainy")),
        Category("dish", ("1", "2"), optional=True),
        Number("late", optional=True),
    ]
    text = '[{"type": "text", "name": "word", "alphabet": "ab", "length": 3}]'
    assert read_fields(text, "--inputs") == [Text("word", "ab", 3)]


@pytest.mark.parametrize(
    "text", ["", "a,,b", "x:many", "x:0", "x=", "x=a|a", "[1]", '[{"type": 1}]']
)
def test_fields_that_can_not_be_read_are_wrong_usage(text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    options = ("--inputs", text, "--outputs", "y")
    done = run("check", "tests.support.user_models:Sum", *options)
    assert done.exit_code == 2, done.output
    assert "--inputs" in done.output


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_sizes_that_are_not_an_object_are_wrong_usage(text: str) -> None:
    assert run("check", "tests.support.user_models:Sum", "--sizes", text).exit_code == 2


@pytest.mark.parametrize(
    ("text", "packages"),
    [("", ()), (" , ", ()), ("mine", ("mine",)), (" mine , ours.models,", ("mine", "ours.models"))],
)
def test_packages_are_allowed_by_a_setting(text: str, packages: tuple[str, ...]) -> None:
    given = {"LIVESTEP_MODEL_PACKAGES": text, "LIVESTEP_MODEL": "m"}
    given |= {"LIVESTEP_INPUT_TOPIC": "in", "LIVESTEP_OUTPUT_TOPIC": "out"}
    assert Settings.from_environment(given).allowed_packages == packages


def test_texts_indices_and_several_states_are_predicted_by_the_engine(tmp_path: Path) -> None:
    inputs = [Category("kind", ("a", "b"), optional=True, encoding="index"), Text("word", "xyz", 2)]
    save_model(Letters(), tmp_path / "letters", inputs, [Number("y", 4)])
    save_model(
        *(Window(2).half(), tmp_path / "window"),
        outputs=[Number("y", 2)],
        sizes={"input_size": 2},
    )
    words = [{"kind": "b", "word": "zx"}, {"word": ""}, {"kind": None, "word": "y"}] * 3
    samples = [{"x": [0.25 * i, -1.0]} for i in range(9)]
    for name, events in (("letters", words), ("window", samples)):
        model = load_model(tmp_path / name, allowed_packages=["tests"])
        keyed = [("ab"[i % 2], event) for i, event in enumerate(events)]
        predictions = predict_in_memory(model, keyed, batch_events_max=4)
        for key in "ab":
            live = [one.value["y"] for one in predictions if one.key == key]
            offline = [one["y"] for one in model.unroll_events([e for k, e in keyed if k == key])]
            assert torch.equal(torch.tensor(live), torch.tensor(offline))


@pytest.mark.parametrize(
    ("word", "reason"), [("q", "unknown-character"), ("xyzx", "text-too-long"), (1, "wrong-kind")]
)
def test_a_bad_text_is_a_dead_letter_with_its_reason(
    word: Any, reason: str, tmp_path: Path
) -> None:
    inputs = [Category("kind", ("a", "b"), optional=True, encoding="index"), Text("word", "xyz", 2)]
    save_model(Letters(), tmp_path, inputs, [Number("y", 4)])
    model = load_model(tmp_path, allowed_packages=["tests"])
    with pytest.raises(DecodeError) as raised:
        predict_in_memory(model, [("a", {"word": word})])
    assert raised.value.reason == reason


def test_no_command_makes_the_current_folder_importable(tmp_path: Path) -> None:
    (tmp_path / "livestep_test_here.py").write_text("print('it ran')")
    code = (
        "import sys; from livestep.pipeline.cli import main\n"
        "sys.path.remove(''); sys.argv[1:] = ['-h']\n"
        "try: main()\nfinally: import livestep_test_here"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Live predictions" in done.stdout
    assert "No module named 'livestep_test_here'" in done.stderr
    assert "it ran" not in done.stdout


def test_what_looks_like_markup_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> str:
        raise ModelError("step raised RuntimeError: [/oops] [enforce fail]")

    console = Console(highlight=False, soft_wrap=True, force_terminal=False)
    tests = [
        CheckItem("model", fail),
        CheckItem("topics", lambda: "[red]wear[/red] (4 partitions)"),
        CheckItem("keys", lambda: Caution("[b]some[/b]"), needs=["topics"]),
        CheckItem("events", fail, needs=["model", "topics"]),
        CheckItem("more", fail, needs=["events"]),
    ]
    assert run_tests(tests, console) == 1
    assert capsys.readouterr().out == (
        "wrong   model: step raised RuntimeError: [/oops] [enforce fail]\n"
        "ok      topics: [red]wear[/red] (4 partitions)\n"
        "warning keys: [b]some[/b]\n"
        "skipped events: needs model\n"
        "skipped more: needs events\n"
    )


def test_columns_that_no_memory_holds_are_refused_before_they_are_made() -> None:
    fields = ("--inputs", "x:10000000000000", "--outputs", "y")
    with pytest.raises(ModelError, match="--inputs: too many columns"):
        run("check", "tests.support.user_models:Sum", *fields, catch_exceptions=False)
