"""Tuning methods, one module each, declared as `METHOD`."""
