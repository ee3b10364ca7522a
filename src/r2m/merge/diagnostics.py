"""Which specialists stand out from the others, by the norm and the direction of their task vectors.

Logarithms of norms and of cosines are compared with their median by the modified z-score of Iglewicz and
Hoaglin ("How to Detect and Handle Outliers", 1993, section 3), which a few bad specialists do not move.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Iglewicz and Hoaglin's threshold.
THRESHOLD = 3.5
# Least spread that counts, in log units: few specialists can agree by chance. So a norm has to be 2.4 times
# the median's or less than 1/2.4 of it, a cosine less than a quarter. In simulations of 3 to 40 honest
# specialists, a set had a false alarm of the norm in under 0.1 % of cases where norms vary by 20 % (1 to 5 %
# at 30 %), and one of the cosine in under 0.2 % where its logarithm varies by 0.35.
NORM_SPREAD = 0.25
COSINE_SPREAD = 0.4
# Cosines below count as this one, so that specialists which share nothing do not stand out by how little.
LEAST_COSINE = 0.01
# Of two, nobody can say which is the odd one.
FEWEST = 3


@dataclass(frozen=True)
class Diagnosis:
    """Modified z-scores of one specialist's norm and cosine; None where there is nothing to compare with."""

    norm_z: float | None = None
    cosine_z: float | None = None

    @property
    def norm_stands_out(self) -> bool:
        """Whether the task vector is much longer or shorter than the others."""
        return self.norm_z is not None and abs(self.norm_z) > THRESHOLD

    @property
    def cosine_stands_out(self) -> bool:
        """Whether the task vector points away from the others much more than they do from each other."""
        return self.cosine_z is not None and self.cosine_z < -THRESHOLD

    @property
    def stands_out(self) -> bool:
        """Whether either measure stands out."""
        return self.norm_stands_out or self.cosine_stands_out


def diagnose(norms: Sequence[float], cosines: Sequence[float | None]) -> list[Diagnosis]:
    """Return the diagnoses of K specialists from norms ‖τ_k‖ and cosines of τ_k to Σ_{j≠k} τ_j.

    Task vectors of zero and cosines that are None are left out. Where fewer than `FEWEST` are left, no
    z-score is given.
    """
    lengths = [norm if norm > 0 else None for norm in norms]
    directions = [None if one is None else max(one, LEAST_COSINE) for one in cosines]
    return [
        Diagnosis(*pair)
        for pair in zip(_scores(lengths, NORM_SPREAD), _scores(directions, COSINE_SPREAD), strict=True)
    ]


def _scores(values: Sequence[float | None], least_spread: float) -> list[float | None]:
    """Return modified z-scores of the logarithms of positive values; None for None."""
    known = np.array([value for value in values if value is not None], dtype=float)
    if len(known) < FEWEST:
        return [None] * len(values)
    logs = np.log(known)
    deviations = logs - np.median(logs)
    # 1.4826 makes the median deviation of normal numbers their standard deviation.
    scores = iter((deviations / max(1.4826 * np.median(np.abs(deviations)), least_spread)).tolist())
    return [None if value is None else next(scores) for value in values]
