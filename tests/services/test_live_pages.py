"""The code of the README and of pages that need Kafka and Redis runs as a newcomer runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from livestep.deploy.local.services import LocalServices
from tests.support.code_blocks import LIVE_PAGES, ROOT, run_code_blocks


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", LIVE_PAGES)
def test_every_code_block_of_a_live_page_runs_in_order(
    page: str, services: LocalServices, tmp_path: Path
) -> None:
    assert run_code_blocks(ROOT / page, tmp_path, services.environment) > 0
    if page == "README.md":
        # The predictions and the dead letter that it mentions are there.
        environment = {**os.environ, **services.environment}
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
