"""Validation of an index: counts, files that are gone or damaged, duplicates, leaks between splits."""
