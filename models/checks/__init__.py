"""The rules that every model must keep, as checks on random events, and their report.

check_model.py       check_model: runs all checks and raises at the first broken rule
check_report.py      runs all checks as a table, with the model's speed
check_list.py        the checks in order, with advice for a failure
contract_checks.py   one function per rule of StepModel
look_ahead.py        the rule that no output may depend on later events
agreement.py         TOLERANCE, and comparisons within it
random_events.py     random inputs, sequences and states
packed_sequences.py  ragged sequences, packed and unpacked
"""
