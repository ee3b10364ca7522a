"""Placeholder until the parts are joined."""

from r2m.params import Params as CoreParams

__all__ = ["CoreParams"]
