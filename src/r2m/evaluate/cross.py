"""Fakes against the reals of other domains."""

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from r2m.evaluate.bootstrap import interval, resampled_aucs
from r2m.evaluate.evaluation import Evaluation
from r2m.evaluate.protocols import MODEL_KEYS, SET_COLUMNS, EvaluationContext, model_columns
from r2m.evaluate.score_matrix import SetRows, people, real_rows

CROSS_COLUMNS = [
    *(*MODEL_KEYS, *SET_COLUMNS, "real_domain"),
    *("n_real", "n_fake", "auc", "auc_low", "auc_high"),
]


def cross_auc(evaluation: Evaluation, context: EvaluationContext, resamples: int, seed: int) -> pd.DataFrame:
    """AUC of the fakes of every test set against the reals of every other domain (CROSS_COLUMNS).

    Such a pair differs in the photographs as well as in being fake or real: an AUC that is far from that of
    the test set (auc.csv) shows how much of a score is the domain.
    """
    reals = real_rows(evaluation.matrix.units)
    pairs = [
        (SetRows(test_set.item, places, test_set.fakes), domain)
        for test_set in evaluation.sets
        for domain, places in reals.items()
        if domain != test_set.item.domain
    ]
    if not pairs:
        return pd.DataFrame(columns=CROSS_COLUMNS)
    sets = [test_set for test_set, _ in pairs]
    everyone = people(evaluation.matrix.units, context)
    resampled = resampled_aucs(evaluation.matrix.scores, sets, everyone, resamples, seed)
    scores = evaluation.matrix.scores
    estimates = np.array(
        [[roc_auc_score(test_set.labels, row[test_set.rows]) for test_set in sets] for row in scores]
    )
    low, high = interval(resampled, estimates)
    rows = [
        {
            **model,
            **test_set.item.columns(),
            "real_domain": domain,
            "n_real": len(test_set.reals),
            "n_fake": len(test_set.fakes),
            "auc": estimates[index, place],
            "auc_low": low[index, place],
            "auc_high": high[index, place],
        }
        for index, model in enumerate(model_columns(evaluation.models))
        for place, (test_set, domain) in enumerate(pairs)
    ]
    return pd.DataFrame(rows, columns=CROSS_COLUMNS)
