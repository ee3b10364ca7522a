"""Merging of specialists in weight space: task vectors, R²M and the methods it is compared with."""
