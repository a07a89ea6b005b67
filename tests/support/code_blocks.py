"""The code blocks of a document, run in order, as a reader runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Language and text of each fenced block.
_BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_code_blocks(document: Path, folder: Path, environment: Mapping[str, str]) -> int:
    """Run the blocks of a document; those in Python share their variables, as in one session.

    Args:
        document: Markdown.
        folder: Where they run.
        environment: Variables beside those of this process.

    Returns:
        count: Of the blocks.

    Raises:
        AssertionError: If a block fails; shows it and its output.
    """
    variables = {
        **os.environ,
        **environment,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    blocks = _BLOCK.findall(document.read_text(encoding="utf-8"))
    session = ""
    for index, (language, text) in enumerate(blocks):
        command = ["bash", "-euo", "pipefail", "-c", text]
        if language == "python":
            session += text
            if blocks[index + 1 :] and blocks[index + 1][0] == "python":
                continue  # it runs with the next one, since each run begins the session again
            command = [sys.executable, "-c", session]
        done = subprocess.run(
            command, cwd=folder, env=variables, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return len(blocks)
