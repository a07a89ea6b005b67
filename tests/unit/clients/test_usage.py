"""Wrong usage of the commands that use Kafka: reported without a broker, in one line each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from livestep.pipeline.cli import cli
from livestep.pipeline.errors import ConfigError

#: No broker listens here: wrong usage is reported before one is needed.
NOWHERE = ["--bootstrap-servers", "127.0.0.1:1"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, *NOWHERE])


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "rows.csv"
    path.write_text("k,a\nx,1\n")
    return str(path)


@pytest.mark.parametrize("name", ["a b", "ä", "", ".", "..", "x" * 250])
@pytest.mark.parametrize("command", ["publish", "predictions", "dead-letters"])
def test_an_invalid_topic_name_is_a_config_error(command: str, name: str, file: str) -> None:
    words = ["publish", file, "--key", "k"] if command == "publish" else [command]
    result = run(*words, "--topic", name)
    assert isinstance(result.exception, ConfigError), result.output
    assert str(result.exception).startswith(f"--topic {name!r} is not a topic name: letters")


def test_a_timeout_that_is_not_a_number_is_wrong_usage() -> None:
    result = run("predictions", "--topic", "t", "--idle-timeout", "nan")
    assert result.exit_code == 2
    assert "'nan' is not a number" in result.output


def test_a_repeated_setting_is_wrong_usage() -> None:
    result = run("topics", "create", "t", "--config", "a=1", "--config", "a=2")
    assert result.exit_code == 2
    assert "--config a is given twice" in result.output


@pytest.mark.parametrize("rate", ["nan", "inf", "1e-300", "0", "-1", "1e10"])
def test_an_invalid_rate_is_wrong_usage(rate: str, file: str) -> None:
    result = run("publish", file, "--topic", "t", "--key", "k", "--rate", rate)
    assert result.exit_code == 2
    assert "Invalid value for '--rate'" in result.output


def test_the_published_file_can_not_be_the_file_of_rejects(file: str) -> None:
    result = run("publish", file, "--topic", "t", "--key", "k", "--rejects", file)
    assert result.exit_code == 2
    assert Path(file).read_text() == "k,a\nx,1\n"


@pytest.mark.parametrize(
    ("redirection", "why"),
    [("<&-", "standard input is closed"), ("0>/dev/null", "standard input can't be read")],
)
def test_an_unreadable_standard_input_is_wrong_usage(redirection: str, why: str) -> None:
    program = "from livestep.pipeline.cli import main; main()"
    words = ["publish", "-", "--format", "csv", "--topic", "t", "--key", "k"]
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" "${{@:2}}" {redirection}', sys.executable, program, *words],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert why in done.stderr.splitlines()[-1]
