"""Reads what learners sent in, without trusting any of it."""
