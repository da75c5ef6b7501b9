"""What tests in a real browser share."""

from playwright.sync_api import expect

SLOW = 120_000
"""Milliseconds that a page may take on a busy machine."""

expect.set_options(timeout=SLOW)
