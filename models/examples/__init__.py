"""Examples on real data that packages carry, one for each shape of sequence.

    digits.py     one to one: a picture, which digit it is; once at a glance, once row by row
    names.py      one to many: a first letter, a name
    vowels.py     many to one: frames of a voice, who speaks
    spelling.py   encode, then decode: letters, phonemes
    purchases.py  synchronized: each purchase, whether the customer comes back
    example.py    what they have in common: data files, logs, answers offline
    training.py   the loop in which their nets learn
    catalogue.py  all of them by their names

Each trains a small net in seconds, and gives held-out events to stream, with their labels kept
aside. `cook/` is the sixth, whose data never end.
"""

from typing import TYPE_CHECKING

from livestep.models.lazy_names import lazy_names

if TYPE_CHECKING:
    from livestep.models.examples.base import (
        Answers,
        Example,
        ExampleEvent,
        Labels,
        TrainedExample,
        offline_answers,
    )
    from livestep.models.examples.catalogue import EXAMPLES
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "livestep.models.examples.catalogue": ("EXAMPLES",),
            "livestep.models.examples.base": (
                "Answers",
                "Example",
                "ExampleEvent",
                "Labels",
                "TrainedExample",
                "offline_answers",
            ),
        },
    )

#: One line for each example: what goes in, what comes out. Here, since help needs no torch.
SUMMARIES: dict[str, str] = {
    "digits": "one to one: a picture of 64 pixels in, which digit it shows out",
    "digits-rows": "one to one: the same pictures, worked through in eight glimpses, a row each",
    "names": "one to many: a gender and a first letter in, a name out",
    "vowels": "many to one: frames of a voice until the end, which of nine men speaks out",
    "spelling": "encode, then decode: a word letter by letter in, its phonemes out",
    "purchases": "synchronized: a purchase in, whether the customer is back within 90 days out",
}

__all__ = [
    "EXAMPLES",
    "SUMMARIES",
    "Answers",
    "Example",
    "ExampleEvent",
    "Labels",
    "TrainedExample",
    "offline_answers",
]
