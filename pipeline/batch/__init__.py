"""One batch: records to arrays, through the model, to answers. Knows no Kafka and no Redis."""
