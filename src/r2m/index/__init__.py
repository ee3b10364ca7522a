"""Data sets on disk as one table of images and videos: what they show, where they lie, in which split."""
