"""How the pruned model should compute, without `pruning`."""
