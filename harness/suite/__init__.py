"""The conformance suite: `pytest --pyargs harness.suite --pruned CHECKPOINT --base SOURCE`."""
