"""The worker's cycle: poll, pack, load, step, commit, save; and takeover, recovery and status."""
