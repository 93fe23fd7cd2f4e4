"""Stands in for transformers' tests of `generate`, which its source package does not hold."""


class GenerationTesterMixin:
    """No test; transformers' model tests ask whether a test class derives from it."""
