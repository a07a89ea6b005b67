"""Scenarios of too much: a backlog, one key, a million keys, a slow Redis."""

from __future__ import annotations

import time
from typing import Any

import redis

from tests.load.measures import redis_use
from tests.load.rig import Rig
from tests.support.rig.machine import sample_process
from tests.support.rig.status_lines import statuses

#: Figures by name.
Found = dict[str, Any]


def overload(rig: Rig, events: int) -> Found:
    """Give a worker a backlog far beyond its rate, and look at its memory and its batches."""
    with rig.pipeline("overload") as (running, feed):
        feed.publish(feed.random_keys(max(events // 50, 1_000), keys=10_000))
        feed.flush()
        worker = running.start(batch_events_max=5_000)
        rig.wait_until_done(running, "first events")
        before = sample_process(worker.pid)
        feed.publish(feed.random_keys(events, keys=10_000))
        feed.flush()
        begin_s, peak_kb = time.monotonic(), 0
        with rig.progress.task("backlog", events) as update:

            def look() -> bool:
                nonlocal peak_kb
                left = running.lag()
                peak_kb = max(peak_kb, sample_process(worker.pid).rss_kb)
                update(events - left)
                return left == 0

            rig.wait(look, 3_600, "the backlog", worker)
        elapsed_s = time.monotonic() - begin_s
        after = sample_process(worker.pid)
        worker.stop()
        lines = statuses(worker)
        return {
            "events": events,
            "events_per_s_in_steady_state": rig.live_rate(worker),
            "seconds_until_caught_up": round(elapsed_s, 1),
            "lag_max": max(line.lag for line in lines),
            "events_a_batch_max": max(line.events_a_batch for line in lines),
            "rss_kb_before": before.rss_kb,
            "rss_kb_peak": peak_kb,
            "rss_kb_after": after.rss_kb,
            **rig.audit(running),
        }


def one_key(rig: Rig, events: int) -> Found:
    """Give one key nearly all events, and see when the others have their predictions."""
    with rig.pipeline("one-key") as (running, feed):
        every = max(events // 100, 2)
        feed.publish(b"other-%d" % (i % 17) if i % every == 0 else b"hot" for i in range(events))
        feed.flush()
        worker = running.start(batch_events_max=5_000)
        rig.wait_until_done(running, "one key with all the load")
        worker.stop()
        return {"events_per_s": rig.live_rate(worker), **rig.audit(running)}


def million_keys(rig: Rig, keys: int) -> Found:
    """Send every key twice through a pool of a hundredth of them: all goes to Redis and back."""
    with rig.pipeline("keys") as (running, feed):
        slots = max(keys // 100, 200)
        names = [b"key-%09d" % number for number in range(keys)]
        found: Found = {"keys": keys, "pool_slots": slots}
        options = {"pool_slots": slots, "batch_events_max": slots // 2}
        worker = running.start(**options)
        rig.wait(lambda: statuses(worker) and statuses(worker)[-1].partitions, 120, "it", worker)
        empty = redis_use(running.services.redis_url)
        for name in ("first", "second"):
            before, line = redis_use(running.services.redis_url), len(statuses(worker))
            feed.publish(names)
            feed.flush()
            rig.wait_until_done(running, f"{name} event of {keys:,} keys")
            traffic = redis_use(running.services.redis_url).since(before)
            found |= {
                f"{name}_events_per_s": rig.live_rate(worker, line),
                f"{name}_redis_bytes_in_an_event": round(traffic.bytes_in / keys, 1),
                f"{name}_redis_bytes_out_an_event": round(traffic.bytes_out / keys, 1),
                f"{name}_redis_commands_per_1000_events": round(1_000 * traffic.commands / keys, 2),
            }
        used = redis_use(running.services.redis_url)
        found["redis_bytes_a_key"] = round((used.memory_bytes - empty.memory_bytes) / keys)
        found["rss_kb"] = sample_process(worker.pid).rss_kb
        worker.stop()
        return {**found, **rig.audit(running)}


def slow_redis(rig: Rig, pause_s: float) -> Found:
    """Let Redis accept no writes for a while under a steady load; see what predictions do."""
    with rig.pipeline("slow-redis") as (running, feed):
        feed.publish(feed.random_keys(20_000, keys=1_000))
        feed.flush()
        worker = running.start(batch_events_max=500, save_queue_batches_max=4)
        rig.wait_until_done(running, "first events")
        first = running.lag()
        client = redis.Redis.from_url(running.services.redis_url)
        client.execute_command("CLIENT", "PAUSE", str(int(pause_s * 1000)), "WRITE")
        begin_s, held_at, done_at_hold = time.monotonic(), 0.0, 0
        feed.publish(feed.random_keys(20_000, keys=1_000))
        feed.flush()
        while time.monotonic() - begin_s < pause_s:
            if not held_at and "polling is held back" in worker.log_tail(1_000):
                held_at, done_at_hold = time.monotonic() - begin_s, 20_000 + first - running.lag()
            time.sleep(0.1)
        client.close()
        resumed_s = time.monotonic()
        rig.wait_until_done(running, "what was held back")
        caught_up_s = time.monotonic() - resumed_s
        worker.stop()
        return {
            "pause_s": pause_s,
            "events_predicted_while_redis_took_no_writes": done_at_hold,
            "bound_events": (4 + 2) * 500,
            "held_back_told_after_s": round(held_at, 2),
            "seconds_until_caught_up": round(caught_up_s, 2),
            **rig.audit(running),
        }
