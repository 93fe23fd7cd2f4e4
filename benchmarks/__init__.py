"""Benchmarks of our own figures: `tox -e bench`. Each is a ratio to a baseline that is measured in turn with it."""
