"""Tests that stock passes and ours need not, each with the reason."""

EXCEPTIONS: dict[str, str] = {}
