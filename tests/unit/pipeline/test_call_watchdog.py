"""A call into Kafka's client that does not return ends the worker; one that returns does not."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

#: Limits a test that fails.
SOON_S = 120

#: Commits with a producer whose call takes as long as its arguments say; the watchdog looks often.
PROGRAM = """
import sys, threading
from types import SimpleNamespace
from livestep.pipeline.kafka import transaction
from livestep.pipeline.process import call_watchdog

class Producer:
    def __init__(self, *_, **__): pass
    def begin_transaction(self): pass
    def commit_transaction(self, _): pass
    def send_offsets_to_transaction(self, *_):
        threading.Event().wait(float(sys.argv[1]))

transaction.Producer = Producer
transaction.CALL_HANGS_S = float(sys.argv[2])
call_watchdog.TICK_S = 0.05
consumer = SimpleNamespace(consumer_group_metadata=lambda: None)
transactions = transaction.Transactions({"transactional.id": "worker"})
for _ in range(int(sys.argv[3])):
    transactions.commit(consumer, [])
print("committed")
"""


def commit(call_s: float, limit_s: float, count: int) -> subprocess.CompletedProcess[str]:
    arguments = [str(one) for one in (call_s, limit_s, count)]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SOON_S,
    )


def test_a_call_that_does_not_return_ends_the_process_with_one_line() -> None:
    done = commit(call_s=SOON_S, limit_s=0.5, count=1)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == (
        "error: Kafka's client has not returned from send_offsets_to_transaction for 0.5 s; "
        "nothing is lost: a restart continues after the last commit\n"
    )


def test_many_calls_that_return_in_time_are_not_added_up() -> None:
    done = commit(call_s=0.2, limit_s=2.0, count=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "committed\n", "")
