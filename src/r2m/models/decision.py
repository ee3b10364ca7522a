"""How a detector's logits become probabilities and decisions."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict
from scipy.special import expit


class OperatingPoint(BaseModel):
    """A `threshold` of probability that called the share `fpr` of val's reals fake, at most."""

    model_config = ConfigDict(frozen=True)

    fpr: float
    threshold: float


class Decision(BaseModel):
    """What was fitted on val, so that logits tell something: the defaults are those of a bare head.

    The probability of being fake is sigmoid(`slope` · logit + `offset`) (Platt scaling), where reals and
    fakes are equally frequent. `threshold` is the probability that tells them apart best. Between the
    thresholds of the greatest and the least false positive rate of `operating_points` a detector is unsure.
    """

    model_config = ConfigDict(frozen=True)

    slope: float = 1.0
    offset: float = 0.0
    threshold: float = 0.5
    operating_points: tuple[OperatingPoint, ...] = ()

    def probabilities(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities (…) of being fake of logits (…)."""
        return expit(self.slope * np.asarray(logits, np.float64) + self.offset)

    def call(self, probability: float) -> str:
        """Return `fake`, `real`, or `unsure` between the operating points; without those by the threshold."""
        cuts = [point.threshold for point in self.operating_points] or [self.threshold]
        if probability >= max(cuts):
            return "fake"
        return "unsure" if probability >= min(cuts) else "real"


def is_fitted(decision: Decision) -> bool:
    """Whether anything of it was fitted on val; a bare head, as of a merge alone, has the defaults."""
    return any(getattr(decision, name) != field.default for name, field in Decision.model_fields.items())
