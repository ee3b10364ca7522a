"""Evaluations of several trainings, which differ in their seed, as one: means and standard deviations."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from r2m.errors import R2MError
from r2m.evaluate.bootstrap import interval
from r2m.evaluate.evaluation import Evaluation
from r2m.evaluate.protocols import MODEL_KEYS, SPREAD


def mean_over_seeds(
    tables: Sequence[pd.DataFrame], keys: Sequence[str], spread: Sequence[str] = ()
) -> pd.DataFrame:
    """Return the mean of all numbers of rows with equal `keys`, rows in their first order.

    Behind each column in `spread` stands its standard deviation over the tables (`…_sd`, with n − 1; missing
    for a single table). Integers, which are counts, are rounded; other columns are those of the first table.
    """
    rows = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    groups = rows.groupby(list(keys), sort=False, dropna=False)
    mean = groups.first()
    for name in mean.columns[[pd.api.types.is_numeric_dtype(kind) for kind in mean.dtypes]]:
        values = groups[name].mean()
        mean[name] = values.round().astype(int) if pd.api.types.is_integer_dtype(rows[name]) else values
    for name in spread:
        mean.insert(list(mean.columns).index(name) + 1, name + SPREAD, groups[name].std(ddof=1))
    own = [
        column
        for name in tables[0].columns
        for column in ([name, name + SPREAD] if name in spread else [name])
    ]
    return mean.reset_index()[own]


def pooled(runs: Sequence[Evaluation]) -> Evaluation:
    """Return the means of metrics and of resampled AUCs over evaluations of the same images.

    The intervals are those of the mean AUC over these trainings: they say how much other people in the test
    images would change it, not other trainings, of which `auc_sd` speaks. `matrix` is that of the first.

    Raises:
        R2MError: the evaluations are not of the same models.
    """
    first = runs[0]
    for other in runs[1:]:
        if other.matrix.models != first.matrix.models:
            missing = sorted(set(other.matrix.models) ^ set(first.matrix.models))
            raise R2MError(f"scores: expected every model with every seed; missing: {', '.join(missing)}")
    resampled = np.mean([run.resampled for run in runs], axis=0)
    keys = [*MODEL_KEYS, "test_set"]
    auc = mean_over_seeds([run.auc for run in runs], keys, ["auc"])
    models = mean_over_seeds([run.models for run in runs], [*MODEL_KEYS, "label"])
    mean = Evaluation(models, auc, first.matrix, first.sets, resampled)
    low, high = interval(resampled, mean.estimates)
    return replace(mean, auc=auc.assign(auc_low=low.ravel(), auc_high=high.ravel()))
