"""Scenarios of time: half load for long, and many starts and stops."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.load.measures import LeftBehind, left_behind, redis_use, slope
from tests.load.rig import Rig
from tests.support.rig.machine import sample_process

#: Samples of a run; the first tenth of it is warming up, and left out of the slopes.
SAMPLES, WARM_UP_SHARE = 120, 0.1

#: Share of the measured rate at which the load runs.
LOAD_SHARE = 0.5

#: How long services may take to forget a member that has left.
FORGET_TIMEOUT_S = 60.0

KEYS = 20_000

Found = dict[str, Any]


def endurance(rig: Rig, minutes: float) -> Found:
    """Run a worker at half of what it can do, and fit lines through what it holds."""
    with rig.pipeline("endurance") as (running, feed):
        feed.publish(feed.random_keys(300_000, KEYS))
        feed.flush()
        worker = running.start(batch_events_max=10_000)
        rig.wait_until_done(running, "measuring the full rate")
        rate = LOAD_SHARE * rig.live_rate(worker)
        rig.progress.say(f"half load is {rate:,.0f} events/s, for {minutes:g} minutes")
        names = ("rss_kb", "files", "threads", "redis_memory_kb", "lag")
        series: dict[str, list[float]] = {name: [] for name in names}
        seconds: list[float] = []
        step_s, begin_s = minutes * 60 / SAMPLES, time.monotonic()
        with feed.steady(rate, KEYS), rig.progress.task("half load", SAMPLES) as update:
            for number in range(SAMPLES):
                time.sleep(max(0.0, begin_s + (number + 1) * step_s - time.monotonic()))
                one = sample_process(worker.pid)
                seconds.append(time.monotonic() - begin_s)
                memory_kb = redis_use(running.services.redis_url).memory_bytes / 1024
                values = (one.rss_kb, one.files, one.threads, memory_kb, running.lag())
                for name, value in zip(names, values, strict=True):
                    series[name].append(float(value))
                update(number + 1)
        rig.wait_until_done(running, "the rest")
        worker.stop()
        first = int(SAMPLES * WARM_UP_SHARE)
        found: Found = {"minutes": minutes, "events_per_s": round(rate), "samples": SAMPLES - first}
        for name, values_of in series.items():
            line = slope(seconds[first:], values_of[first:])
            found[name] = {
                "begin": round(values_of[first]),
                "end": round(values_of[-1]),
                "max": round(max(values_of[first:])),
                "slope_per_hour": line.per_hour,
                "slope_error_per_hour": line.error_per_hour,
            }
        return {**found, **rig.audit(running)}


def restarts(rig: Rig, times: int) -> Found:
    """Start and stop a worker many times, with some events each time; see what is left."""
    with rig.pipeline("restarts") as (running, feed):
        servers, url = rig.services.bootstrap_servers, rig.services.redis_url
        before = LeftBehind(redis_use(url).connections, 0, 0)
        files_before = held_files(running.folder)
        durations_s = []
        with rig.progress.task("starts and stops", times) as update:
            for number in range(times):
                feed.publish(feed.random_keys(200, 100))
                feed.flush()
                worker = running.start(worker_id="same")
                rig.wait(lambda: running.lag() == 0, 120, "the events", worker)
                begin_s = time.monotonic()
                worker.stop()
                durations_s.append(time.monotonic() - begin_s)
                if worker.exit_code != 0:
                    rig.progress.fail(f"stop {number}: exit {worker.exit_code}")
                update(number + 1)
        deadline_s = time.monotonic() + FORGET_TIMEOUT_S
        while (after := left_behind(servers, url, running.group)) != before:
            if time.monotonic() > deadline_s:
                rig.progress.fail(f"left behind: {after}, before: {before}")
                break
            time.sleep(0.5)
        alive = [w.name for w in running.workers if is_group_alive(w.pid)]
        if alive:
            rig.progress.fail(f"processes left: {alive}")
        logs = {str(w.log_path) for w in running.workers}
        files = held_files(running.folder) - files_before - logs
        if files:
            rig.progress.fail(f"files left: {sorted(files)}")
        return {
            "times": times,
            "seconds_to_stop_max": round(max(durations_s), 2),
            "processes_left": len(alive),
            "files_left": len(files),
            "redis_connections_left": after.redis_connections - before.redis_connections,
            "group_members_left": after.group_members,
            "open_transactions_left": after.open_transactions,
            **rig.audit(running),
        }


def held_files(folder: Path) -> set[str]:
    """List the files below a folder."""
    return {str(path) for path in folder.rglob("*") if path.is_file()}


def is_group_alive(pid: int, kill: Callable[[int, int], None] = os.killpg) -> bool:
    """Return whether any process of a worker's session is there still."""
    try:
        kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
