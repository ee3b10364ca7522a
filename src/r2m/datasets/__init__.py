"""Data sets with an index: which of their images belong to which image set, and how they are taken in."""
