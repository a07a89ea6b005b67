"""A deterministic simulator: the real cycle over log and store in memory, with faults from a seed.

README.md says what it does, and how to run it.
"""
