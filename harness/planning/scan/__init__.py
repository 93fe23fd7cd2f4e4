"""What removing each sub-layer alone costs."""
