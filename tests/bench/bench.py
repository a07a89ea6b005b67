"""What all runs share: services, events and truth, and the starting and stopping of contestants."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis

from livestep import save_model
from livestep.deploy.local.child_process import ChildProcess
from livestep.deploy.local.services import LocalServices
from tests.bench import dataset
from tests.bench.bench_topics import PARTITIONS, delete_topics, fill_topic
from tests.bench.checker import Checker
from tests.bench.contestants import Contestant, Run
from tests.bench.dataset import Codec, EventLog, FloatArray
from tests.bench.peer_environment import PeerEnvironment
from tests.support.rig.kafka_clients import make_topics
from tests.support.rig.machine import sample_process
from tests.support.rig.progress import Progress

#: How long a contestant may take to leave.
LEAVE_TIMEOUT_S = 12.0

#: Between two looks at a contestant's memory.
MEMORY_INTERVAL_S = 0.25


class ContestantError(RuntimeError):
    """Raised if a contestant does not do what was asked of it; has the end of its log."""


@dataclass
class Contest:
    """A contestant that runs.

    Attributes:
        run: What it was given.
        child: Its process.
        rss_mb: The most memory it had so far, in 10^6 bytes; None where the system does not say.
    """

    run: Run
    child: ChildProcess
    rss_mb: float | None = None
    _looked_at: float = field(default=0.0, repr=False)

    def look_at_memory(self) -> None:
        """Note the memory, if some time has passed since the last look."""
        if time.monotonic() - self._looked_at >= MEMORY_INTERVAL_S and self.child.is_running:
            self._looked_at = time.monotonic()
            # It may end meanwhile.
            with contextlib.suppress(OSError):
                self.rss_mb = sample_process(self.child.pid).peak_rss_mb


class Bench:
    """Services, events, truth.

    Args:
        services: Running Kafka and Redis.
        peers: Where the peers are installed.
        directory: An empty folder for models, states and logs of the contestants.
        copies: Repetitions of the utterances in the log for slow and for fast systems.
        progress: Told what is being done.
    """

    def __init__(
        self,
        services: LocalServices,
        peers: PeerEnvironment,
        directory: Path,
        *,
        copies: tuple[int, int],
        progress: Progress,
    ) -> None:
        self.services = services
        self.peers = peers
        self.directory = directory
        self.progress = progress
        self._run_count = 0
        utterances = dataset.read_utterances(peers.data_file(progress.say))
        self.logs = [dataset.make_log(utterances, count) for count in copies]
        self._truths = {"x": utterances.features, "y": self._prepare_models(utterances)}
        self._checkers: dict[tuple[int, str], Checker] = {}

    def _prepare_models(self, utterances: dataset.Utterances) -> FloatArray:
        """Write the model for everybody; return its outputs."""
        model = dataset.make_model()
        codecs: tuple[Codec, ...] = ("json", "float32")
        for codec in codecs:
            save_model(model, self.directory / codec, codec=codec)
        dataset.save_weights(model, self.directory / "weights.npz")
        return dataset.unroll_all(model, utterances)

    def install(self, contestants: Sequence[Contestant]) -> None:
        """Install what some contestants need, in addition to livestep."""
        kinds = {contestant.kind for contestant in contestants}
        if kinds & {"python", "java"}:
            self.peers.install_python_peers(self.progress.say)
        if "java" in kinds:
            self.peers.build_java_peer(self.progress.say)
            self.peers.export_onnx(self.directory / "weights.npz", self.directory / "model.onnx")

    def log_of(self, contestant: Contestant) -> EventLog:
        """Return the events that a contestant reads."""
        return self.logs[contestant.is_fast]

    def topic_of(self, contestant: Contestant) -> str:
        """Return the name of the topic that holds them."""
        return f"events-{contestant.codec}-{'long' if contestant.is_fast else 'short'}"

    def checker_of(self, contestant: Contestant) -> Checker:
        """Return the judge of a contestant's outputs."""
        name = (int(contestant.is_fast), contestant.output_name)
        if name not in self._checkers:
            self._checkers[name] = Checker(self.log_of(contestant), self._truths[name[1]])
        return self._checkers[name]

    def fill(self, contestants: Sequence[Contestant]) -> None:
        """Publish the logs that some contestants read."""
        topics = {self.topic_of(contestant): contestant for contestant in contestants}
        for topic, contestant in topics.items():
            log = self.log_of(contestant)
            self.create_input(topic)
            with self.progress.task(f"publishing {topic}", len(log)) as update:
                records = log.records(contestant.codec)
                fill_topic(self.services.bootstrap_servers, topic, records, update)

    def create_input(self, topic: str) -> None:
        """Create an input topic and its dead-letter topic."""
        names = [topic, f"{topic}.dead-letter"]
        make_topics(self.services.bootstrap_servers, names, PARTITIONS)

    @contextlib.contextmanager
    def contest(
        self, contestant: Contestant, input_topic: str, *flags: str, is_burst: bool = False
    ) -> Iterator[Contest]:
        """Start a contestant on an input topic; afterwards nothing of it is left, in Redis either.

        Args:
            contestant: Whom.
            input_topic: Exists.
            flags: Further arguments of its command line.
            is_burst: Whether it should have ended by itself when the block ends, without an error.

        Raises:
            ContestantError: If it has ended otherwise.
        """
        self._run_count += 1
        name = f"{contestant.row}-{self._run_count}"
        run = Run(
            bootstrap_servers=self.services.bootstrap_servers,
            redis_url=self.services.redis_url,
            input_topic=input_topic,
            output_topic=f"outputs-{name}",
            group=f"bench-{name}",
            state_directory=self.directory / name,
            files=self.directory,
            peers=self.peers,
        )
        run.state_directory.mkdir()
        make_topics(run.bootstrap_servers, [run.output_topic], PARTITIONS)
        log_path = self.directory / f"{name}.log"
        command = [*contestant.command(run), *flags]
        contest = Contest(
            run,
            ChildProcess(
                contestant.row, command, log_path, {**run.environment, **contestant.variables}
            ),
        )
        try:
            contest.child.start()
            yield contest
            if not (contest.child.is_running or (is_burst and contest.child.exit_code == 0)):
                raise ContestantError(
                    f"{contestant.row} ended with exit status {contest.child.exit_code}:\n"
                    f"{contest.child.log_tail()}"
                )
        finally:
            contest.child.stop(LEAVE_TIMEOUT_S)
            delete_topics(run.bootstrap_servers, run.output_topic)
            shutil.rmtree(run.state_directory, ignore_errors=True)
            with redis.Redis.from_url(run.redis_url) as client:
                client.flushdb()
