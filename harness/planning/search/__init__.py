"""Search for a plan."""
