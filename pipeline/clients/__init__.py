"""What a user's program holds: a publisher of events, readers of predictions and dead letters."""
