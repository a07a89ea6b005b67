"""`make demo`: the room-mate's story on real Kafka and Redis, with workers that come and go."""
