"""Synchronized: a purchase in, whether the customer comes back within 90 days out.

The purchases of 23,570 customers of CDNOW, a music shop, from January 1997 to June 1998. An event
is one purchase; its label is what the customer really did in the 90 days after it. Purchases in the
last 90 days are streamed like all others, but have no label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from livestep.models.examples.base import (
    Answers,
    Example,
    ExampleEvent,
    Labels,
    Progress,
    TrainedExample,
    data_file,
    examined,
    first_keys,
    parted,
    right_share,
)
from livestep.models.examples.training import fit, fold_scale, label_loss, shuffled
from livestep.models.fields.field_types import Category, Number
from livestep.models.nets.cells import GRU
from livestep.models.seeding import one_thread, seeded
from livestep.models.sequences.rules import SequenceRules

#: Days within which a customer must come back.
BACK_DAYS = 90
ANSWERS = ("no", "yes")

#: Customers that are held out.
HELD_OUT_COUNT = 4_000

HIDDEN_SIZE = 24
EPOCHS, BATCH, RATE = 12, 256, 1e-2

#: Training uses this many first purchases of a customer; few have more.
LENGTH_MAX = 40

#: Typical size of each input; training divides by it.
SCALES = (60.0, 3.0, 50.0)

#: The baseline distinguishes customers by up to this many purchases.
BASELINE_COUNTS_MAX = 10

MS_PER_DAY = 86_400_000

INPUTS = (Number("days"), Number("cds"), Number("dollars"))
OUTPUTS = (Category("back", ANSWERS),)
RULES = SequenceRules("synchronized")


class Purchase(NamedTuple):
    """One purchase.

    Attributes:
        date_ms: Midnight (UTC) of its day, in milliseconds since 1970.
        event: `days` since the customer's previous purchase (0 at the first), `cds`, `dollars`.
        label: Whether the next one came within `BACK_DAYS`; None if the data end earlier.
    """

    date_ms: int
    event: dict[str, Any]
    label: str | None


@cache
def read_customers() -> dict[str, list[Purchase]]:
    """Read the purchases of each customer, in order.

    Returns:
        customers: 23,570 customers, by number.

    Raises:
        ModelError: If the file is missing.

    Source:
        Fader and Hardie 2001, "Forecasting repeat sales at CDNOW"; from the package
        lifetimes.
    """
    file = data_file("lifetimes", "datasets/CDNOW_master.txt", install="lifetimes")
    rows: dict[str, list[tuple[int, int, float]]] = {}
    for line in file.read_text(encoding="ascii").splitlines()[1:]:
        customer, date, cds, dollars = line.split()
        day = datetime.strptime(date, "%Y%m%d").replace(tzinfo=UTC).timestamp() / 86_400
        rows.setdefault(customer, []).append((int(day), int(cds), float(dollars)))
    last_day = max(day for of_customer in rows.values() for day, _, _ in of_customer)
    return {customer: _purchases(of_customer, last_day) for customer, of_customer in rows.items()}


def split() -> tuple[dict[str, list[Purchase]], dict[str, list[Purchase]]]:
    """Split the customers into those for training and `HELD_OUT_COUNT` others."""
    seen, held_out = parted(read_customers().items(), HELD_OUT_COUNT)
    return dict(seen), dict(held_out)


def train(seed: int = 0, on_progress: Progress | None = None) -> TrainedExample:
    """Train a GRU; about 15 seconds on one thread.

    Args:
        seed: Seed of weights and order.
        on_progress: Called with the progress.

    Returns:
        trained: Reports `accuracy`, and for comparison that of two rules, see `baselines`.

    Raises:
        ModelError: If the data are missing.
    """
    with one_thread():
        net = seeded(seed, lambda: GRU(len(INPUTS), HIDDEN_SIZE, len(ANSWERS)))
        _learn(net, seed, on_progress)
        trained = examined(net, (INPUTS, OUTPUTS), RULES, score, events())
        trained.report.update(baselines())
        return trained


def events(seed: int = 0, key_count: int | None = None) -> Iterator[ExampleEvent]:
    """Return the purchases of the held-out customers in the order of their dates.

    Args:
        seed: Not used: the data have their own order.
        key_count: Number of customers; all by default.

    Returns:
        events: `{"days": 18, "cds": 2, "dollars": 29.73}`, with the real time.
    """
    customers = first_keys(split()[1], key_count)
    bought = [
        ExampleEvent(_key(customer), purchase.date_ms, purchase.event)
        for customer, of_customer in customers.items()
        for purchase in of_customer
    ]
    # A stable sort: purchases of a customer on the same day keep their order.
    return iter(sorted(bought, key=lambda event: event.timestamp_ms or 0))


def labels() -> Labels:
    """Return for each purchase of a held-out customer whether the next one came in time."""
    return {
        _key(customer): [purchase.label for purchase in of_customer]
        for customer, of_customer in split()[1].items()
    }


def score(answers: Answers) -> dict[str, float]:
    """Return the share of right answers as `accuracy`."""
    return {"accuracy": right_share(answers, labels(), "back")}


def baselines() -> dict[str, float]:
    """Return the accuracy of two rules without a net, on the held-out customers.

    Returns:
        scores: `accuracy_by_count`: always the more frequent answer after the first, second, ...
            purchase; `accuracy_always`: always the more frequent answer.
    """
    known = [
        (min(count, BASELINE_COUNTS_MAX), purchase.label)
        for of_customer in split()[0].values()
        for count, purchase in enumerate(of_customer)
        if purchase.label is not None
    ]
    always = Counter(label for _, label in known).most_common(1)[0][0]
    by_count = {
        count: Counter(label for other, label in known if other == count).most_common(1)[0][0]
        for count in range(BASELINE_COUNTS_MAX + 1)
    }
    truth = [
        (min(count, BASELINE_COUNTS_MAX), purchase.label)
        for of_customer in split()[1].values()
        for count, purchase in enumerate(of_customer)
        if purchase.label is not None
    ]
    return {
        "accuracy_by_count": sum(by_count[count] == label for count, label in truth) / len(truth),
        "accuracy_always": sum(always == label for _, label in truth) / len(truth),
    }


def _purchases(rows: list[tuple[int, int, float]], last_day: int) -> list[Purchase]:
    """Turn a customer's days, CDs and dollars into events and labels."""
    purchases = []
    for index, (day, cds, dollars) in enumerate(rows):
        days = day - rows[index - 1][0] if index else 0
        is_back = index + 1 < len(rows) and rows[index + 1][0] - day <= BACK_DAYS
        label = ANSWERS[is_back] if last_day - day >= BACK_DAYS else None
        event = {"days": days, "cds": cds, "dollars": dollars}
        purchases.append(Purchase(day * MS_PER_DAY, event, label))
    return purchases


def _learn(net: GRU, seed: int, report: Progress | None) -> None:
    customers = [of_customer[:LENGTH_MAX] for of_customer in split()[0].values()]
    scales = torch.tensor(SCALES)
    sequence = pad_sequence(
        [torch.tensor([list(one.event.values()) for one in bought]) for bought in customers]
    )  # (L, n, 3)
    sequence /= scales
    answers = pad_sequence(
        [
            torch.tensor([-1 if one.label is None else ANSWERS.index(one.label) for one in bought])
            for bought in customers
        ],
        padding_value=-1,
    )  # (L, n)
    lengths = torch.tensor([len(bought) for bought in customers])

    def loss_of(rows: Tensor, generator: torch.Generator) -> Tensor:
        length = int(lengths[rows].max())
        return label_loss(net.unroll(sequence[:length, rows]), answers[:length, rows])

    batches = shuffled(len(customers), BATCH)
    fit(net, loss_of, batches, epochs=EPOCHS, rate=RATE, seed=seed, on_progress=report)
    fold_scale(net.recurrent, torch.zeros(len(SCALES)), scales)


def _key(customer: str) -> str:
    return f"customer-{customer}"


EXAMPLE = Example(
    data="lifetimes, CDNOW",
    train=train,
    events=events,
    labels=labels,
    score=score,
)
