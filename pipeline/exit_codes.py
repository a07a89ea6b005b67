"""The exit codes of the command line: what each means, and which a command can end with."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Why a command has ended; `MEANINGS` has the sentences."""

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
    ExitCode.FOUND: "a check found something, or publish left rows out",
    ExitCode.USAGE: "wrong usage, or the command needs `livestep[worker]`",
    ExitCode.SETTING: "a setting or a topic is wrong",
    ExitCode.KAFKA: "Kafka can't be reached or refuses",
    ExitCode.REDIS: "Redis can't be reached or refuses",
    ExitCode.MODEL: "the model can't be used",
    ExitCode.STATES: "log and states disagree, and the operator has to decide",
    ExitCode.FENCED: "fenced: another worker has taken this one's place",
    ExitCode.DEFECT: "a defect of Livestep: the log has the details",
    ExitCode.UNSAVED: "done, but states were left unsaved: the next worker replays them",
    ExitCode.OUTPUT: "the output could not be written: disk full, or standard output closed",
    ExitCode.HANGUP: "ended by SIGHUP",
    ExitCode.INTERRUPT: "ended by SIGINT (Ctrl-C)",
    ExitCode.PIPE: "the reader of the output has gone (SIGPIPE)",
    ExitCode.TERMINATED: "ended by SIGTERM",
}

#: What every command can end with.
_ALWAYS = (ExitCode.DONE, ExitCode.USAGE, ExitCode.DEFECT, ExitCode.OUTPUT, ExitCode.PIPE)


def exit_codes_help(*codes: ExitCode) -> str:
    """Write the end of a command's help.

    Args:
        codes: What it can end with, besides what every command can.

    Example:
        >>> exit_codes_help(ExitCode.KAFKA).splitlines()[1:3]
        ['Exit codes:', '  0    done']
    """
    chosen = sorted({*_ALWAYS, *codes})
    # Click wraps the lines of a paragraph unless it begins with a backspace.
    return "\b\nExit codes:\n" + "\n".join(f"  {code:<4d} {MEANINGS[code]}" for code in chosen)
