"""What a merge looks at in every tensor, and which specialists stand out from the others.

Logarithms of norms and of cosines are compared with their median by the modified z-score of Iglewicz and
Hoaglin ("How to Detect and Handle Outliers", 1993, section 3), which a few bad specialists do not move.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor

from r2m.merge.stream import Piece

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


# Of two specialists, the longer is warned of at this many times the other's norm.
NORM_FACTOR = 10.0
# Fine-tuning moves weights by a few per cent of their norm.
BASE_SHARE = 0.5

NO_RESIDUAL = "no residual is left of any specialist: the merge is the Real component alone"
NO_UPDATE = "nothing is left of the task vectors: the merged weights are the base's"


@dataclass(frozen=True)
class Survey:
    """Sums over entries: `base` ‖θ₀‖², `squares` ‖τ_k‖² (K,) and `along` ⟨τ_k, Σ τ⟩ (K,), in float64.

    `changes` tells whether any entry of a task vector is not zero, also where its square is.
    """

    base: float
    squares: Tensor
    along: Tensor
    changes: bool = True

    @property
    def is_finite(self) -> bool:
        """Whether no entry of base or specialists is NaN or infinite."""
        return math.isfinite(self.base) and bool(self.squares.isfinite().all())

    def norms(self) -> list[float]:
        """Return ‖τ_k‖."""
        return self.squares.sqrt().tolist()

    def cosines(self) -> list[float | None]:
        """Return each task vector's cosine with the sum of the others; None where either is zero."""
        others = self.along - self.squares
        total = self.along.sum()
        lengths = (total - 2 * self.along + self.squares).clamp(min=0).sqrt() * self.squares.sqrt()
        return [
            one / length if length > 1e-12 * float(total.abs()) else None
            for one, length in zip(others.tolist(), lengths.tolist(), strict=True)
        ]

    def diagnoses(self) -> list[Diagnosis]:
        """Return how far each specialist's norm and direction are from the others'."""
        return diagnose(self.norms(), self.cosines())


@dataclass(frozen=True)
class Comparison:
    """The specialists beside each other, those with equal weights as one.

    `distinct` are the first by name of each set of equals, which `survey` is of, and `places` tells which of
    them stands for every specialist.
    """

    names: tuple[str, ...]
    places: tuple[int, ...]
    survey: Survey

    @property
    def distinct(self) -> tuple[str, ...]:
        """Names of the specialists that stand for themselves."""
        return tuple(self.names[self.places.index(place)] for place in range(len(set(self.places))))

    def norms(self) -> list[float]:
        """Return ‖τ_k‖ of every specialist."""
        found = self.survey.norms()
        return [found[place] for place in self.places]

    def cosines(self) -> list[float | None]:
        """Return each specialist's cosine with the sum of the others that are not its equals."""
        found = self.survey.cosines()
        return [found[place] for place in self.places]

    def diagnoses(self) -> list[Diagnosis]:
        """Return how far each specialist is from those that are not its equals."""
        found = self.survey.diagnoses()
        return [found[place] for place in self.places]

    def warnings(self) -> list[str]:
        """Return a warning for every set of equals, and those of `warnings` for the others."""
        equals = [
            [name for name, at in zip(self.names, self.places, strict=True) if at == place]
            for place in range(len(set(self.places)))
        ]
        texts = [
            f"{', '.join(some[:-1])} and {some[-1]} are the same: their weights are equal, and count"
            f" {len(some)} times"
            for some in equals
            if len(some) > 1
        ]
        return texts + warnings(self.distinct, self.survey)


def compare(
    names: tuple[str, ...],
    whole: Survey,
    are_equal: Callable[[int, int], bool],
    gram: Callable[[], Tensor],
) -> Comparison:
    """Return the specialists beside each other, from the sums over all their tensors.

    `are_equal(i, j)` tells whether two have equal weights, and `gram` gives the inner products (K, K) of all
    task vectors, which are asked for only where some have. Task vectors of zero stand for themselves.
    """
    firsts: list[int] = []
    places = []
    for index, square in enumerate(whole.squares.tolist()):
        same = (at for at, first in enumerate(firsts) if square > 0 and are_equal(first, index))
        place = next(same, len(firsts))
        if place == len(firsts):
            firsts.append(index)
        places.append(place)
    if len(firsts) < len(names):
        products = gram()[firsts][:, firsts]
        whole = Survey(whole.base, products.diagonal(), products.sum(1))
    return Comparison(names, tuple(places), whole)


def survey(piece: Piece) -> Survey:
    """Return the sums of one piece."""
    task_vectors = piece.task_vectors().reshape(len(piece.names), -1)
    base = piece.base().reshape(-1)
    squares = torch.linalg.vector_norm(task_vectors, dim=1).double().square()
    base_square = torch.linalg.vector_norm(base).double().item() ** 2
    along = (task_vectors @ piece.weighted_sum(1.0).reshape(-1)).double()
    if not (squares.isfinite().all() and math.isfinite(base_square)):
        # Finite weights whose squares overflow float32 are no reason to refuse.
        squares = torch.linalg.vector_norm(task_vectors.double(), dim=1).square()
        base_square = torch.linalg.vector_norm(base.double()).item() ** 2
        along = task_vectors.double() @ task_vectors.double().sum(0)
    changes = bool(squares.any()) or bool(task_vectors.any())
    return Survey(base_square, squares.cpu(), along.cpu(), changes)


def is_finite(tensor: Tensor) -> bool:
    """Tell whether no entry is NaN or infinite; the norm, which is read faster, settles nearly all cases."""
    norm = torch.linalg.vector_norm(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32))
    return bool(norm.isfinite()) or bool(tensor.isfinite().all())


def total(surveys: Sequence[Survey], count: int) -> Survey:
    """Return the sums of several pieces of `count` specialists together."""
    none = torch.zeros(0, count, dtype=torch.float64)
    return Survey(
        math.fsum(one.base for one in surveys),
        torch.cat([none, *(one.squares[None] for one in surveys)]).sum(0),
        torch.cat([none, *(one.along[None] for one in surveys)]).sum(0),
        any(one.changes for one in surveys),
    )


def warnings(names: Sequence[str], whole: Survey) -> list[str]:
    """Return what looks wrong with specialists: nothing changed, or changed unlike the others."""
    norms, cosines = whole.norms(), whole.cosines()
    length = math.sqrt(whole.base)
    texts = [
        f"{name}: equal to the base, its task vector is zero"
        for name, norm in zip(names, norms, strict=True)
        if norm == 0
    ]
    some = [norm for norm in norms if norm > 0]
    for name, norm, cosine, found in zip(names, norms, cosines, whole.diagnoses(), strict=True):
        is_foreign = length > 0 and norm > BASE_SHARE * length
        if is_foreign:
            texts.append(
                f"{name}: its task vector has {norm / length:.2g} times the norm of the base;"
                " was it made from another base?"
            )
        if found.norm_stands_out:
            texts.append(
                f"{name}: its task vector is {norm / median(some):.2g} times as long as the median"
                f" specialist's ({_beyond(found.norm_z)})"
            )
        elif not is_foreign and len(some) < FEWEST and norm > NORM_FACTOR * min(some, default=math.inf):
            texts.append(f"{name}: its task vector is {norm / min(some):.0f} times as long as the other's")
        if found.cosine_stands_out and cosine is not None:
            middle = median(one for one in cosines if one is not None)
            texts.append(
                f"{name}: its task vector has the cosine {cosine:.2g} with the others' sum, the median"
                f" specialist {middle:.2g} ({_beyond(found.cosine_z)})"
            )
    return texts


def running_warning(keys: Sequence[str]) -> str:
    """Return a warning about batch normalisation's running statistics in a merged model."""
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return (
        f"running statistics ({keys[0]}{more}) are averaged, whatever the method; recompute them by running"
        " the merged model on data in training mode"
    )


def _beyond(score: float | None) -> str:
    return f"robust z-score {score:.1f}, threshold {THRESHOLD}"
