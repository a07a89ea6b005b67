"""The rows of the benchmark: what each system promises, and how it is started."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

from tests.bench.dataset import Codec
from tests.bench.peer_environment import PEERS, PeerEnvironment

#: Heap of the Java peer: its states are outside of it, in RocksDB.
JAVA_HEAP = "-Xmx1g"

REPOSITORY = Path(__file__).resolve().parent.parent.parent

Kind = Literal["ours", "python", "java"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run of a contestant is given.

    Attributes:
        bootstrap_servers: The broker.
        redis_url: Redis, empty at the start.
        input_topic: Exists, as does `<input_topic>.dead-letter`.
        output_topic: Exists and is empty.
        group: Used by no other run.
        state_directory: Empty.
        files: Models, by codec, and what was made from them: `weights.npz`, `model.onnx`.
        peers: Where the peers are installed.
    """

    bootstrap_servers: str
    redis_url: str
    input_topic: str
    output_topic: str
    group: str
    state_directory: Path
    files: Path
    peers: PeerEnvironment

    @property
    def environment(self) -> dict[str, str]:
        """What `peers/peer.py` reads, and the repository for our own modules."""
        return {
            "BENCH_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "BENCH_REDIS_URL": self.redis_url,
            "BENCH_INPUT_TOPIC": self.input_topic,
            "BENCH_OUTPUT_TOPIC": self.output_topic,
            "BENCH_GROUP": self.group,
            "BENCH_STATE_DIRECTORY": str(self.state_directory),
            "BENCH_WEIGHTS": str(self.files / "weights.npz"),
            "PYTHONPATH": str(REPOSITORY),
        }


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A row.

    Attributes:
        row: Its name for `--rows`.
        system: Its name in the results.
        kind: What has to be installed for it.
        guarantee: What it promises about outputs.
        durable: Whether its states outlive the process.
        codec: Of events and predictions.
        is_fast: Whether it reads the long log.
        output_name: Member of an output's JSON object that holds the numbers.
        variables: Of its environment, in addition.
        package: Python package whose version is given; the Java peer and livestep have none.
        command: Makes the command line.
    """

    row: str
    system: str
    kind: Kind
    guarantee: str
    durable: bool
    command: Callable[[Run], list[str]]
    codec: Codec = "json"
    is_fast: bool = False
    output_name: str = "y"
    variables: Mapping[str, str] = field(default_factory=dict)
    package: str = ""

    @property
    def is_worker(self) -> bool:
        """Whether it is a worker of livestep."""
        return self.row.startswith("livestep-")

    def version(self, peers: PeerEnvironment) -> str:
        """Return the version of the system."""
        if self.kind == "ours":
            return metadata.version(self.package) if self.package else livestep_version()
        if self.kind == "python":
            return peers.version(self.package)
        jar = next((peers.java_directory / "jars").glob("kafka-streams-*.jar"))
        return jar.stem.removeprefix("kafka-streams-")


def livestep_version() -> str:
    """Return our version; the project need not be installed for it."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def livestep(
    guarantee: str, model: str = "json", rounding: str = "exact"
) -> Callable[[Run], list[str]]:
    """Make the command line of a worker.

    Args:
        guarantee: What it promises.
        model: Name of the model's directory: by default its codec.
        rounding: Of the worker.
    """

    def command(run: Run) -> list[str]:
        options = {
            "--model": str(run.files / model),
            "--bootstrap-servers": run.bootstrap_servers,
            "--redis-url": run.redis_url,
            "--input-topic": run.input_topic,
            "--output-topic": run.output_topic,
            "--group": run.group,
            "--worker-id": run.group,
            "--guarantee": guarantee,
            "--rounding": rounding,
            "--device": "cpu",
        }
        flags = [part for option in options.items() for part in option]
        return [sys.executable, "-m", "livestep.pipeline.cli", "worker", *flags]

    return command


def _pass_through(module: str) -> Callable[[Run], list[str]]:
    def command(run: Run) -> list[str]:
        places = [run.bootstrap_servers, run.input_topic, run.output_topic, run.group]
        return [sys.executable, "-m", f"tests.bench.{module}", *places]

    return command


def _python_peer(name: str, *arguments: str) -> Callable[[Run], list[str]]:
    def command(run: Run) -> list[str]:
        return [str(run.peers.python), str(PEERS / name), *arguments]

    return command


def _kafka_streams(commit_interval_ms: int) -> Callable[[Run], list[str]]:
    def command(run: Run) -> list[str]:
        properties = {
            "bootstrap": run.bootstrap_servers,
            "input": run.input_topic,
            "output": run.output_topic,
            "application": run.group,
            "state": str(run.state_directory),
            "model": str(run.files / "model.onnx"),
            "commit": str(commit_interval_ms),
            "org.slf4j.simpleLogger.defaultLogLevel": "warn",
        }
        flags = [f"-D{name}={value}" for name, value in properties.items()]
        return ["java", JAVA_HEAP, *flags, "-cp", run.peers.java_class_path, "GruStreams"]

    return command


CONTESTANTS = [
    Contestant(
        row="pass-through", system="pass-through", kind="ours", package="confluent-kafka",
        guarantee="exactly-once", durable=False, is_fast=True, output_name="x",
        command=_pass_through("pass_through"),
    ),
    Contestant(
        row="pass-through-native", system="pass-through, native", kind="ours",
        package="confluent-kafka", guarantee="exactly-once", durable=False, is_fast=True,
        output_name="x", command=_pass_through("pass_through_native"),
    ),
    Contestant(
        row="livestep-exactly-once", system="livestep", kind="ours",
        guarantee="exactly-once", durable=True, is_fast=True, command=livestep("exactly-once"),
    ),
    Contestant(
        row="livestep-free-rounding", system="livestep", kind="ours",
        guarantee="exactly-once", durable=True, is_fast=True,
        command=livestep("exactly-once", rounding="free"),
    ),
    Contestant(
        row="livestep-at-least-once", system="livestep", kind="ours",
        guarantee="at-least-once", durable=True, is_fast=True, command=livestep("at-least-once"),
    ),
    Contestant(
        row="livestep-float32", system="livestep", kind="ours", codec="float32",
        guarantee="exactly-once", durable=True, is_fast=True,
        command=livestep("exactly-once", "float32"),
    ),
    Contestant(
        row="livestep-python-loops", system="livestep, LIVESTEP_NATIVE=off", kind="ours",
        guarantee="exactly-once", durable=True, is_fast=True, command=livestep("exactly-once"),
        variables={"LIVESTEP_NATIVE": "off"},
    ),
    Contestant(
        row="kafka-streams", system="Kafka Streams + ONNX Runtime", kind="java",
        guarantee="exactly-once", durable=True, is_fast=True, command=_kafka_streams(100),
    ),
    Contestant(
        row="kafka-streams-1s", system="Kafka Streams + ONNX Runtime, commit 1 s", kind="java",
        guarantee="exactly-once", durable=True, is_fast=True, command=_kafka_streams(1_000),
    ),
    Contestant(
        row="quix", system="Quix Streams", kind="python", package="quixstreams",
        guarantee="exactly-once", durable=True, command=_python_peer("quix_peer.py"),
    ),
    Contestant(
        row="bytewax", system="Bytewax, snapshots", kind="python", package="bytewax",
        guarantee="at-least-once", durable=True, command=_python_peer("bytewax_peer.py"),
    ),
    Contestant(
        row="faust", system="Faust table", kind="python", package="faust-streaming",
        guarantee="at-least-once", durable=True,
        command=_python_peer("faust_peer.py", "worker", "--loglevel", "warn", "--without-web"),
    ),
    Contestant(
        row="redis", system="consumer + Redis, one by one", kind="python", package="redis",
        guarantee="at-least-once", durable=True, command=_python_peer("redis_peer.py"),
    ),
]  # fmt: skip
