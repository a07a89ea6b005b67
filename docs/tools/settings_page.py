"""Writes the table of all settings to `docs/settings.md`, from `Settings` itself.

python -m docs.tools.settings_page
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from livestep.pipeline.settings import Settings

PAGE = Path(__file__).parents[1] / "settings.md"

#: The table is between these two lines.
BEGIN, END = "<!-- settings -->", "<!-- /settings -->"

#: Unit of a setting by the end of its name; a name without one has no unit.
UNITS = {
    "_ms": "ms",
    "_s": "s",
    "_bytes_max": "bytes",
    "_events_max": "events",
    "_batches_max": "batches",
    "_slots": "states",
    "_threads": "threads",
}

#: Defaults that follow from other settings, as `Settings` computes them, and required ones.
DERIVED = {
    "model": "required",
    "input_topic": "required",
    "output_topic": "required",
    "dead_letter_topic": "`<input-topic>.dead-letter`",
    "group": "`livestep.<output-topic>`",
    "worker_id": "host name and the lowest free number",
}


def page(old: str) -> str:
    """Return the page with a new table.

    Args:
        old: The page as it is.

    Raises:
        ValueError: If the page lacks one of the markers.
    """
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no {BEGIN} or no {END}")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def table() -> str:
    """Return a Markdown table with one row per setting, in the order of `Settings`."""
    lines = [
        "| flag | variable | unit | default | limits | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for item in dataclasses.fields(Settings):
        if item.name == "kafka_options":
            continue
        has_flag = item.metadata["has_flag"]
        flag = f"`--{item.name.replace('_', '-')}`" if has_flag else "variable only"
        cells = [
            flag,
            f"`LIVESTEP_{item.name.upper()}`",
            _unit(item.name),
            _default(item),
            _limits(item),
            _meaning(item),
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _unit(name: str) -> str:
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")


def _default(item: dataclasses.Field[object]) -> str:
    if item.name in DERIVED:
        return DERIVED[item.name]
    if item.default == "":
        return "none"
    if isinstance(item.default, bool):
        return "on" if item.default else "off"
    if isinstance(item.default, (int, float)):
        return f"{item.default:,g}" if isinstance(item.default, float) else f"{item.default:,}"
    return f"`{item.default}`"


def _limits(item: dataclasses.Field[object]) -> str:
    limits = item.metadata
    if limits["choices"]:
        return ", ".join(f"`{choice}`" for choice in limits["choices"])
    if limits["at_least"] is not None:
        return f"{limits['at_least']:,g} to {_plain(limits['at_most'])}"
    return ""


def _plain(number: float) -> str:
    return f"{int(number):,}" if number == int(number) else f"{number:,}"


def _meaning(item: dataclasses.Field[object]) -> str:
    # The default has a column of its own.
    text: str = re.sub(r"\s*\[default: [^\]]*\]", "", item.metadata["help"])
    return re.sub(r"(LIVESTEP_[A-Z_]+|<[a-z-]+>)", r"`\1`", text)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
