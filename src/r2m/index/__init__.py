"""Data sets on disk as one table: what every image and video shows, where it lies, and which split it is in."""
