"""README's code blocks run, in order, as a newcomer runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from livestep.deploy.local.services import LocalServices
from tests.support.code_blocks import ROOT, run_code_blocks


@pytest.mark.timeout(900)
def test_every_code_block_of_the_readme_runs_in_order(
    services: LocalServices, tmp_path: Path
) -> None:
    # When the blocks run, then none says anything of an error
    assert run_code_blocks(ROOT / "README.md", tmp_path, services.environment) >= 6
    environment = {**os.environ, **services.environment}

    # And the predictions and the dead letter that it speaks of are there
    assert '"wrong-kind"' in _output_of("dead-letters --topic readings", environment)
    predictions = _output_of("predictions --topic wear --max 3", environment)
    assert predictions.count('"wear"') == 3


def _output_of(command: str, environment: dict[str, str]) -> str:
    arguments = [sys.executable, "-m", "livestep.pipeline.cli", *command.split()]
    arguments += ["--from-beginning", "--idle-timeout", "5"]
    done = subprocess.run(
        arguments, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
