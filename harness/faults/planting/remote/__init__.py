"""Modeling code as a third party would write it; copied into foreign checkpoints, never imported from here."""
