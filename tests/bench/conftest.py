"""Keeps pytest out of the peers: their libraries are in an environment of their own."""

collect_ignore = ["peers"]
