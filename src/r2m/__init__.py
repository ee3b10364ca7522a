"""Real-aware Residual Model Merging (R²M) of deepfake specialists."""

__version__ = "0.1.0"
