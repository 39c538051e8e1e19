"""Fixtures and hooks of all tests, also of those of projects, are in `tests/harness.py`."""

pytest_plugins = ["harness"]
