"""The real checkpoint: fetched once, converted, kept."""
