"""Figures of experiments with several strategies or trainings: no text outside the page, or over another."""

import pandas as pd
import pytest
from layout import check_layout, texts

from r2m.evaluate.protocols import EvaluationContext
from r2m.figures import families, sources

CONTEXT = EvaluationContext()


@pytest.mark.parametrize("merges", [["R²M"], ["Weight averaging", "A merge with quite a long name", "R²M"]])
def test_families_layout(merges: list[str]) -> None:
    training = ["a specialist a generator", "a specialist a family", "within families, then across"]
    rows = [
        {
            "merge": merge,
            "training": one,
            "specialists": 40,
            "val_auc": 0.8 + place / 50,
            "cross_dataset": 0.7,
        }
        for merge in merges
        for place, one in enumerate(training)
    ]
    figure = families.figure(pd.DataFrame(rows), CONTEXT)
    check_layout(figure)
    shown = [text.get_text() for text in texts(figure)]
    assert shown.count("a specialist a family (40)") == len(merges)
    assert shown.count("0.820") == len(merges)


def test_sources_layout_and_intervals() -> None:
    rows = [
        {
            **{"merge": "R²M, task space", "training": training, "reals": reals, "core": core},
            **{"val_auc": 0.9, "in_distribution": 0.88, "b": 0.6, "b_low": 0.4, "b_high": 0.75},
            **{"first_share": 0.5, "second_share": 0.25},
        }
        for training, reals in (("A", "CelebA"), ("A+B", "CelebA and ORL"))
        for core in ("rank 1", "rank 2")
    ]
    figure = sources.figure(pd.DataFrame(rows), CONTEXT)
    check_layout(figure)
    assert "CelebA and ORL, rank 2" in [text.get_text() for text in texts(figure)]
    low, high = figure.axes[0].get_xlim()
    assert low < 0.4
    assert high > 0.9
    spans = [line for one in figure.axes[0].collections for line in one.get_segments()]
    assert [line[:, 0].tolist() for line in spans] == [[0.4, 0.75]] * 4
