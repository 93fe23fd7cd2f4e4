"""The errors that the harness raises on purpose."""


class CannotRun(Exception):
    """The harness could not do its work for a reason outside the checkpoint; exit code 2."""


class NotChecked(Exception):
    """A check could not look, or had nothing to look at; the message is the reason."""


class Undecided(Exception):
    """A check looked, and what it saw decides nothing; the message is the reason.

    The verdict is then undecided, unless that is accepted with `allow_partial`.
    """
