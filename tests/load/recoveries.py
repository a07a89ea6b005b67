"""Scenarios of recovery: a kill with many keys in Redis, and replay against the live rate."""

from __future__ import annotations

import re
import time
from datetime import datetime
from statistics import median
from typing import Any

import redis
from confluent_kafka import Consumer

from livestep.deploy.local.worker_process import assigned_partitions
from tests.load.rig import Rig
from tests.services.running import PARTITIONS, SESSION_TIMEOUT_MS, Running
from tests.support.rig.kafka_clients import make_reader
from tests.support.rig.status_lines import statuses

#: Steady load under which a worker is killed: on every partition there is always a next event.
LOAD_EVENTS_PER_S = 2_000.0

#: Between two status lines: several batches long, so that each line has whole ones.
STATUS_S = 2.0

#: How long all may take to be well again.
RECOVERY_TIMEOUT_S = 120.0

#: When a replay begins and ends, in a worker's log.
_REPLAY = re.compile(r"^(\S+ \S+) .*(replay from|replay done)", re.MULTILINE)

Found = dict[str, Any]


def sigkill(rig: Rig, keys: int, kills: int = 3) -> Found:
    """Kill one of two workers with many keys in Redis; time the next prediction of its partitions.

    Measured by an independent reader of committed predictions: from the kill to the first one of an
    event that was published after it, on the partition where that took longest.
    """
    with rig.pipeline("sigkill") as (running, feed):
        names = [b"key-%09d" % number for number in range(keys)]
        feed.publish(names)
        feed.flush()
        running.start(worker_id="0", status_interval_s=STATUS_S)
        rig.wait_until_done(running, f"filling Redis with {keys:,} keys")
        running.start(worker_id="1")
        rig.wait(lambda: all(partitions_of(w) for w in running.workers), 120, "two workers")
        with redis.Redis.from_url(running.services.redis_url) as client:
            stored = sum(
                client.hlen(name) for name in client.scan_iter(b"livestep:*", _type="HASH")
            )
        seconds: list[float] = []
        with feed.steady(LOAD_EVENTS_PER_S, keys), rig.progress.task("kills", kills) as update:
            for number in range(kills):
                seconds.append(time_one_kill(rig, running, number))
                update(number + 1)
        rig.wait_until_done(running, "the rest")
        for worker in running.workers:
            worker.stop()
        return {
            "keys": keys,
            "redis_fields": stored,
            "kills": kills,
            "session_timeout_s": SESSION_TIMEOUT_MS / 1_000,
            "goal_s": SESSION_TIMEOUT_MS / 1_000 + 2,
            "recovery_s": [round(one, 2) for one in seconds],
            "recovery_s_median": round(median(seconds), 2),
            "recovery_s_worst": round(max(seconds), 2),
            **rig.audit(running),
        }


def partitions_of(worker: Any) -> list[int]:
    """Read from a worker's log which partitions it has."""
    return assigned_partitions(worker.log_path.read_text(encoding="utf-8", errors="replace"))


def time_one_kill(rig: Rig, running: Running, number: int) -> float:
    """Kill a worker and start another in its place; return the seconds until all are served."""
    alive = [worker for worker in running.workers if worker.is_running]
    rig.wait(lambda: all(partitions_of(w) for w in alive), RECOVERY_TIMEOUT_S, "both to have work")
    victim = alive[number % len(alive)]
    lost = partitions_of(victim)
    servers = running.services.bootstrap_servers
    reader = make_reader(servers, running.output_topic, PARTITIONS, offset=-1)
    try:
        seen: set[int] = set()
        rig.wait(lambda: _look(reader, seen) or seen >= set(lost), 60, "predictions of all")
        victim.kill()
        killed_s, killed_ms = time.monotonic(), time.time() * 1_000
        # What the killed worker has committed is still on its way: those events are older.
        served: set[int] = set()
        deadline_s = killed_s + RECOVERY_TIMEOUT_S
        while not served >= set(lost) and time.monotonic() < deadline_s:
            for message in reader.consume(10_000, 0.02):
                if message.error() is None and _sent_ms(message) > killed_ms:
                    served.add(int(message.partition() or 0))
        elapsed_s = time.monotonic() - killed_s
        if not served >= set(lost):
            rig.progress.fail(f"partitions {sorted(set(lost) - served)} were not served again")
    finally:
        reader.close()
    running.start(worker_id=f"again-{number}")
    return elapsed_s


def _look(reader: Consumer, seen: set[int]) -> bool:
    seen |= {int(m.partition() or 0) for m in reader.consume(10_000, 0.1) if m.error() is None}
    return False


def _sent_ms(message: Any) -> float:
    """When its event was published: a prediction has the time of its event."""
    return float(message.timestamp()[1])


def replay(rig: Rig, events: int) -> Found:
    """Measure the live rate over a backlog, flush Redis, and measure the replay of the same."""
    with rig.pipeline("replay") as (running, feed):
        feed.publish(feed.random_keys(events, keys=20_000))
        feed.flush()
        worker = running.start(worker_id="0", status_interval_s=STATUS_S)
        rig.wait_until_done(running, f"{events:,} events live")
        worker.stop()
        live = rig.live_rate(worker)
        rig.progress.say(f"live: {live:,.0f} events/s; flushing Redis")
        with redis.Redis.from_url(running.services.redis_url) as client:
            client.flushdb()
        again = running.start(worker_id="0", status_interval_s=STATUS_S)
        done = "replay done"
        with rig.progress.task("replay", PARTITIONS) as update:

            def look() -> bool:
                count = len(re.findall(done, again.log_tail(100_000)))
                update(count)
                return count == PARTITIONS

            rig.wait(look, 3_600, "the replay", again)
        seconds = replay_seconds(again.log_tail(100_000))
        lines = sorted((s.replayed_per_s, s.verbs) for s in statuses(again) if s.replayed_per_s)
        live_lines = sorted((s.events_per_s, s.verbs) for s in statuses(worker) if s.events_per_s)
        again.stop()
        # All of it: a replay spans few status lines, and a line may cover a part of one.
        replayed = events / seconds
        replayed_verbs = lines[len(lines) // 2][1] if lines else ""
        return {
            "events": events,
            "live_events_per_s": live,
            "replayed_events_per_s": round(replayed),
            "ratio": round(replayed / live, 2) if live else None,
            "goal": 1.5,
            "replay_s": seconds,
            "live_us_an_event": live_lines[len(live_lines) // 2][1] if live_lines else "",
            "replay_us_an_event": replayed_verbs,
            **rig.audit(running),
        }


def replay_seconds(log: str) -> float:
    """Read from a worker's log the seconds from its first replay's begin to its last one's end."""
    times = [datetime.fromisoformat(stamp) for stamp, _ in _REPLAY.findall(log)]
    return round((max(times) - min(times)).total_seconds(), 3)
