"""What pruning saves, measured: disk, loading, memory and inference of a pruned checkpoint against its base."""
