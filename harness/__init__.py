"""Judge pruned checkpoints: references, tolerances, strategies, the demo. Imports `pruning`, never the reverse."""
