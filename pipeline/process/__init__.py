"""A worker as a process: how it stops, its name, its standard streams, and reports of defects."""
