"""Clients for your own programs: publish events, read predictions and dead letters."""
