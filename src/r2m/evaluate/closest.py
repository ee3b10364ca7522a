"""Which specialist responds most to a fake, and how often that is the one that was trained on its like.

Every specialist's logits are calibrated on val of its own generators, as in its checkpoint, which is what
`r2m detect --specialists` has.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2m.evaluate.bootstrap import interval, resample
from r2m.evaluate.evaluation import Evaluation, Scores, logits_of_val
from r2m.evaluate.protocols import IN_DISTRIBUTION, UNSEEN_GENERATOR, EvaluationContext
from r2m.evaluate.score_matrix import SetRows, people
from r2m.models.decision import Decision
from r2m.train.deciding import LogitSets, platt

# The keys of a row: without a specialist it is the sum over the right ones, without a test set the mean.
CLOSEST_KEYS = ["protocol", "test_set", "specialist"]
CLOSEST_COLUMNS = [
    *("protocol", "test_set", "generator", "family", "n_fake", "specialist", "is_right"),
    *("count", "share", "low", "high", "chance"),
]

Members = Mapping[str, Sequence[str]]


def own_calibrations(
    all_scores: Iterable[Scores], members: Members, context: EvaluationContext
) -> dict[str, Decision]:
    """Return specialist → its calibration on val of its own generators, which `members` names.

    Specialists without such images are left out, and so are models of other kinds.
    """
    found = {}
    for scores in all_scores:
        own = members.get(scores.model, ()) if scores.kind == "specialist" else ()
        if own and (val_sets := _logits_of(scores, own, context)):
            slope, offset = platt(val_sets)
            found[scores.model] = Decision(slope=slope, offset=offset)
    return found


def _logits_of(scores: Scores, generators: Sequence[str], context: EvaluationContext) -> LogitSets:
    return logits_of_val(scores, context, lambda item: item.generator in generators)


def closest_table(
    evaluation: Evaluation,
    calibrations: Mapping[str, Decision],
    members: Members,
    context: EvaluationContext,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Which share of the fakes of each test set has its greatest probability from each specialist.

    CLOSEST_COLUMNS, for the test sets that are not of another data set. Right is a specialist that was
    trained on the fakes' generator, or, where the generator is unseen, on one of its family. Trained
    generators without a specialist are left out. Every test set has a row per specialist, and one without a
    specialist: the share of the right ones together. A row without a test set is the mean of these over the
    test sets of a protocol. There `chance` is the mean that the best single specialist has, were it always
    the answer. Intervals are from `resamples` resamples of people.
    """
    matrix = evaluation.matrix
    names = [name for name in matrix.models if name in calibrations]
    if not names:
        return pd.DataFrame(columns=CLOSEST_COLUMNS)
    logits = matrix.scores[[matrix.models.index(name) for name in names]]
    responses = np.stack(
        [calibrations[name].probabilities(row) for name, row in zip(names, logits, strict=True)]
    )
    is_closest = closest(responses)[:, None] == np.arange(len(names))
    parts = []
    for protocol in (IN_DISTRIBUTION, UNSEEN_GENERATOR):
        sets = [test_set for test_set in evaluation.sets if test_set.item.protocol == protocol]
        right = _right(sets, names, members, context)
        if protocol == IN_DISTRIBUTION:
            sets, right = (
                [one for one, own in zip(sets, right, strict=True) if own.any()],
                right[right.any(1)],
            )
        if sets:
            drawn = _resampled_shares(is_closest, sets, evaluation, context, resamples, seed)
            parts.append(_rows(protocol, sets, names, is_closest, right, drawn))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=CLOSEST_COLUMNS)


def closest(responses: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the places (N,) of the greatest of the probabilities (S, N) of S specialists."""
    return responses.argmax(axis=0)


def _right(
    sets: Sequence[SetRows], names: Sequence[str], members: Members, context: EvaluationContext
) -> NDArray[np.bool_]:
    """Return whether each of S specialists was trained on the like of the fakes of T test sets (T, S)."""
    families = {
        name: {context.generators[one].family for one in members[name] if one in context.generators}
        for name in names
    }
    right = [
        [
            one.item.generator in members[name]
            if one.item.protocol == IN_DISTRIBUTION
            else one.item.family in families[name]
            for name in names
        ]
        for one in sets
    ]
    return np.array(right, dtype=bool).reshape(len(sets), len(names))


def _resampled_shares(
    is_closest: NDArray[np.bool_],
    sets: Sequence[SetRows],
    evaluation: Evaluation,
    context: EvaluationContext,
    resamples: int,
    seed: int,
) -> NDArray[np.float64]:
    """Return the shares (B, T, S) of each specialist in B resamples of people; NaN without a fake."""
    known = people(evaluation.matrix.units, context)
    blocks = []
    for counts in resample(known.strata, resamples, seed):
        weights = [counts[:, known.index[one.fakes]].astype(float) for one in sets]
        with np.errstate(invalid="ignore"):
            shares = [
                weight @ is_closest[one.fakes] / weight.sum(axis=1, keepdims=True)
                for weight, one in zip(weights, sets, strict=True)
            ]
        blocks.append(np.stack(shares, axis=1))
    return np.concatenate(blocks)


def _rows(
    protocol: str,
    sets: Sequence[SetRows],
    names: Sequence[str],
    is_closest: NDArray[np.bool_],
    right: NDArray[np.bool_],
    drawn: NDArray[np.float64],
) -> pd.DataFrame:
    """Return the rows of one protocol; `right` is (T, S), and `drawn` (B, T, S)."""
    counts = np.stack([is_closest[one.fakes].sum(axis=0) for one in sets])
    sizes = counts.sum(axis=1)
    shares = counts / sizes[:, None]
    low, high = interval(drawn, shares)
    rows: list[dict[str, str | int | float]] = []
    for place, one in enumerate(sets):
        known: dict[str, str | int | float] = {
            "protocol": protocol,
            "test_set": one.item.name,
            "generator": one.item.generator,
            "family": one.item.family,
            "n_fake": int(sizes[place]),
        }
        rows += [
            {
                **known,
                "specialist": name,
                "is_right": int(right[place, own]),
                "count": int(counts[place, own]),
                "share": shares[place, own],
                "low": low[place, own],
                "high": high[place, own],
            }
            for own, name in enumerate(names)
        ]
        if right[place].any():
            total = int(counts[place, right[place]].sum())
            estimate = shares[place, right[place]].sum()
            rows.append(
                {**known, **_right_answers(total, estimate, drawn[:, place, right[place]].sum(axis=1))}
            )
    judged = right.any(axis=1)
    if judged.any():
        among = np.where(right, shares, 0.0)[judged].sum(axis=1).mean()
        resampled = np.where(right, drawn, 0.0)[:, judged].sum(axis=2).mean(axis=1)
        of_all = {"protocol": protocol, "test_set": "", "generator": "", "family": ""}
        size, total = int(sizes[judged].sum()), int(np.where(right, counts, 0)[judged].sum())
        chance = float(right[judged].mean(axis=0).max())
        rows.append({**of_all, "n_fake": size, **_right_answers(total, among, resampled), "chance": chance})
    return pd.DataFrame(rows, columns=CLOSEST_COLUMNS)


def _right_answers(count: int, share: float, resampled: NDArray[np.float64]) -> dict[str, str | int | float]:
    """Return the columns of a row of all right answers, whose share in resamples is `resampled` (B,)."""
    low, high = interval(resampled, np.asarray(share))
    return {
        "specialist": "",
        "is_right": 1,
        "count": count,
        "share": float(share),
        "low": float(low),
        "high": float(high),
    }
