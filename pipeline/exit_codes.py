"""The exit codes of the command line: what they mean, and which ones each command uses."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Why a command has ended; see `MEANINGS`."""

    DONE = 0
    FOUND = 1
    USAGE = 2
    SETTING = 3
    KAFKA = 4
    REDIS = 5
    MODEL = 6
    STATES = 7
    FENCED = 8
    DEFECT = 9
    UNSAVED = 10
    OUTPUT = 11
    HANGUP = 129
    INTERRUPT = 130
    PIPE = 141
    TERMINATED = 143


#: The table in docs/guarantees.md and in each command's help.
MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.FOUND: "check or audit found a fault, or publish left rows out",
    ExitCode.USAGE: "wrong usage, or the command needs `livestep[worker]`",
    ExitCode.SETTING: "a setting or topic is wrong",
    ExitCode.KAFKA: "Kafka can't be reached or refuses",
    ExitCode.REDIS: "Redis can't be reached or refuses",
    ExitCode.MODEL: "the model can't be used",
    ExitCode.STATES: "log and states disagree; the operator must decide",
    ExitCode.FENCED: "fenced: another worker has taken over",
    ExitCode.DEFECT: "a bug in Livestep: the log has the details",
    ExitCode.UNSAVED: "done, but states are not saved: the next worker replays them",
    ExitCode.OUTPUT: "can't write the output: disk full, or standard output closed",
    ExitCode.HANGUP: "ended by SIGHUP",
    ExitCode.INTERRUPT: "ended by SIGINT (Ctrl-C)",
    ExitCode.PIPE: "the reader of the output has exited (SIGPIPE)",
    ExitCode.TERMINATED: "ended by SIGTERM",
}

#: Codes that every command can exit with.
_ALWAYS = (ExitCode.DONE, ExitCode.USAGE, ExitCode.DEFECT, ExitCode.OUTPUT, ExitCode.PIPE)


def exit_codes_help(*codes: ExitCode) -> str:
    """Return the table of exit codes for the end of a command's help.

    Args:
        codes: Codes that it can exit with, in addition to those of every command.

    Example:
        >>> exit_codes_help(ExitCode.KAFKA).splitlines()[1:3]
        ['Exit codes:', '  0    done']
    """
    chosen = sorted({*_ALWAYS, *codes})
    # Click rewraps a paragraph unless it starts with a backspace.
    return "\b\nExit codes:\n" + "\n".join(f"  {code:<4d} {MEANINGS[code]}" for code in chosen)
