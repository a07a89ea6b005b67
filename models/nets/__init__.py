"""Nets that take weights from a model directory: cells, and nets that are made of them."""
