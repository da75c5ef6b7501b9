"""What tests in a real browser share."""

SLOW = 120_000
"""Milliseconds that a page may take on a busy machine."""
