"""Workers, Kafka and Redis under faults from a seed, and an independent judge at the end."""
