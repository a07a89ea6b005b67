"""Hostile input: a table of what is bad, what becomes of it, and the tests that run the table."""
