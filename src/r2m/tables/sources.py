"""Table of Real components and merges where reals come from two sources."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from r2m.errors import R2MError
from r2m.evaluate.bootstrap import LEVEL, interval, resampled_aucs
from r2m.evaluate.experiment_means import protocol_means, read_settings
from r2m.evaluate.protocols import EvaluationContext
from r2m.evaluate.score_matrix import people, set_rows
from r2m.experiments.sources import BY, MEASURES, ONE, TWO
from r2m.report.table import Table as Rendered


def second_intervals(
    scores: pd.DataFrame, domain: str, context: EvaluationContext, resamples: int, seed: int
) -> pd.DataFrame:
    """Return one row a setting (`BY`): mean AUC over the sets of `domain` and its interval, b, b_low, b_high.

    `core_gain` is b less that of the first core of the same variant and training, `source_gain` that of the
    same variant and core trained with reals of one source; both with limits `…_low`, `…_high`. They are NaN
    where there is nothing to compare with. Intervals are from `resamples` of people, drawn alike for all.
    """
    test = scores[(scores["split"] == "test") & (scores["domain"] == domain)]
    logits = test.pivot_table("logit", BY, "image_id", sort=False)
    units = test.drop_duplicates("image_id").set_index("image_id").loc[logits.columns].reset_index()
    sets = set_rows(units, context, "sources")
    matrix = logits.to_numpy(float)
    aucs = [[roc_auc_score(one.labels, row[one.rows]) for one in sets] for row in matrix]
    mean = np.array(aucs).mean(axis=1)
    drawn = resampled_aucs(matrix, sets, people(units, context), resamples, seed).mean(axis=2)
    settings = logits.index.to_frame(index=False)
    table = settings.assign(b=mean)
    table["b_low"], table["b_high"] = interval(drawn, mean)
    rows = {tuple(setting): place for place, setting in enumerate(settings.itertuples(index=False))}
    first = {key: group["core"].iloc[0] for key, group in settings.groupby(["variant", "training"])}
    for name in ("core_gain", "source_gain"):
        others = [
            rows.get((variant, training, first[variant, training]))
            if name == "core_gain"
            else rows.get((variant, ONE, core))
            for variant, training, core in rows
        ]
        gains = np.full((3, len(rows)), np.nan)
        for place, other in enumerate(others):
            if other is not None and other != place:
                gain = mean[place] - mean[other]
                gains[:, place] = gain, *interval(drawn[:, place] - drawn[:, other], gain)
        table[[name, f"{name}_low", f"{name}_high"]] = gains.T
    return table


def table(source: Path, context: EvaluationContext) -> Rendered:
    """Return the table of the scores in `source`: a row a merge, training and core."""
    notes = read_notes(source)
    domain, resamples = notes["domain"], int(notes["resamples"])
    scores = read_settings(source, [*BY, *MEASURES, "image_id", "identity", "video"])
    means = protocol_means(scores, BY, context)
    found = second_intervals(scores, domain, context, resamples, int(notes["seed"]))
    kept = ["val_auc", *(name for name in ("in_distribution", "unseen_generator") if name in means)]
    frame = means[[*BY, *kept]].merge(found, on=BY)
    frame = frame.merge(scores[[*BY, *MEASURES]].drop_duplicates(), on=BY)
    frame.insert(0, "merge", frame["variant"].map(context.variant_label))
    one, two = (context.domain_label(name) for name in (_training_domain(context), domain))
    reals = {ONE: one, TWO: f"{one} and {two}"}
    frame.insert(3, "reals", frame["training"].map(reals))
    test = scores[(scores["split"] == "test") & (scores["domain"] == domain)].drop_duplicates("image_id")
    titles = {
        "merge": "Merge",
        "reals": "Trained on",
        "core": "Core",
        "val_auc": f"Val: {one}",
        "in_distribution": f"{one}: trained",
        "unseen_generator": f"{one}: unseen",
        "b": two,
        "b_low": "from",
        "b_high": "to",
        "core_gain": "By core",
        "core_gain_low": "from ",
        "core_gain_high": "to ",
        "source_gain": "By reals",
        "source_gain_low": "from  ",
        "source_gain_high": "to  ",
        "first_share": "λ₁ / Σλ",
        "second_share": "λ₂ / Σλ",
        "mean_cosine": "cos",
    }
    return Rendered(
        frame,
        {key: title for key, title in titles.items() if key in frame},
        caption=(
            f"R²M on specialists trained on {one} alone, and on {one} and some people of {two}; all of it"
            f" is tested on the same images. Options are chosen for each row on val images of {one}. {two}:"
            f" mean AUC over generators on {_count(test, 0)} reals of {test['identity'].nunique()} people who"
            f" were never trained on, with the {100 * LEVEL:g} % interval from {resamples} resamples of"
            f" these people; by core: less that of the first core; by reals: less that of specialists trained"
            f" on {one} alone. λ₁, λ₂: greatest eigenvalues of the task vectors' Gram matrix; cos: between"
            f" the mean task vector and that of training on {one} alone. Best of a merge bold, second"
            " underlined."
        ),
        label="sources",
        best=[key for key in (*kept, "b") if key in frame],
        section="variant",
    )


def read_notes(path: Path) -> dict[str, str]:
    """Return what the scores in `path` say of themselves: domain, resamples and seed.

    Raises:
        R2MError: not the scores of this experiment.
    """
    try:
        notes = json.loads((pq.read_schema(path).metadata or {})[b"r2m"])
        return {key: str(notes[key]) for key in ("domain", "resamples", "seed")}
    except (OSError, ValueError, KeyError) as error:
        raise R2MError(f"{path}: expected the scores that `r2m two-sources` writes ({error})") from error


def _training_domain(context: EvaluationContext) -> str:
    return next(name for name, domain in context.domains.items() if domain.role == "train")


def _count(units: pd.DataFrame, label: int) -> int:
    return int((units["label"] == label).sum())
