"""How a net is rounded: the same in every batch, or in the fastest way for each batch."""

from typing import Literal

#: "exact": a row's result is the same to the last bit, whichever rows share its batch. "free": it
#: may differ in the last digits.
Rounding = Literal["exact", "free"]
