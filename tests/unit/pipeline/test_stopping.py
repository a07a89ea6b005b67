"""How a process is asked to stop: by one signal, by a second one, and by its time."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

#: Bounds what should come at once, so that a test that fails doesn't hang.
SOON_S = 60

#: Says when it starts, listens and stops; then it waits for a line in vain, as a client may.
PROGRAM = """
import asyncio, sys
from livestep.pipeline.process.stopping import Stop
def say(text):
    print(text, flush=True)
async def serve(stop):
    stop.listen(lambda: (10, "its last words"))
    say("listens")
    await stop.has_begun.wait()
    say("stops")
    if "drains" not in sys.argv:
        await asyncio.Event().wait()
with Stop(float(sys.argv[1])) as stop:
    if "starts" in sys.argv:
        say("starts")
        sys.stdin.readline()
    asyncio.run(serve(stop))
say("left")
"""


class Program:
    """The program, in a process of its own.

    Args:
        drain_timeout_s: Its time.
        words: What it does otherwise.
        launcher: Command that starts it.
        errors: Its standard error.
    """

    def __init__(self, drain_timeout_s, *words, launcher=(), errors=subprocess.PIPE):
        command = [*launcher, sys.executable, "-c", PROGRAM, str(drain_timeout_s), *words]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=errors, text=True, cwd=ROOT
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def wait_for(self, word):
        assert self.process.stdout.readline() == word + "\n"

    def end(self):
        """Return its exit code and what it wrote last."""
        output, errors = self.process.communicate(timeout=SOON_S)
        return self.process.returncode, output + errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_one_signal_begins_to_drain(number):
    with Program(SOON_S, "drains") as program:
        program.wait_for("listens")
        program.process.send_signal(number)
        assert program.end() == (0, "stops\nleft\n")


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [(signal.SIGTERM, signal.SIGINT, 130), (signal.SIGHUP, signal.SIGTERM, 143)],
)
def test_a_second_signal_ends_at_once(first, second, code):
    with Program(SOON_S) as program:
        program.wait_for("listens")
        program.process.send_signal(first)
        program.wait_for("stops")
        program.process.send_signal(second)
        text = f"error: ended at once by a second signal, {second.name}\n"
        assert program.end() == (code, text)


def test_at_the_time_out_the_process_ends_with_its_last_words():
    with Program(0.1) as program:
        program.wait_for("listens")
        program.process.send_signal(signal.SIGTERM)
        assert program.end() == (10, "stops\nerror: its last words\n")


@pytest.mark.parametrize("reader", ["gone", "asleep"])
def test_a_blocked_standard_error_does_not_keep_the_process(reader):
    reading, writing = os.pipe()
    if reader == "gone":
        os.close(reading)
    else:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(65_536))
        os.set_blocking(writing, True)
    with Program(0.1, errors=writing) as program:
        program.wait_for("listens")
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(SOON_S) == 10
    os.close(writing)
    if reader == "asleep":
        os.close(reading)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, None)]
)
def test_while_it_starts_a_signal_ends_it_at_once(number, code):
    with Program(SOON_S, "starts") as program:
        program.wait_for("starts")
        program.process.send_signal(number)
        found, text = program.end()
    if code is None:
        assert "KeyboardInterrupt" in text  # which the command line takes
    else:
        assert (found, text) == (
            code,
            f"error: ended by {number.name} while the worker was starting\n",
        )


@pytest.mark.parametrize("word", ["starts", "listens"])
def test_a_signal_that_nohup_ignores_stays_ignored(word):
    with Program(SOON_S, "drains", "starts", launcher=["nohup"]) as program:
        program.wait_for("starts")
        if word == "listens":
            program.process.stdin.write("\n")
            program.process.stdin.flush()
            program.wait_for("listens")
        program.process.send_signal(signal.SIGHUP)
        if word == "starts":
            program.process.stdin.write("\n")
            program.process.stdin.flush()
            program.wait_for("listens")
        program.process.send_signal(signal.SIGTERM)
        code, text = program.end()
        assert (code, text.splitlines()[:2]) == (0, ["stops", "left"])
