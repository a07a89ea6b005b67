"""Tests: the tour (read it first), unit, services (real Kafka and Redis), bench."""
