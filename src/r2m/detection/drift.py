"""Whether photographs are like those that a detector's thresholds were chosen on, by their logits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r2m.detection.detecting import Detection

LEVEL = 0.01
# With fewer files, or fewer reals of val, a test tells next to nothing.
LEAST = 20


@dataclass(frozen=True)
class Drift:
    """How logits of `files` differ from those of val's reals, by a two-sample Kolmogorov–Smirnov test.

    `statistic` is the greatest difference between the distribution functions, and `p_value` how probable one
    as great is by chance. `shift` is the difference of the medians in standard deviations of val's logits,
    positive where files look more fake. All three are NaN where there are too few logits to tell.
    """

    files: int
    reals: int
    statistic: float = float("nan")
    p_value: float = float("nan")
    shift: float = float("nan")

    @property
    def is_told(self) -> bool:
        """Whether there are enough logits to tell."""
        return min(self.files, self.reals) >= LEAST

    @property
    def is_found(self) -> bool:
        """Whether the files differ from val's reals."""
        return self.is_told and self.p_value < LEVEL


def drift(reals: NDArray[np.float64], logits: NDArray[np.float64]) -> Drift:
    """Compare `logits` (F,), one per file, with those of val's `reals` (R,)."""
    found = Drift(len(logits), len(reals))
    if not found.is_told:
        return found
    from scipy.stats import ks_2samp  # takes half a second, and few commands compare

    test = ks_2samp(logits, reals, method="asymp")  # the exact one fails for some numbers of logits
    spread = float(np.std(reals)) or float("nan")  # a detector that says the same of all
    shift = (float(np.median(logits)) - float(np.median(reals))) / spread
    return Drift(len(logits), len(reals), float(test.statistic), float(test.pvalue), shift)


def logit_of(detection: Detection) -> float:
    """Return the logit that stands for a file: of its largest face, in a video on the middle frame."""
    faces = detection.of(detection.numbers[0])
    return faces[len(faces) // 2].logit
