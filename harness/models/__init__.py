"""Running and looking into loaded models."""
