"""Experiments on finished specialists: many settings merged and scored in memory, one module each."""
