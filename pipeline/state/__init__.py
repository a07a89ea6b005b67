"""Hidden states: a pool of them in memory, their bytes and checksums, and the store in Redis."""
