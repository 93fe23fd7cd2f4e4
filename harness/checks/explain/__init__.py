"""Which cause explains a difference."""
