"""Errors of models and of events: what is wrong, and where.

    ValueError
    ├── ModelError   a model, one of its fields, or the device for it can't be used
    └── FieldError   one event doesn't fit the fields of a model

Both are ValueErrors, so that a caller may catch them without importing either.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

#: Codes for an invalid event; dead letters carry them as text in a header.
FieldReason = Literal[
    "not-an-object",
    "missing-feature",
    "unknown-feature",
    "wrong-kind",
    "wrong-length",
    "unknown-category",
    "unknown-character",
    "text-too-long",
    "not-finite",
]


class ModelError(ValueError):
    """Raised if a model can't be described, saved, loaded, or moved to its device.

    Attributes:
        problem: What is wrong, as a sentence without a period.
        file: The file that is invalid, if any.
        field: The invalid member of `model.json`, tensor, or setting.
        expected: What should be there.
        found: What is there.

    Example:
        >>> print(ModelError("wrong shape", field="head.weight", expected=(9, 64), found=(9, 32)))
        head.weight: wrong shape (expected (9, 64), found (9, 32))
    """

    def __init__(
        self,
        problem: str,
        *,
        file: Path | None = None,
        field: str | None = None,
        expected: object = None,
        found: object = None,
    ) -> None:
        """Keep the parts and join them in one line."""
        self.problem = problem
        self.file = file
        self.field = field
        self.expected = expected
        self.found = found
        place = [str(part) for part in (file, field) if part is not None]
        comparison = [
            f"{word} {value}"
            for word, value in (("expected", expected), ("found", found))
            if value is not None
        ]
        message = ": ".join([*place, problem])
        super().__init__(f"{message} ({', '.join(comparison)})" if comparison else message)

    def in_file(self, file: Path | None) -> ModelError:
        """Return the same error with the file in which it was found."""
        return ModelError(
            self.problem, file=file, field=self.field, expected=self.expected, found=self.found
        )


class FieldError(ValueError):
    """Raised if an event doesn't fit the fields of a model; no event of the call was encoded.

    Attributes:
        reason: One of the codes in `FieldReason`.
        detail: A sentence for users: the field, what was expected, what was found.
        event_index: Position of the first invalid event in the call.

    Example:
        >>> error = FieldError("missing-feature", "feature 'weather' is missing", event_index=3)
        >>> print(error.reason, "|", error)
        missing-feature | event 3: feature 'weather' is missing
    """

    def __init__(self, reason: FieldReason, detail: str, event_index: int = 0) -> None:
        """Keep the parts; the message names the event."""
        self.reason: FieldReason = reason
        self.detail = detail
        self.event_index = event_index
        super().__init__(f"event {event_index}: {detail}")
