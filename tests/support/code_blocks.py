"""The code blocks of a document, run in order, as a reader runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Pages whose code needs Kafka and Redis.
LIVE_PAGES = ("README.md", "docs/clients.md", "docs/shapes.md")

#: How long all blocks of a page may take.
PAGE_TIMEOUT_S = 540

#: Language and text of each fenced block.
_BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: Runs the blocks: those in Python share one session, each one of bash is a shell of its own.
_SESSION = """
import json, subprocess, sys
names = {"__name__": "__main__"}
for language, text in json.load(sys.stdin):
    print(f"--- {language}\\n{text}--- prints:", flush=True)
    if language == "python":
        exec(compile(text, "<page>", "exec"), names)
    else:
        shell = ["bash", "-euo", "pipefail", "-c", text]
        subprocess.run(shell, stdin=subprocess.DEVNULL, check=True)
"""


def code_blocks(document: Path) -> list[tuple[str, str]]:
    """Return language and text of each block that can be run."""
    return _BLOCK.findall(document.read_text(encoding="utf-8"))


def run_code_blocks(document: Path, folder: Path, environment: Mapping[str, str]) -> int:
    """Run the blocks of a document; those in Python share their variables, as in one session.

    Args:
        document: Markdown.
        folder: Where they run.
        environment: Variables in addition to those of this process.

    Returns:
        count: Number of blocks.

    Raises:
        AssertionError: If a block fails; shows the last part of what all of them printed.
    """
    variables = {
        **os.environ,
        **environment,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    blocks = code_blocks(document)
    done = subprocess.run(
        [sys.executable, "-c", _SESSION],
        input=json.dumps(blocks),
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PAGE_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return len(blocks)
