"""README's code blocks run, in order, as a newcomer runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.services import LocalServices

ROOT = Path(__file__).parents[2]

#: Language and text of each fenced block.
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.timeout(900)
def test_every_code_block_of_the_readme_runs_in_order(
    services: LocalServices, tmp_path: Path
) -> None:
    # Given the blocks; those in Python share their variables, as in one session
    blocks = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 6
    environment = {
        **os.environ,
        **services.environment,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    session = ""

    for language, text in blocks:
        # When a block runs
        if language == "bash":
            command = ["bash", "-euo", "pipefail", "-c", text]
        else:
            session += text
            command = [sys.executable, "-c", session]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
        )

        # Then it says nothing of an error
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"

    # And the predictions and the dead letter that it speaks of are there
    assert '"wrong-kind"' in _output_of("dead-letters --topic readings", environment)
    predictions = _output_of("predictions --topic wear --max 3", environment)
    assert predictions.count('"wear"') == 3


def _output_of(command: str, environment: dict[str, str]) -> str:
    arguments = [sys.executable, "-m", "pipeline.cli", *command.split()]
    arguments += ["--from-beginning", "--idle-timeout", "5"]
    done = subprocess.run(
        arguments, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
