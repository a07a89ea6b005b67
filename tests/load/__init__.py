"""Overload and endurance, measured: `python -m tests.load --help`."""
