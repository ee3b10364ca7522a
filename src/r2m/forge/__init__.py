"""Classical forgeries: one pure function each, found by name in the registry."""
