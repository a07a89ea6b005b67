"""The commands of `livestep` that need no worker: publish, predictions, dead-letters, topics."""
