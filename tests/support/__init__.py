"""What tests share: models, records, events, and ways to wait and to judge."""
