"""`EXAMPLES`: all examples by name."""

from livestep.models.examples import digits, names, purchases, spelling, vowels
from livestep.models.examples.base import Example

#: All examples by the name for `livestep example`.
EXAMPLES: dict[str, Example] = {
    "digits": digits.PLAIN,
    "digits-rows": digits.BY_ROWS,
    "names": names.EXAMPLE,
    "vowels": vowels.EXAMPLE,
    "spelling": spelling.EXAMPLE,
    "purchases": purchases.EXAMPLE,
}
