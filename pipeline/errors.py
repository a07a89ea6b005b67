"""What can go wrong, by cause: each error says what the worker does then.

    EngineError
    ├── ConfigError            a setting, a flag or a topic that can't be right
    │   └── MissingTopicError      a topic isn't there
    ├── BrokerError            Kafka can't be reached or refuses
    ├── StoreError             Redis can't be reached or refuses
    ├── StateError             log and store disagree in a way that replay can't heal
    │   ├── OffsetsResetError      the store is ahead of the group's committed offset
    │   ├── HistoryMissingError    a replay needs events that the log no longer has
    │   ├── OtherModelError        the last commit was made by another model
    │   ├── PartitionsChangedError the topic has another number of partitions now
    │   └── TopicReplacedError     the topic was deleted, or created again, under the worker
    ├── FencedError            another worker has taken this one's place
    ├── UnsavedError           the worker has left, and states are not in Redis yet
    ├── StoppedError           the worker was told to stop while it waited
    ├── DefectError            an exception that nothing foresaw: a defect of ours
    ├── OutputError            a command can't write what it prints
    ├── ReaderGoneError        the reader of what a command prints has closed the pipe
    └── DecodeError            one record can't be used: it goes to the dead-letter topic

Errors of the client libraries are translated where they are called, and nowhere else.
"""

from __future__ import annotations

from livestep.pipeline.exit_codes import ExitCode


class EngineError(Exception):
    """Base of all; the command line prints it as one line and exits with `exit_code`."""

    exit_code = ExitCode.FOUND


class ConfigError(EngineError):
    """Raised at start, before anything is read: the worker does not start."""

    exit_code = ExitCode.SETTING


class MissingTopicError(ConfigError):
    """Raised if a topic isn't there."""


class BrokerError(EngineError):
    """Raised if Kafka can't be reached, or refuses, beyond what its client retries.

    The open transaction is aborted by the broker; the worker leaves.
    """

    exit_code = ExitCode.KAFKA


class StoreError(EngineError):
    """Raised if Redis can't be reached, or refuses, for longer than the wait that is set.

    Nothing is lost: what was committed and not saved is replayed at the next start.
    """

    exit_code = ExitCode.REDIS


class StateError(EngineError):
    """Raised if log and store disagree and no replay can heal it: the worker refuses to go on."""

    exit_code = ExitCode.STATES


class OffsetsResetError(StateError):
    """Raised if states have seen more than is committed (offsets reset, group deleted)."""


class HistoryMissingError(StateError):
    """Raised if the log no longer holds events that the states need."""


class OtherModelError(StateError):
    """Raised if another model made the last commit and no setting says how to take over."""


class PartitionsChangedError(StateError):
    """Raised if the input topic has another number of partitions than when states were written."""


class TopicReplacedError(StateError):
    """Raised if the input topic was deleted under the worker, also where it was created again."""


class FencedError(EngineError):
    """Raised if the broker has given this worker's place to another: leave, never retry."""

    exit_code = ExitCode.FENCED


class UnsavedError(EngineError):
    """Raised if a worker has left with states unsaved: nothing is lost, their next owner replays.

    A burst that ends so is done with its predictions; Redis was away, or full.
    """

    exit_code = ExitCode.UNSAVED


class StoppedError(EngineError):
    """Raised if a worker was told to stop while it waited: it leaves, and nothing has failed."""

    exit_code = ExitCode.DONE


class DefectError(EngineError):
    """Raised in place of an exception that nothing foresaw, which is its cause.

    Its traceback has been written where the message says.
    """

    exit_code = ExitCode.DEFECT


class OutputError(EngineError):
    """Raised if what a command prints can't be written: disk full, or standard output closed."""

    exit_code = ExitCode.OUTPUT


class ReaderGoneError(EngineError):
    """Raised if the reader of what a command prints has closed the pipe: it ends quietly."""

    exit_code = ExitCode.PIPE


class DecodeError(EngineError):
    """Raised for one record that can't be used; its batch goes on without it.

    Args:
        reason: A code such as `not-json`, the same for all records of a kind.
        detail: One sentence that names what was found.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
