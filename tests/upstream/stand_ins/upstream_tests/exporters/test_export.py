"""Stands in for transformers' tests of its exporters, which its source package does not hold."""


class ExportTesterMixin:
    """No test; the mixin of transformers' model tests derives from it."""
