"""Which sub-layers matter: what removing each does, and what each does while it runs."""
