"""What every model has to hold: its checks, their random data, and their report."""
