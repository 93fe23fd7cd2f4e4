"""`python -m prunecheck` is the command `prunecheck`."""

from harness.cli.main import main

main()
