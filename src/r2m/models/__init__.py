"""Backbones, weights and checkpoint files."""
