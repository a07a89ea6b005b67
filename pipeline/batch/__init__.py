"""Processing of one batch: records, arrays, model, answers. Independent of Kafka and Redis."""
