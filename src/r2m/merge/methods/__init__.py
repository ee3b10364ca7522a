"""Merging methods, one module each: pure functions on pieces of tensors, declared as `METHOD`."""
