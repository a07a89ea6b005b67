"""Unexpected exceptions: one line for the user, and the traceback for the developer."""

from __future__ import annotations

import logging
import tempfile
import traceback

from livestep.pipeline.errors import DefectError

_log = logging.getLogger("livestep.defect")

#: Longest text of an exception that is shown.
_TEXT_CHARACTERS_MAX = 300


def reported_defect(error: BaseException) -> DefectError:
    """Write an exception's traceback to the log, or to a file where no log is set up.

    Returns:
        One line: what happened, and where the traceback is; with the exception as cause.
    """
    text = " ".join(str(error).split())
    if len(text) > _TEXT_CHARACTERS_MAX:
        text = text[:_TEXT_CHARACTERS_MAX] + "..."
    name = type(error).__name__
    what = f"{name}: {text}" if text else name
    defect = DefectError(f"a defect of Livestep: {what} ({_written_traceback(error)})")
    defect.__cause__ = error
    return defect


def _written_traceback(error: BaseException) -> str:
    """Write a traceback; return where it is."""
    if logging.getLogger().hasHandlers():
        _log.error("unexpected exception", exc_info=error)
        return "the log has the traceback"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="livestep-", suffix=".log", encoding="utf-8", delete=False
        ) as file:
            traceback.print_exception(error, file=file)
    except OSError:  # no folder can be written to
        traceback.print_exception(error)
        return "the traceback is above"
    return f"the traceback is in {file.name}"
