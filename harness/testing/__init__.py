"""For people's own tests."""
