"""What the columns of inputs and outputs mean, and events to arrays and back. Needs no torch."""
