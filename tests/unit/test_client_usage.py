"""Wrong usage of the commands that speak to Kafka: known without a broker, one line each."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import cli
from pipeline.errors import ConfigError

#: No broker is there: what is wrong is known before one is asked.
NOWHERE = ["--bootstrap-servers", "127.0.0.1:1"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, *NOWHERE])


@pytest.mark.parametrize("name", ["a b", "ä", "", ".", "..", "x" * 250])
@pytest.mark.parametrize("command", ["predictions", "dead-letters"])
def test_a_name_that_no_topic_can_have_is_a_config_error(command: str, name: str) -> None:
    result = run(command, "--topic", name)
    assert isinstance(result.exception, ConfigError), result.output
    assert str(result.exception).startswith(f"--topic {name!r} is no topic name: letters")


def test_a_time_out_that_is_not_a_number_is_wrong_usage() -> None:
    result = run("predictions", "--topic", "t", "--idle-timeout", "nan")
    assert result.exit_code == 2
    assert "'nan' is not a number" in result.output


def test_a_setting_that_is_given_twice_is_wrong_usage() -> None:
    result = run("topics", "create", "t", "--config", "a=1", "--config", "a=2")
    assert result.exit_code == 2
    assert "--config a is given twice" in result.output
