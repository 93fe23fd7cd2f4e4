"""What stands in for upstream's modules is not a test of ours."""

collect_ignore = ["stand_ins"]
