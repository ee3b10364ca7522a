"""The whole of `params.yaml`: its sections, what follows from them, and the checks across them."""

from r2m.params.reading import load, parse
from r2m.params.whole import Params

__all__ = ["Params", "load", "parse"]
