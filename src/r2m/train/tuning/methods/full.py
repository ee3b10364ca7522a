"""Full tuning: every parameter of the part that is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from r2m.train.tuning.method import Method, Wrapping
from r2m.train.tuning.options import TuningOptions

if TYPE_CHECKING:
    from r2m.models.backbone import Detector


class Options(TuningOptions):
    """All parameters."""


def wrap(detector: Detector, options: Options, seed: int) -> Wrapping:
    """Leave everything as it is."""
    return Wrapping()


METHOD = Method(title="All parameters", citation="-", options=Options, wrap=wrap)
