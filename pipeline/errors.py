"""Errors by cause; each one states how the worker reacts.

    EngineError
    ├── ConfigError            a setting, flag or topic is wrong
    │   └── MissingTopicError      a topic doesn't exist
    ├── BrokerError            Kafka can't be reached or refuses
    ├── StoreError             Redis can't be reached or refuses
    ├── StateError             log and store disagree, and replay can't repair it
    │   ├── OffsetsResetError      the store is ahead of the group's committed offset
    │   ├── HistoryMissingError    a replay needs events that the log no longer has
    │   ├── OtherModelError        the last commit was made by another model
    │   ├── PartitionsChangedError the topic's number of partitions has changed
    │   └── TopicReplacedError     the topic was deleted or recreated while the worker ran
    ├── FencedError            another worker has taken over
    ├── UnsavedError           the worker has stopped before all states were saved
    ├── StoppedError           the worker was asked to stop while it waited
    ├── DefectError            an unexpected exception: a bug
    ├── OutputError            a command can't write its output
    ├── ReaderGoneError        the reader of a command's output has closed the pipe
    └── DecodeError            a record is invalid: it goes to the dead-letter topic

Errors of client libraries are translated where the library is called, and nowhere else.
"""

from __future__ import annotations

from livestep.pipeline.exit_codes import ExitCode


class EngineError(Exception):
    """Base class; the command line prints one line and exits with `exit_code`."""

    exit_code = ExitCode.FOUND


class ConfigError(EngineError):
    """Raised before anything is read: the worker does not start."""

    exit_code = ExitCode.SETTING


class MissingTopicError(ConfigError):
    """Raised if a topic doesn't exist."""


class BrokerError(EngineError):
    """Raised if Kafka can't be reached, or refuses, and its client has given up retrying.

    The broker aborts the open transaction; the worker stops.
    """

    exit_code = ExitCode.KAFKA


class StoreError(EngineError):
    """Raised if Redis can't be reached, or refuses, for longer than `redis_wait_s`.

    Nothing is lost: the next start replays what was committed but not saved.
    """

    exit_code = ExitCode.REDIS


class StateError(EngineError):
    """Raised if log and store disagree and replay can't repair it: the worker refuses to start."""

    exit_code = ExitCode.STATES


class OffsetsResetError(StateError):
    """Raised if states are ahead of the committed offset (offsets reset, group deleted)."""


class HistoryMissingError(StateError):
    """Raised if the log no longer holds events that the states need."""


class OtherModelError(StateError):
    """Raised if another model made the last commit and `on_new_model` is `refuse`."""


class PartitionsChangedError(StateError):
    """Raised if the input topic's number of partitions has changed since states were written."""


class TopicReplacedError(StateError):
    """Raised if the input topic was deleted while the worker ran, even if it was recreated."""


class FencedError(EngineError):
    """Raised if another worker has taken over this one's transactions: stop, never retry."""

    exit_code = ExitCode.FENCED


class UnsavedError(EngineError):
    """Raised if a worker has stopped with unsaved states: nothing is lost, the next owner replays.

    All predictions of a burst are published nevertheless; Redis was unreachable or full.
    """

    exit_code = ExitCode.UNSAVED


class StoppedError(EngineError):
    """Raised if a worker was asked to stop while it waited: it stops, and nothing has failed."""

    exit_code = ExitCode.DONE


class DefectError(EngineError):
    """Raised instead of an unexpected exception, which is its cause.

    The message names the place of its traceback.
    """

    exit_code = ExitCode.DEFECT


class OutputError(EngineError):
    """Raised if a command can't write its output: disk full, or standard output closed."""

    exit_code = ExitCode.OUTPUT


class ReaderGoneError(EngineError):
    """Raised if the reader of a command's output has closed the pipe: it exits quietly."""

    exit_code = ExitCode.PIPE


class DecodeError(EngineError):
    """Raised for one invalid record; its batch continues without it.

    Args:
        reason: A code such as `not-json`, the same for all records with the same fault.
        detail: One sentence that names the fault.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
