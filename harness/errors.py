"""The errors that the harness raises on purpose."""


class CannotRun(Exception):
    """The harness could not do its work for a reason outside the checkpoint; exit code 2."""
