"""Fields: the columns of inputs and outputs.

Does not load torch, so that clients can use it.

field_types.py    Number, Category, Text
encoding.py       events to arrays, and arrays to predictions
event_checks.py   the reason why an event is invalid
"""
