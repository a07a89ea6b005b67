"""Hidden states: the pool in memory, records with checksums, and the store in Redis."""
