"""Every setting of a worker, with its unit, its limits and its default.

There is one flat set, given by a flag (`--batch-events-max 5000`) or by the environment
(`LIVESTEP_BATCH_EVENTS_MAX=5000`); a flag wins.  What belongs to the model (sizes, codec, shape of
sequence) travels in its directory, and a librdkafka option that is not named here passes through
as `LIVESTEP_KAFKA_<OPTION>`, for example `LIVESTEP_KAFKA_COMPRESSION_TYPE=lz4`.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import ConfigError
from pipeline.records import dead_letter_topic

ENVIRONMENT_PREFIX = "LIVESTEP_"

#: Prefix of librdkafka options that pass through under their own name.
KAFKA_PREFIX = "LIVESTEP_KAFKA_"

#: What Kafka allows in a topic's name.
_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def _setting(
    default: Any,
    text: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    metadata = {"help": text, "at_least": at_least, "at_most": at_most, "choices": choices}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one worker; checked when made.

    Raises:
        ConfigError: If a value is missing, of the wrong kind, or outside of its limits.

    Example:
        >>> settings = Settings(model="cook", input_topic="weather", output_topic="dishes")
        >>> settings.dead_letter_topic
        'weather.dead-letter'
    """

    model: str = _setting("", "Directory with model.json, and its weights or program.")
    model_packages: str = _setting(
        "",
        "Packages whose model classes may be imported, and torchscript or exported for programs, "
        "name[,...]: their code runs in the worker.",
    )
    input_topic: str = _setting("", "Topic of events.")
    output_topic: str = _setting("", "Topic of predictions.")
    dead_letter_topic: str = _setting(
        "", "Topic of records that can't be used. [default: <input-topic>.dead-letter]"
    )

    bootstrap_servers: str = _setting("127.0.0.1:9092", "Kafka brokers, host:port[,...].")
    redis_url: str = _setting(
        "redis://127.0.0.1:6379/0", "Redis, redis[s]://[user:password@]host:port/db."
    )

    group: str = _setting("", "Consumer group. [default: livestep.<output-topic>]")
    worker_id: str = _setting(
        "",
        "Name of this worker, the same after a restart (a StatefulSet's pod name); part of its "
        "transactional id. [default: host and the lowest number free on it]",
    )
    group_instance_id: str = _setting(
        "", "Static membership: a restart within the session time-out moves no partition."
    )
    guarantee: str = _setting(
        "exactly-once",
        "at-least-once is for brokers without transactions: states stay exact, outputs may repeat.",
        choices=("exactly-once", "at-least-once"),
    )
    session_timeout_ms: int = _setting(
        10_000,
        "Silence after which the broker gives a worker's partitions to others; also the time-out "
        "of an open transaction.",
        at_least=1_000,
        at_most=300_000,
    )

    on_new_model: str = _setting(
        "refuse",
        "When another model made the last commit. zeros: states begin here, at zeros. "
        "warm: replay the history that the log holds through the new model, without outputs.",
        choices=("refuse", "zeros", "warm"),
    )
    accept_missing_history: bool = _setting(
        False, "Go on from what the log still has when events that the states need are gone."
    )
    auto_offset_reset: str = _setting(
        "earliest", "Where a group without commits begins.", choices=("earliest", "latest")
    )

    device: str = _setting(
        "auto",
        "Where the model runs; auto is CUDA if there is one.",
        choices=("auto", "cpu", "cuda"),
    )
    torch_threads: int = _setting(
        1,
        "Threads of torch on the CPU; more than 1 pays for large nets only.",
        at_least=1,
        at_most=512,
    )
    pool_slots: int = _setting(
        100_000,
        "States kept on the device; at least twice the batch.",
        at_least=2,
        at_most=100_000_000,
    )
    batch_events_max: int = _setting(
        20_000, "Events of one batch, one model call, one transaction.", at_least=1, at_most=200_000
    )
    save_queue_batches_max: int = _setting(
        4,
        "Committed batches that may wait for Redis before polling is held back.",
        at_least=1,
        at_most=1_000,
    )

    key_bytes_max: int = _setting(1_000, "Longest key.", at_least=1, at_most=65_536)
    value_bytes_max: int = _setting(1_000_000, "Longest value.", at_least=1, at_most=100_000_000)

    redis_wait_s: float = _setting(
        60.0,
        "How long to wait for a Redis that is away before leaving.",
        at_least=0.0,
        at_most=280.0,
    )
    status_interval_s: float = _setting(
        5.0, "Seconds between status lines; 0 for none.", at_least=0.0, at_most=86_400.0
    )
    burst: bool = _setting(False, "Stop when the log is read to its end.")

    kafka_options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            _check_limits(item, getattr(self, item.name))
        for name in ("model", "input_topic", "output_topic"):
            if not getattr(self, name):
                raise ConfigError(f"{_flag(name)} is missing; {_variable(name)} can give it, too")
        derived = {
            "dead_letter_topic": dead_letter_topic(self.input_topic),
            "group": f"livestep.{self.output_topic}",
        }
        for name, value in derived.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        for name in ("input_topic", "output_topic", "dead_letter_topic"):
            if not _TOPIC_NAME.fullmatch(getattr(self, name)):
                raise ConfigError(
                    f"{_flag(name)} {getattr(self, name)!r} is no topic name: letters, digits, "
                    "'.', '_' and '-', 249 at most"
                )
        if len({self.input_topic, self.output_topic, self.dead_letter_topic}) < 3:
            raise ConfigError("input, output and dead-letter topic have to be three topics")
        if self.pool_slots < 2 * self.batch_events_max:
            raise ConfigError(
                f"--pool-slots {self.pool_slots} is less than twice --batch-events-max "
                f"{self.batch_events_max}: a batch and the one that waits to be saved must fit"
            )

    @property
    def allowed_packages(self) -> tuple[str, ...]:
        """The names in `model_packages`."""
        return tuple(split_names(self.model_packages))

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, **flags: Any
    ) -> Settings:
        """Make settings from `LIVESTEP_...` variables; a flag that is not None wins.

        Args:
            environment: Variables; those of the process if None.
            flags: Settings by name.

        Raises:
            ConfigError: If a value can't be read, or is outside of its limits.
        """
        variables = os.environ if environment is None else environment
        values: dict[str, Any] = {"kafka_options": kafka_options(variables)}
        for item in dataclasses.fields(cls):
            if item.name == "kafka_options":
                continue
            if flags.get(item.name) is not None:
                values[item.name] = flags[item.name]
            elif variables.get(_variable(item.name)):
                values[item.name] = _parse(item, variables[_variable(item.name)])
        return cls(**values)


def split_names(text: str) -> list[str]:
    """Split names at their commas.

    Example:
        >>> split_names("my_model, exported")
        ['my_model', 'exported']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def kafka_options(variables: Mapping[str, str]) -> dict[str, str]:
    """Read librdkafka options from the environment: `LIVESTEP_KAFKA_LINGER_MS=5` is `linger.ms`.

    Example:
        >>> kafka_options({"LIVESTEP_KAFKA_LINGER_MS": "5"})
        {'linger.ms': '5'}
    """
    return {
        name.removeprefix(KAFKA_PREFIX).lower().replace("_", "."): value
        for name, value in variables.items()
        if name.startswith(KAFKA_PREFIX)
    }


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _parse(item: dataclasses.Field[Any], text: str) -> Any:
    kind: Any = type(item.default)
    try:
        if kind is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[
                text.lower()
            ]
        return kind(text)
    except (KeyError, ValueError):
        raise ConfigError(f"{_variable(item.name)}={text!r} is no {kind.__name__}") from None


def _check_limits(item: dataclasses.Field[Any], value: Any) -> None:
    if item.name == "kafka_options":
        return
    name, limits = _flag(item.name), item.metadata
    kind = type(item.default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{name} {value!r} is no {kind.__name__}")
    if limits["choices"] and value not in limits["choices"]:
        raise ConfigError(f"{name} {value!r} is none of {', '.join(limits['choices'])}")
    if limits["at_least"] is not None and not limits["at_least"] <= value <= limits["at_most"]:
        raise ConfigError(
            f"{name} {value} is outside of {limits['at_least']:g} to {limits['at_most']:g}"
        )
