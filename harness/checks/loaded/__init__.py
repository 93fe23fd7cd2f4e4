"""Checks of the loaded model."""
