"""An independent check of an output topic: every event answered once, in order, as offline.

It shares no code with the engine: it reads the topics, unrolls the model itself, and compares.
"""
