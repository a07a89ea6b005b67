"""What a checker raises."""

from __future__ import annotations


class CheckError(Exception):
    """Raised if something is not as it has to be.

    Args:
        check: Name of the check, as at the head of `checkers.py`.
        text: What was found.
    """

    def __init__(self, check: str, text: str) -> None:
        super().__init__(f"{check}: {text}")
        self.check = check
