"""Hostile input: a table of what is bad, what happens to it, and the tests that run the table."""
