"""The rights that `deploy/security/redis-acl.conf` lists."""

from __future__ import annotations

import re
from pathlib import Path

ACL_FILE = Path(__file__).parents[2] / "deploy" / "security" / "redis-acl.conf"


def needed(section: str = "") -> list[str]:
    """Read a rule, word by word: of the user line, or of the comments of a section.

    Args:
        section: `cluster` or `sentinel`: what else is needed.
    """
    text = ACL_FILE.read_text(encoding="utf-8")
    if section:
        return re.findall(rf"^# {section} (\+\S+)", text, re.MULTILINE)
    (rule,) = re.findall(r"^user livestep on (.*)$", text, re.MULTILINE)
    return str(rule).split()


def explained() -> list[str]:
    """Read the commands of a worker that have a comment."""
    return re.findall(r"^# (\+\S+)", ACL_FILE.read_text(encoding="utf-8"), re.MULTILINE)
