"""Examples on real data that packages carry, one for each shape of sequence.

    digits.py     one to one: a picture, which digit it is; once at a glance, once row by row
    names.py      one to many: a first letter, a name
    vowels.py     many to one: frames of a voice, who speaks
    spelling.py   encode, then decode: letters, phonemes
    purchases.py  synchronized: each purchase, whether the customer comes back
    example.py    what they have in common: data files, logs, answers offline
    training.py   the loop in which their nets learn

Each trains a small net in seconds, and gives held-out events to stream, with their labels kept
aside. `cook/` is the sixth, whose data never end.
"""

from models.examples import digits, names, purchases, spelling, vowels
from models.examples.example import (
    Answers,
    Example,
    ExampleEvent,
    Labels,
    TrainedExample,
    offline_answers,
)

#: All examples by the name that the command `livestep example` takes.
EXAMPLES: dict[str, Example] = {
    "digits": digits.PLAIN,
    "digits-rows": digits.BY_ROWS,
    "names": names.EXAMPLE,
    "vowels": vowels.EXAMPLE,
    "spelling": spelling.EXAMPLE,
    "purchases": purchases.EXAMPLE,
}

__all__ = [
    "EXAMPLES",
    "Answers",
    "Example",
    "ExampleEvent",
    "Labels",
    "TrainedExample",
    "offline_answers",
]
