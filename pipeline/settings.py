"""Every setting of a worker, with its unit, limits and default.

The set is flat. A setting comes from a flag (`--batch-events-max 5000`) or from the environment
(`LIVESTEP_BATCH_EVENTS_MAX=5000`, or a file whose content is the value:
`LIVESTEP_REDIS_PASSWORD_FILE=/run/secrets/redis`). A flag wins; secrets have no flag. What belongs
to the model (sizes, codec, shape of sequence) is stored in its directory, and a librdkafka option
that is not named here passes through as `LIVESTEP_KAFKA_<OPTION>`, for example
`LIVESTEP_KAFKA_COMPRESSION_TYPE=lz4`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from livestep.models.rounding import Rounding
from livestep.pipeline.environment import (
    ENVIRONMENT_PREFIX,
    RedisCredentials,
    Secret,
    kafka_options,
    read_variables,
    split_credentials,
)
from livestep.pipeline.errors import ConfigError
from livestep.pipeline.records import dead_letter_topic
from livestep.pipeline.topic_names import check_topic_name

#: Names of the types of settings, for messages.
_KINDS = {bool: "true or false", float: "a number", int: "an integer", str: "a string"}


def _setting(
    default: Any,
    text: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: tuple[str, ...] = (),
    has_flag: bool = True,
) -> Any:
    metadata = {
        "help": text,
        "at_least": at_least,
        "at_most": at_most,
        "choices": choices,
        "has_flag": has_flag,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one worker, checked on creation.

    User and password are removed from the Redis URL, so `redis_url` and the `repr` of all settings
    can be logged.

    Raises:
        ConfigError: If a value is missing, has the wrong type, or is out of range.

    Example:
        >>> settings = Settings(model="cook", input_topic="weather", output_topic="dishes")
        >>> settings.dead_letter_topic
        'weather.dead-letter'
    """

    model: str = _setting("", "Directory with model.json, and its weights or program.")
    model_packages: str = _setting(
        "",
        "Packages, torchscript or exported, whose code models may run, name[,...].",
    )
    input_topic: str = _setting("", "Topic of events.")
    output_topic: str = _setting("", "Topic of predictions.")
    dead_letter_topic: str = _setting(
        "", "Topic of invalid events. [default: <input-topic>.dead-letter]"
    )

    bootstrap_servers: str = _setting("127.0.0.1:9092", "Kafka brokers, host:port[,...].")
    redis_url: str = _setting(
        "redis://127.0.0.1:6379/0",
        "Redis. A password here shows in the process list.",
    )
    redis_username: str = _setting("", "User of Redis.", has_flag=False)
    redis_password: str = _setting("", "Password of Redis.", has_flag=False)
    redis_sentinel_username: str = _setting("", "User of the Sentinels.", has_flag=False)
    redis_sentinel_password: str = _setting("", "Password of the Sentinels.", has_flag=False)

    group: str = _setting("", "Consumer group. [default: livestep.<output-topic>]")
    worker_id: str = _setting(
        "",
        "Stable name of this worker, such as its pod's. [default: host and a free number]",
    )
    group_instance_id: str = _setting(
        "", "Static membership: a restart within the session timeout moves no partitions."
    )
    guarantee: str = _setting(
        "exactly-once",
        "With at-least-once, outputs may repeat.",
        choices=("exactly-once", "at-least-once"),
    )
    session_timeout_ms: int = _setting(
        10_000,
        "Silence after which a worker counts as dead.",
        at_least=1_000,
        at_most=300_000,
    )

    on_new_model: str = _setting(
        "refuse",
        "After a model change: stop, zero all states, or replay the log.",
        choices=("refuse", "zeros", "warm"),
    )
    accept_missing_history: bool = _setting(
        False, "Continue from what is left in the log if events that the states need are gone."
    )
    auto_offset_reset: str = _setting(
        "earliest", "Where a group without commits starts.", choices=("earliest", "latest")
    )

    device: str = _setting(
        "auto",
        "Where the model runs; auto means CUDA if available.",
        choices=("auto", "cpu", "cuda"),
    )
    rounding: Rounding = _setting(
        "exact",
        "exact: equal bit for bit in any batch; free: faster.",
        choices=("exact", "free"),
    )
    torch_threads: int = _setting(
        1,
        "Threads of torch on the CPU; more than 1 helps large nets only.",
        at_least=1,
        at_most=512,
    )
    pool_slots: int = _setting(
        100_000,
        "States kept on the device; at least 2 x batch-events-max.",
        at_least=2,
        at_most=100_000_000,
    )
    batch_events_max: int = _setting(
        20_000, "Events per batch, model call and transaction.", at_least=1, at_most=200_000
    )
    save_queue_batches_max: int = _setting(
        4,
        "Committed batches that may wait for Redis before polling pauses.",
        at_least=1,
        at_most=1_000,
    )

    key_bytes_max: int = _setting(1_000, "Longest key, in bytes.", at_least=1, at_most=65_536)
    value_bytes_max: int = _setting(
        1_000_000, "Longest value, in bytes.", at_least=1, at_most=100_000_000
    )

    redis_wait_s: float = _setting(
        60.0,
        "Seconds to wait for Redis to come back before the worker stops.",
        at_least=0.0,
        at_most=280.0,
    )
    drain_timeout_s: float = _setting(
        20.0,
        "Longest shutdown, in seconds; less than until SIGKILL.",
        at_least=1.0,
        at_most=3_600.0,
    )
    status_interval_s: float = _setting(
        5.0, "Seconds between status log lines; 0 for none.", at_least=0.0, at_most=86_400.0
    )
    burst: bool = _setting(False, "Stop at the end of the log.")

    kafka_options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._take_credentials()
        for item in dataclasses.fields(self):
            _check_limits(item, getattr(self, item.name))
        for name in ("model", "input_topic", "output_topic"):
            if not getattr(self, name):
                raise ConfigError(f"{_flag(name)} is missing; you can also set {_variable(name)}")
        derived = {
            "dead_letter_topic": dead_letter_topic(self.input_topic),
            "group": f"livestep.{self.output_topic}",
        }
        for name, value in derived.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        for name in ("input_topic", "output_topic", "dead_letter_topic"):
            check_topic_name(getattr(self, name), _flag(name))
        if len({self.input_topic, self.output_topic, self.dead_letter_topic}) < 3:
            raise ConfigError("input, output and dead-letter topic must be three different topics")
        if self.pool_slots < 2 * self.batch_events_max:
            raise ConfigError(
                f"--pool-slots {self.pool_slots} is less than twice --batch-events-max "
                f"{self.batch_events_max}: it must hold one batch and another that is being saved"
            )

    def _take_credentials(self) -> None:
        """Move user and password from the URL to fields that are not shown."""
        if not (isinstance(self.redis_url, str) and isinstance(self.redis_password, str)):
            return
        url, username, password = split_credentials(self.redis_url)
        if (username and self.redis_username) or (password and self.redis_password):
            raise ConfigError(
                "the user or password for Redis is set twice: by --redis-url or "
                "LIVESTEP_REDIS_URL, and by LIVESTEP_REDIS_USERNAME or LIVESTEP_REDIS_PASSWORD"
            )
        object.__setattr__(self, "redis_url", url)
        object.__setattr__(self, "redis_username", username or self.redis_username)
        object.__setattr__(self, "redis_password", password or Secret(self.redis_password))
        object.__setattr__(self, "redis_sentinel_password", Secret(self.redis_sentinel_password))

    @property
    def redis_credentials(self) -> RedisCredentials:
        """Credentials for Redis and its Sentinels."""
        return RedisCredentials(
            username=self.redis_username,
            password=self.redis_password,
            sentinel_username=self.redis_sentinel_username,
            sentinel_password=self.redis_sentinel_password,
        )

    @property
    def allowed_packages(self) -> tuple[str, ...]:
        """The names in `model_packages`."""
        return tuple(split_names(self.model_packages))

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, **flags: Any
    ) -> Settings:
        """Create settings from `LIVESTEP_...` variables; a flag that is not None wins.

        Args:
            environment: Variables; the process's own if None.
            flags: Settings by name.

        Raises:
            ConfigError: If a value is invalid or out of range.
        """
        variables = read_variables(os.environ if environment is None else environment)
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
    """Split a list of names at its commas.

    Example:
        >>> split_names("my_model, exported")
        ['my_model', 'exported']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


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
        raise ConfigError(f"{_variable(item.name)}={text!r} is not {_KINDS[kind]}") from None


def _check_limits(item: dataclasses.Field[Any], value: Any) -> None:
    if item.name == "kafka_options":
        return
    name, limits = _flag(item.name), item.metadata
    kind = type(item.default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        shown = f" {value!r}" if limits["has_flag"] else ""
        raise ConfigError(f"{name}{shown} is not {_KINDS[kind]}")
    if limits["choices"] and value not in limits["choices"]:
        raise ConfigError(f"{name} {value!r} is not one of {', '.join(limits['choices'])}")
    if limits["at_least"] is not None and not limits["at_least"] <= value <= limits["at_most"]:
        raise ConfigError(
            f"{name} {value} is out of range: {limits['at_least']:g} to {limits['at_most']:g}"
        )
