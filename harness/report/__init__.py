"""The record of a judgement, its views, and the comparison of two."""
