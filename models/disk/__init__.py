"""A model directory: `model.json`, its weights or program, and how they are written and read."""
