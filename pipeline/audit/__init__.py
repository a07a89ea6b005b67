"""`livestep audit`: checks that every event has its answers, once, in order, equal to offline.

It shares no code with the engine: it reads the topics, unrolls the model itself, and compares.
"""
