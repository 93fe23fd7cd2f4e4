"""Checks of what the checkpoint directory holds."""
