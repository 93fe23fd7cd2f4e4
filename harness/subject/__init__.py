"""The checkpoint that is judged: read, never run."""
