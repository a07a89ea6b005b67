"""`make demo`: the cook example live on real Kafka and Redis, with workers that come and go."""
