"""Figures of the default run, one module each, and the style that all figures share."""
