"""How events form sequences, and what is answered.

Generating and answering are written here for one key at a time, as the reference.

rules.py          SequenceRules: the shape of sequence, feedback, generation, session gaps
blocks.py         steps in blocks of fixed shape: a row's result is equal bit for bit
block_sizes.py    the sizes of those blocks
random_rows.py    random inputs of some fields, to measure those blocks
feedback.py       FedBack: a model whose outputs are part of its next inputs
forcing.py        train a FedBack: teacher forcing, free running
generation.py     generate one sequence, step by step
offline.py        the answers to a log, computed offline: the reference for every stream
offline_json.py   the same for events as JSON objects
session_gaps.py   which sequences a session gap ends, and where
"""
