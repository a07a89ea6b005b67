"""Examples on real data, one for each shape of sequence; the data come with Python packages.

    digits.py     one to one: a picture in, its digit out; all at once, or row by row
    names.py      one to many: a first letter in, a name out
    vowels.py     many to one: frames of a voice in, the speaker out
    spelling.py   encode, then decode: letters in, phonemes out
    purchases.py  synchronized: a purchase in, whether the customer comes back out
    base.py       what they share: data files, event logs, offline answers, scores
    training.py   their training loop
    catalogue.py  EXAMPLES: all of them by name

Each trains a small net in a minute or less, and supplies held-out events to stream, with their
labels. `cook/` is the example of the demo.
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

#: One line per example: what goes in, what comes out. Here, so that help needs no torch.
SUMMARIES: dict[str, str] = {
    "digits": "one to one: a picture of 64 pixels in, its digit out",
    "digits-rows": "one to one: the same pictures, read row by row in eight glimpses",
    "names": "one to many: a gender and a first letter in, a name out",
    "vowels": "many to one: the frames of a voice in, which of nine men speaks out",
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
