"""A test run in several processes that is interrupted leaves no process and no folder behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.helpers import wait_until

ROOT = Path(__file__).resolve().parents[3]

# A service with a folder of its own, and a test that never ends.
CONFTEST = """
import shutil, subprocess, tempfile
from pathlib import Path
import pytest
from livestep.deploy.local.child_process import ChildProcess
from tests.support.clean_end import clean_end

@pytest.fixture(scope="session", autouse=True)
def _clean_end():
    with clean_end():
        yield

@pytest.fixture(scope="session")
def service():
    folder = Path(tempfile.mkdtemp(prefix="service-", dir={folder!r}))
    child = ChildProcess("service", ["sleep", "600"], folder / "log")
    child.start()
    (folder / "pid").write_text(str(child.pid))
    yield child
    child.kill()
    # Longer than execnet waits before it interrupts again.
    subprocess.run(["sleep", "6"])
    shutil.rmtree(folder)
"""

TEST = """
def test_that_never_ends(service):
    service.wait(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has PR_SET_PDEATHSIG")
@pytest.mark.parametrize(
    ("signal_number", "is_for_all"),
    [
        pytest.param(signal.SIGINT, True, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, False, id="SIGTERM to the main process"),
    ],
)
def test_an_interrupted_run_stops_its_services_and_removes_their_folders(
    tmp_path: Path, signal_number: signal.Signals, is_for_all: bool
) -> None:
    # Given a run in two processes, each with a service
    folder, tests = tmp_path / "data", tmp_path / "tests"
    folder.mkdir()
    tests.mkdir()
    (tests / "conftest.py").write_text(CONFTEST.format(folder=str(folder)))
    for number in range(2):
        (tests / f"test_endless_{number}.py").write_text(TEST)
    # This test itself may run in a process of pytest-xdist.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", str(tests)]
    options = ["--rootdir", str(tests), "-p", "no:cacheprovider"]
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen(
            [*command, *options],
            cwd=tests,
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: len(list(folder.glob("*/pid"))) == 2, 120, "two services")
        pids = [int(path.read_text()) for path in folder.glob("*/pid")]

        # When it is interrupted
        (os.killpg if is_for_all else os.kill)(run.pid, signal_number)

        # Then the services end, and their folders are removed
        run.wait(60)
        wait_until(lambda: not list(folder.iterdir()), 60, "no folders")
        assert not any(is_alive(pid) for pid in pids)
    finally:
        run.kill()
        run.wait()


def is_alive(pid: int) -> bool:
    """Whether a process exists; one that nobody has waited for yet doesn't count."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and ") Z " not in status.read_text()
