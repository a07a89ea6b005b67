"""The four acts of the demo: train, predict live, lose a worker, compare."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from kafka import KafkaAdminClient

from livestep.deploy.demo.demo_accident import Accident, Commits, listed
from livestep.deploy.demo.demo_report import draw, fault_counts
from livestep.deploy.demo.demo_story import Story, event_time_ms
from livestep.deploy.demo.screen import Screen
from livestep.deploy.local.child_process import ServiceError
from livestep.deploy.local.jars import kafka_jars, kafka_version
from livestep.deploy.local.services import LocalServices, local_services
from livestep.deploy.local.worker_process import POLL_INTERVAL_S, WorkerProcess
from livestep.models.disk.loading import load_model
from livestep.models.disk.saving import save_model
from livestep.models.examples.cook import CookDay, cook_fields, train_cook
from livestep.models.loaded_model import LoadedModel
from livestep.pipeline.audit.output_audit import audit
from livestep.pipeline.audit.whole_log import read_whole_log
from livestep.pipeline.clients.publisher import EventPublisher
from livestep.pipeline.clients.readers import PredictionReader
from livestep.pipeline.errors import BrokerError
from livestep.pipeline.kafka.connection import broker_errors, connect
from livestep.pipeline.kafka.topic_setup import create_topics
from livestep.pipeline.records import Prediction, dead_letter_topic

INPUT_TOPIC, OUTPUT_TOPIC, GROUP = "weather", "dishes", "cook"
PARTITION_COUNT = 4

#: Silence after which Kafka reassigns a dead worker's partitions: the least that brokers allow by
#: default.
SESSION_TIMEOUT_MS = 6_000

#: Seconds between two events of the slow part.
SLOW_INTERVAL_S = 0.1

#: How long to wait for the next prediction.
PREDICTION_TIMEOUT_S = 60.0

#: The fast part is published in so many parts, between which the workers are looked at.
PARTS = 200

#: Wrong dishes that are described.
EXAMPLES_MAX = 5


def train(screen: Screen, directory: Path, seed: int) -> LoadedModel:
    """Act 1: train the cook, save it, and load it as a worker does."""
    screen.heading("1. The model learns how a room-mate cooks")
    screen.say("Sunny: dish 1 -> 2 -> 3 -> 1. Rainy: dish 1 -> 3 -> 2 -> 1. One dish a day.")
    started_s = time.monotonic()
    with screen.progress("training") as show:
        net = train_cook(seed, on_progress=lambda done, note: show("training", done, 1.0, note))
    inputs, outputs = cook_fields()
    save_model(net, directory, inputs, outputs)
    model = load_model(directory)
    weight_count = sum(weights.numel() for weights in net.parameters())
    screen.say(
        f"trained in {time.monotonic() - started_s:.1f} s: {type(net).__name__} with "
        f"{weight_count:,} weights, model {model.fingerprint}"
    )
    return model


@dataclass
class Stage:
    """Acts 2 to 4 on Kafka and Redis. The caller has to kill the workers.

    An act raises ServiceError if a worker fails, and EngineError if a client does.

    Attributes:
        measured: Rows of the report: name, value, comment.
    """

    screen: Screen
    services: LocalServices
    model: LoadedModel
    story: Story
    directory: Path
    workers: list[WorkerProcess] = field(default_factory=list)
    measured: list[tuple[str, str, str]] = field(default_factory=list)

    def start_worker(self) -> WorkerProcess:
        """Start the next worker; it is ready some seconds later."""
        flags = {
            "--model": str(self.directory),
            "--input-topic": INPUT_TOPIC,
            "--output-topic": OUTPUT_TOPIC,
            "--group": GROUP,
            "--guarantee": "exactly-once",
            "--session-timeout-ms": str(SESSION_TIMEOUT_MS),
            # Such a small net gains nothing from a GPU.
            "--device": "cpu",
        }
        worker = WorkerProcess(
            f"worker {len(self.workers) + 1}",
            self.services,
            self.directory,
            [word for flag in flags.items() for word in flag],
        )
        self.workers.append(worker)
        worker.start()
        return worker

    def kill_workers(self) -> None:
        """Kill all workers that run."""
        for worker in self.workers:
            worker.kill()

    def predict_live(self) -> None:
        """Act 2: one flat slowly; each prediction is printed when it arrives."""
        screen, key, servers = self.screen, self.story.slow_flat, self.services.bootstrap_servers
        latencies_ms: list[float] = []
        with screen.progress("starting worker 1"):
            worker = self.start_worker()
            partitions = worker.wait_for_partitions()
        screen.say(f"worker 1 (process {worker.pid}) has partitions {listed(partitions)}")
        screen.say(
            f"{key}: on the day before, it was dish {self.story.slow_part[0].event['yesterday']}; "
            "from now on, the model gets the weather only"
        )
        with (
            PredictionReader(servers, OUTPUT_TOPIC, keys=[key]) as reader,
            EventPublisher(servers, INPUT_TOPIC, linger_ms=0) as publisher,
        ):
            for day in self.story.slow_part:
                began_s = time.monotonic()
                publisher.publish(key, day.event, timestamp_ms=event_time_ms(day.date))
                prediction = _next_prediction(reader, worker, f"{key} on {day.date}")
                latencies_ms.append((time.monotonic() - began_s) * 1000)
                _say_prediction(screen, day, prediction, latencies_ms[-1])
                time.sleep(max(0.0, SLOW_INTERVAL_S - (time.monotonic() - began_s)))
        p50_ms, p99_ms = np.percentile(latencies_ms, [50, 99], method="inverted_cdf")
        comment = f"{len(latencies_ms)} events, one by one"
        self.measured += [
            ("latency p50", f"{p50_ms:,.1f} ms", comment),
            ("latency p99", f"{p99_ms:,.1f} ms", comment),
        ]

    def lose_a_worker(self) -> None:
        """Act 3: publish all other events at full speed, have the accident, await predictions."""
        screen, story, servers = self.screen, self.story, self.services.bootstrap_servers
        screen.heading(f"3. All {len(story.days):,} flats at full speed, and kill -9")
        total, slow_count = story.event_count, len(story.slow_part)
        commits, events, published = Commits(), story.fast_part(), slow_count
        accident = Accident(screen, commits, self.workers[0], self.start_worker)
        began_s = moved_s = time.monotonic()
        with (
            closing(connect(KafkaAdminClient, servers)) as admin,
            EventPublisher(servers, INPUT_TOPIC) as publisher,
            screen.progress("published", "predicted") as show,
        ):
            while (before := commits.event_count) < total:
                may_publish = accident.look(published / total)
                for key, day in islice(events, max(1, total // PARTS) if may_publish else 0):
                    publisher.publish(key, day.event, timestamp_ms=event_time_ms(day.date))
                    published += 1
                if published == total or not may_publish:
                    time.sleep(POLL_INTERVAL_S)
                with broker_errors(f"asking for the offsets of group {GROUP!r}"):
                    found = admin.list_group_offsets(GROUP)[GROUP]
                offsets = {place.partition: committed.offset for place, committed in found.items()}
                commits.note(time.monotonic(), offsets)
                show("published", published, total)
                show("predicted", commits.event_count, total)
                if commits.event_count > before or published < total:
                    moved_s = time.monotonic()
                elif time.monotonic() - moved_s > PREDICTION_TIMEOUT_S:
                    screen.say(
                        f"{total - before:,} of {total:,} events have no prediction, and none came "
                        f"for {PREDICTION_TIMEOUT_S:g} s; by partition: {commits.offsets}",
                        style="red",
                    )
                    break
            accident.look(1.0)
        rate = (commits.event_count - slow_count) / (time.monotonic() - began_s)
        screen.say(f"{commits.event_count:,} of {total:,} events have their prediction")
        # In a small demo the second worker may start before the first commit is seen.
        alone_rate = max(0, accident.alone_count - slow_count) / accident.alone_s
        gap = f"{commits.longest_gap_s:,.1f} s"
        self.measured = [
            ("events/s", f"{alone_rate:,.0f}", "one worker, full speed"),
            ("events/s", f"{rate:,.0f}", "whole act, kill -9 included"),
            *self.measured,
            ("longest gap after kill -9", gap, "worker 1's partitions"),
        ]

    def report(self) -> dict[str, int]:
        """Act 4: stop the workers, read all records, and compare; returns `fault_counts`."""
        self.screen.heading("4. Every prediction, compared")
        for worker in self.workers:
            worker.stop()
        servers = self.services.bootstrap_servers
        with self.screen.progress() as show:
            found = audit(servers, INPUT_TOPIC, OUTPUT_TOPIC, self.model, on_progress=show)
            records = read_whole_log(
                servers, OUTPUT_TOPIC, on_progress=partial(show, "checking the rules")
            )
            wrong = [fault for fault in map(self.story.wrong_dish, records) if fault]
        counts = fault_counts(self.story.event_count, found, len(wrong))
        self.screen.print(draw(self.story.event_count, found, counts, self.measured))
        letters = f"{found.dead_letters:,} events are in {dead_letter_topic(INPUT_TOPIC)}"
        faults = [letters] if found.dead_letters else []
        for fault in (*faults, *found.examples, *wrong[:EXAMPLES_MAX]):
            self.screen.say(str(fault), style="red")
        return counts


@contextmanager
def running_services(screen: Screen, directory: Path) -> Iterator[LocalServices]:
    """Start Kafka and Redis with the topics; stop them at the end."""
    screen.heading("2. One flat, day by day")
    jars = kafka_jars()  # shows its own progress
    started_s = time.monotonic()
    with ExitStack() as stack:
        with screen.progress("starting Kafka and Redis"):
            services = stack.enter_context(local_services(directory, jars.parent))
        topics = [INPUT_TOPIC, OUTPUT_TOPIC, dead_letter_topic(INPUT_TOPIC)]
        # Kafka deletes by the records' time, and that is the weather's: years ago.
        config = {"retention.ms": "-1"}
        servers = services.bootstrap_servers
        for outcome in create_topics(servers, topics, PARTITION_COUNT, config=config):
            if outcome.problem:
                raise BrokerError(f"topic {outcome.name}: {outcome.problem}")
        screen.say(
            f"Kafka {kafka_version()} ({servers}) and Redis {services.redis.version} "
            f"({services.redis_url}) are up after {time.monotonic() - started_s:.1f} s"
        )
        yield services


def _next_prediction(reader: PredictionReader, worker: WorkerProcess, what: str) -> Prediction:
    deadline_s = time.monotonic() + PREDICTION_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if predictions := reader.read(1.0, max_count=1):
            return predictions[0]
        worker.check()
    raise ServiceError(f"no prediction for {what} in {PREDICTION_TIMEOUT_S:g} s")


def _say_prediction(
    screen: Screen, day: CookDay, prediction: Prediction, latency_ms: float
) -> None:
    dish = prediction.value["dish"]
    probability = dish["probabilities"][dish["label"]]
    is_right = dish["label"] == day.dish
    verdict = "right" if is_right else f"wrong: it is {day.dish}"
    screen.say(
        f"{day.date:%a} {day.date}  {day.event['weather']}  -> dish {dish['label']}  "
        f"{probability:6.1%} sure  {verdict}  {latency_ms:6.1f} ms",
        style="" if is_right else "red",
    )
