"""Prepare a publish: columns and values from the options, the topic from the broker."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import click

from livestep.models.disk.model_json import ModelFile, read_description
from livestep.pipeline.environment import kafka_options, read_variables
from livestep.pipeline.errors import ConfigError
from livestep.pipeline.kafka.admin import Admin
from livestep.pipeline.kafka.client_options import RESERVED
from livestep.pipeline.publishing.columns import (
    Batch,
    EventColumns,
    RowConverter,
    csv_batches,
    missing_column,
)
from livestep.pipeline.publishing.files import CsvFile, Lines, Row, read_csv
from livestep.pipeline.publishing.json_records import JsonRecords
from livestep.pipeline.publishing.limits import TopicLimits
from livestep.pipeline.publishing.values import JsonValues, ModelValues, Values, VectorValues


@dataclass(frozen=True, slots=True)
class Source:
    """An open file and the meaning of its rows.

    Attributes:
        batches: Converts the rows to records, and checks the topic's limits.
        note: A note for the user; may be empty.
    """

    batches: Callable[[TopicLimits], Iterator[Batch]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """An existing topic.

    Attributes:
        options: Client options for librdkafka.
        partition_count: Number of partitions.
        settings: Settings of the topic, by Kafka's names; empty if this user may not read them.
        limits: Limits of the topic.
    """

    options: dict[str, str]
    partition_count: int
    settings: Mapping[str, str]
    limits: TopicLimits

    @property
    def batch_bytes_max(self) -> int | None:
        """`max.message.bytes`; None if unknown."""
        return int(self.settings["max.message.bytes"]) if self.settings else None


def columns_of(
    *,
    key: tuple[str, ...],
    key_separator: str,
    key_value: str | None,
    key_row: bool,
    columns: str | None,
    missing: tuple[str, ...],
    timestamp: str | None,
    marks: bool,
    forget: str | None,
) -> EventColumns:
    """Create columns from the options with the same names.

    Raises:
        click.UsageError: If the options don't define exactly one key.
    """
    if (bool(key), key_value is not None, key_row).count(True) != 1:
        raise click.UsageError(
            "the key is missing: use one of --key COLUMN, --key-value TEXT or --key-row"
        )
    if key_value == "" or not key_separator:
        raise click.UsageError("a key, and the separator of its parts, can't be empty")
    if columns is not None and not columns.strip():
        raise click.UsageError("--columns is empty: it takes the columns of the value, A,B,C")
    values = () if columns is None else tuple(columns.split(","))
    for option, names in (("--key", key), ("--columns", values)):
        if twice := [name for name in names if names.count(name) > 1]:
            raise click.UsageError(f"{option}: {twice[0]!r} is given twice")
    return EventColumns(
        key=key,
        key_separator=key_separator,
        fixed_key=key_value,
        timestamp=timestamp,
        forget=forget,
        has_marks=marks,
        values=values,
        missing=missing,
    )


def open_source(
    blocks: Iterable[list[bytes]],
    name: str,
    file_format: str,
    columns: EventColumns,
    model: str | None,
    codec: str | None,
) -> Source:
    """Open a file of events.

    Args:
        blocks: Lines of the file, in blocks.
        name: Name of the file, for errors.
        file_format: "csv" or "jsonl".
        columns: Roles of its columns.
        model: Directory of the model; None without --model.
        codec: "json" or "float32"; None for the model's, or json.

    Raises:
        click.UsageError: If options contradict each other.
        LineError: If a header is invalid, or lacks a column.
        ModelError: If the model's description can't be used.
    """
    description = None if model is None else read_description(model)
    if description is not None and codec not in (None, description.codec):
        raise click.UsageError(f"--codec {codec}, but the model's codec is {description.codec}")
    if file_format == "jsonl":
        values = _values(None, name, columns, description, codec)
        optional = () if description is None else [one.name for one in description.inputs]

        def is_first_event(row: Row) -> bool:
            return columns.check_first_event(row, name, optional)

        return Source(
            lambda limits: JsonRecords(columns, values, limits, is_first_event).batches(blocks)
        )
    lines = Lines(blocks)
    file = read_csv(lines, name)
    columns.check_header(file.columns, name, file.header_line)
    values = _values(file, name, columns, description, codec)
    unknown = _unknown_columns(file, columns, description)
    return Source(
        lambda limits: csv_batches(file.rows, lines, RowConverter(columns, values, limits.check)),
        f"not inputs of the model, left out: {', '.join(unknown)}" if unknown else "",
    )


def _values(
    file: CsvFile | None,
    name: str,
    columns: EventColumns,
    description: ModelFile | None,
    codec: str | None,
) -> Values:
    if description is not None:
        _check_inputs(file, name, columns, description)
        return ModelValues(description, columns.values, columns.marks, is_csv=file is not None)
    if codec == "float32":
        names = columns.values or tuple(
            column
            for column in (() if file is None else file.columns)
            if column not in columns.taken_out
        )
        is_csv = file is not None
        return VectorValues(names, columns.taken_out, is_chosen=bool(names), is_csv=is_csv)
    return JsonValues(columns.values, columns.taken_out, is_csv=file is not None)


def _check_inputs(
    file: CsvFile | None, name: str, columns: EventColumns, description: ModelFile
) -> None:
    """Check that options and file have the inputs of a model.

    Raises:
        click.UsageError: If an option removes an input.
        LineError: If the file lacks a required input.
    """
    inputs = [field.name for field in description.inputs]
    if taken := [mark for mark in columns.marks if mark in inputs]:
        raise click.UsageError(
            f"the model has an input {taken[0]!r}, which --marks would use as a mark"
        )
    required = [field.name for field in description.inputs if not field.optional]
    for input_name in required:
        if columns.values and input_name not in columns.values:
            raise click.UsageError(f"--columns lacks {input_name!r}, an input of the model")
        if file is not None and input_name not in file.columns:
            raise missing_column(
                input_name, file.columns, name, file.header_line, ", an input of the model,"
            )


def _unknown_columns(
    file: CsvFile, columns: EventColumns, description: ModelFile | None
) -> list[str]:
    """Return the columns of a file that a model does not use."""
    if description is None:
        return []
    known = {*(field.name for field in description.inputs), *columns.taken_out}
    return [column for column in file.columns if column not in known]


def find_target(bootstrap_servers: str, topic: str) -> tuple[Target, str]:
    """Find a topic and its limits.

    Returns:
        target: The topic.
        note: A note for the user; may be empty.

    Raises:
        BrokerError: If no broker responds, or it refuses.
        ConfigError: If the topic does not exist, or a client option is invalid.
    """
    options = kafka_options(read_variables(os.environ))
    if reserved := sorted(RESERVED & options.keys()):
        raise ConfigError(f"Kafka option {reserved[0]} is set by Livestep and can't be changed")
    options["bootstrap.servers"] = bootstrap_servers
    admin = Admin(options)
    admin.check_topics([topic])
    partition_count = admin.partition_count(topic)
    settings = admin.allowed_settings(topic)
    if settings is None:
        note = (
            f"this user may not read the settings of topic {topic!r} (DESCRIBE_CONFIGS): only "
            "Kafka itself can refuse wrong times and sizes"
        )
        return Target(options, partition_count, {}, TopicLimits()), note
    compression = options.get("compression.type") or options.get("compression.codec") or "none"
    limits = TopicLimits.of(settings, is_compressed=compression != "none")
    return Target(options, partition_count, settings, limits), ""
