"""Act 4: five counts that have to be 0, and the measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from livestep.pipeline.audit.audit_report import AuditReport

#: The count whose row shows the largest difference.
UNROLL = "different from offline unroll"


def fault_counts(published: int, audit: AuditReport, wrong_dishes: int) -> dict[str, int]:
    """Return the five counts that have to be 0, by name."""
    # The story has no bad events: dead letters, and events missing in the topic, are lost.
    missing = max(0, published - audit.events)
    return {
        "lost": audit.lost + audit.dead_letters + missing,
        "repeated": audit.repeated,
        "out of order": audit.out_of_order,
        UNROLL: audit.different,
        "different from the rules": wrong_dishes,
    }


def draw(
    published: int,
    audit: AuditReport,
    counts: Mapping[str, int],
    measured: Sequence[tuple[str, str, str]],
) -> Table:
    """Draw counts and measurements (name, value, comment); at most 80 columns wide."""
    table = Table("", "", "", show_header=False)
    table.columns[1].justify = "right"
    table.add_row("events", f"{published:,}", f"of {audit.keys:,} flats")
    table.add_row("predictions", f"{audit.predictions:,}", end_section=True)
    for name, count in counts.items():
        note = f"at most by {audit.max_difference:.1e}" if name == UNROLL else ""
        table.add_row(name, f"{count:,}", note, style="red" if count else "green")
    table.add_section()
    for row in measured:
        table.add_row(*row)
    return table
