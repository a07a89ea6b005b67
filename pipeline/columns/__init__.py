"""Records as columns, from poll to send: arrays, and columns of bytes; no object per record.

What runs once per record is native if it can be (`pipeline.native`), and has a twin in Python here.
The twin defines what is right: the same tests run on both.
"""
