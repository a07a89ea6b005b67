"""The four acts of the demo: train, predict live, lose a worker, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from livestep.deploy.demo.demo_place import INPUT_TOPIC, OUTPUT_TOPIC
from livestep.deploy.demo.demo_report import Measured, Report, make_report
from livestep.deploy.demo.demo_story import Story, event_time_ms
from livestep.deploy.demo.demo_takeover import Takeover, listed
from livestep.deploy.demo.demo_watch import CommitWatch
from livestep.deploy.demo.screen import Screen, Update
from livestep.deploy.local.child_process import ServiceError
from livestep.deploy.local.services import LocalServices
from livestep.deploy.local.worker_process import POLL_INTERVAL_S, WorkerProcess
from livestep.models.disk.loading import load_model
from livestep.models.disk.saving import save_model
from livestep.models.examples.cook import CookDay, cook_fields, train_cook
from livestep.models.loaded_model import LoadedModel
from livestep.pipeline.clients.publisher import EventPublisher
from livestep.pipeline.clients.readers import PredictionReader
from livestep.pipeline.records import Prediction

GROUP = "cook"

#: Silence after which Kafka gives a dead worker's partitions to the other: the least that brokers
#: allow by default.
SESSION_TIMEOUT_MS = 6_000

#: Seconds between two events of the slow part.
SLOW_INTERVAL_S = 0.1

#: How long one prediction of the slow part, and progress in the fast one, is waited for.
PREDICTION_TIMEOUT_S = 60.0

#: How often, while all is published, the bars move and the workers are looked at.
LOOKS = 200


def train(screen: Screen, directory: Path, seed: int) -> LoadedModel:
    """Act 1: train the cook, save it, and load it as a worker does.

    Raises:
        ModelError: If the training does not succeed.
    """
    screen.heading("1. The model learns how a room-mate cooks")
    screen.say("Sunny: dish 1 -> 2 -> 3 -> 1. Rainy: dish 1 -> 3 -> 2 -> 1. One dish a day.")
    started_s = time.monotonic()
    with screen.tasks(("training", 1.0)) as [update]:
        net = train_cook(seed, on_progress=update)
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
    """What the acts on the log share.

    Attributes:
        screen: What the user sees.
        services: Running, with the topics.
        model: What is stepped.
        story: What is told.
        directory: Of the model and of the workers' logs.
        workers: All that were started; killed by whoever made the stage.
    """

    screen: Screen
    services: LocalServices
    model: LoadedModel
    story: Story
    directory: Path
    workers: list[WorkerProcess] = field(default_factory=list)

    def start_worker(self) -> WorkerProcess:
        """Start the next worker; it is ready some seconds later."""
        flags = {
            "--model": str(self.directory),
            "--input-topic": INPUT_TOPIC,
            "--output-topic": OUTPUT_TOPIC,
            "--group": GROUP,
            "--guarantee": "exactly-once",
            "--session-timeout-ms": str(SESSION_TIMEOUT_MS),
            # So small a net gains nothing from a GPU.
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
        """End all that run, at once."""
        for worker in self.workers:
            worker.kill()


def predict_live(stage: Stage) -> list[float]:
    """Act 2: one flat slowly, each prediction printed as it arrives.

    Returns:
        latencies_ms: From publishing an event to the arrival of its prediction.

    Raises:
        ServiceError: If the worker ends, or a prediction doesn't come.
        EngineError: If a client fails.
    """
    screen, key = stage.screen, stage.story.slow_flat
    with screen.tasks(("starting worker 1", None)):
        worker = stage.start_worker()
        partitions = worker.wait_for_partitions()
    screen.say(f"worker 1 (process {worker.pid}) has partitions {listed(partitions)}")
    days = stage.story.slow_part()
    screen.say(
        f"{key}: on the day before, it was dish {days[0].event['yesterday']}; "
        "from now on, the model hears of the weather only"
    )
    latencies_ms = []
    servers = stage.services.bootstrap_servers
    with (
        PredictionReader(servers, OUTPUT_TOPIC, keys=[key]) as reader,
        EventPublisher(servers, INPUT_TOPIC, linger_ms=0) as publisher,
    ):
        for day in days:
            began_s = time.monotonic()
            publisher.publish(key, day.event, timestamp_ms=event_time_ms(day.date))
            prediction = _next_prediction(reader, worker, f"{key} on {day.date}")
            latencies_ms.append((time.monotonic() - began_s) * 1000)
            _say_prediction(screen, day, prediction, latencies_ms[-1])
            time.sleep(max(0.0, SLOW_INTERVAL_S - (time.monotonic() - began_s)))
    return latencies_ms


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
    sure = dish["probabilities"][dish["label"]]
    is_right = dish["label"] == day.dish
    verdict = "right" if is_right else f"wrong: it is {day.dish}"
    screen.say(
        f"{day.date:%a} {day.date}  {day.event['weather']}  -> dish {dish['label']}  "
        f"{sure:6.1%} sure  {verdict}  {latency_ms:6.1f} ms",
        style="" if is_right else "red",
    )


def lose_a_worker(stage: Stage, latencies_ms: list[float]) -> Measured:
    """Act 3: all flats at full speed; a second worker joins, and the first is killed.

    Raises:
        ServiceError: If the worker that should live ends, or gets no partitions.
        EngineError: If a client fails.
    """
    screen, story = stage.screen, stage.story
    total, slow_count = story.event_count, len(latencies_ms)
    screen.heading(f"3. All {len(story.days):,} flats at full speed, and kill -9")
    watch = CommitWatch(stage.services.bootstrap_servers, GROUP)
    with watch.running():
        takeover = Takeover(screen, watch, stage.workers[0], stage.start_worker)
        began_s = time.monotonic()
        with screen.tasks(("published", total), ("predicted", total)) as updates:
            _publish_all(stage, takeover, watch, updates)
            _await_predictions(stage, takeover, watch, updates[1])
        fast_rate = (watch.event_count - slow_count) / (time.monotonic() - began_s)
        screen.say(f"{watch.event_count:,} of {total:,} events have their prediction")
    # A demo of a second has its second worker before anything is known to be committed.
    alone_rate = max(0, takeover.alone_count - slow_count) / takeover.alone_s
    return Measured(latencies_ms, alone_rate, fast_rate, watch.gap_s)


def _publish_all(
    stage: Stage, takeover: Takeover, watch: CommitWatch, updates: Sequence[Update]
) -> None:
    """Publish the fast part, and have done to the workers what is due at each point."""
    total = stage.story.event_count
    slow_count = len(stage.story.slow_part())
    look_every = max(1, total // LOOKS)
    with EventPublisher(stage.services.bootstrap_servers, INPUT_TOPIC) as publisher:
        for count, (key, day) in enumerate(stage.story.fast_part(), start=slow_count + 1):
            publisher.publish(key, day.event, timestamp_ms=event_time_ms(day.date))
            if count % look_every and count < total:
                continue
            updates[0](count)
            updates[1](watch.event_count)
            while not takeover.look(count / total):
                time.sleep(POLL_INTERVAL_S)
                updates[1](watch.event_count)


def _await_predictions(
    stage: Stage, takeover: Takeover, watch: CommitWatch, update: Update
) -> None:
    """Wait until every event has its prediction, or until nothing moves any more."""
    total = stage.story.event_count
    done, moved_s = 0, time.monotonic()
    while (count := watch.event_count) < total:
        takeover.look(1.0)
        update(count)
        if count > done:
            done, moved_s = count, time.monotonic()
        elif time.monotonic() - moved_s > PREDICTION_TIMEOUT_S:
            stage.screen.say(
                f"{total - count:,} of {total:,} events have no prediction, and none came for "
                f"{PREDICTION_TIMEOUT_S:g} s; by partition: {watch.offsets()}",
                style="red",
            )
            return
        time.sleep(POLL_INTERVAL_S)


def report(stage: Stage, measured: Measured) -> Report:
    """Act 4: stop what writes, read everything, compare.

    Raises:
        EngineError: If a topic can't be read to its end.
    """
    screen = stage.screen
    screen.heading("4. Every prediction, compared")
    for worker in stage.workers:
        worker.stop()
    servers = stage.services.bootstrap_servers
    topics = (INPUT_TOPIC, OUTPUT_TOPIC)
    with screen.tasks(("checking", 1.0)) as [update]:
        found = make_report(
            servers,
            topics,
            stage.model,
            stage.story,
            measured,
            lambda what, done, total: update(
                done / max(total, 1), f"{what}, {done:,} of {total:,}"
            ),
        )
    screen.show(found.table())
    for example in found.examples:
        screen.say(example, style="red")
    return found


def say_what_next(screen: Screen) -> None:
    """Say what to do after a demo that went well."""
    screen.heading("Each event was predicted once, in order, and rightly; worker 1 was not missed.")
    screen.say('Your own model and data: README.md, "Your own model".')
    screen.say("Kafka and Redis to try it on: make services (run until Ctrl-C).")
