"""Measure a model with sub-layers taken out, one after another."""
