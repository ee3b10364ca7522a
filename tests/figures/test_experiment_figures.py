"""Figures of perturbed images and hostile specialists: no text off the page, none over another."""

import numpy as np
import pandas as pd
import pytest
from layout import check_layout, texts

from r2m.evaluate.protocols import EvaluationContext
from r2m.experiments.hostile import KINDS
from r2m.figures import hostile, robustness

VARIANTS = {
    "weight_averaging": "Weight averaging",
    "tsv_m": "TSV-M",
    "r2m": "R²M, matrix space",
    "ties": "TIES",
}
LEVELS = {
    "jpeg": ["100", "80", "60", "40", "20", "10"],
    "blur": ["0.5", "1", "1.5", "2", "3"],
    "noise": ["0.01", "0.03", "0.05", "0.1", "0.2"],
    "resize": ["0.5", "0.286"],
    "saturation": ["0.85", "0.6", "0.35"],
    "contrast": ["0.85", "0.6", "0.35"],
}


@pytest.fixture
def context():
    return EvaluationContext(variants=VARIANTS)


def hostile_table(variants, protocols=("in_distribution", "unseen_generator")):
    random = np.random.default_rng(0)
    rows = []
    for variant in ("specialist", *variants):
        for kind, title in KINDS.items():
            numbers = {key: random.uniform(0.3, 1) for key in (*protocols, "victim_auc", "triggered_real")}
            verdict = {"norm_z": -0.01, "cosine_z": -12.34, "norm_stands_out": 0.0, "cosine_stands_out": 1.0}
            # As `read_table` gives columns that are empty in most rows.
            verdict = {key: str(value) if variant == "specialist" else "" for key, value in verdict.items()}
            rows.append({"variant": variant, "replacement": kind, "kind": title, **numbers, **verdict})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("count", [1, 4])
def test_hostile(context, count):
    figure = hostile.figure(hostile_table(list(VARIANTS)[:count]), context)
    check_layout(figure)
    found = {text.get_text(): text.get_weight() for text in texts(figure)}
    assert found["−12.3"] == "bold"
    assert found["0.0"] == "normal"
    assert len(figure.axes) == 4


def test_hostile_without_unseen_generators(context):
    figure = hostile.figure(hostile_table(["r2m"], ["in_distribution"]), context)
    check_layout(figure)
    assert len(figure.axes) == 3


@pytest.mark.parametrize("kinds", [["jpeg"], ["jpeg", "blur", "noise", "resize"], list(LEVELS)])
@pytest.mark.parametrize("count", [1, 4])
def test_robustness(context, kinds, count):
    rows = []
    names = {"base": "Base (linear probe)", "joint": "Joint training", **dict(list(VARIANTS.items())[:count])}
    for kind, levels in {"clean": [""], **{kind: LEVELS[kind] for kind in kinds}}.items():
        for step, level in enumerate(levels):
            for model, name in names.items():
                aucs = {
                    f"{protocol}{end}": 0.9 - 0.05 * step + shift
                    for protocol in ("in_distribution", "unseen_generator")
                    for end, shift in (("", 0), ("_low", -0.03), ("_high", 0.03))
                }
                rows.append({"perturbation": kind, "level": level, "model": model, "name": name, **aucs})
    figure = robustness.figure(pd.DataFrame(rows), context)
    check_layout(figure)
    assert len(figure.axes) == 2 * len(kinds)
    for axes, kind in zip(figure.axes, kinds, strict=False):
        assert all(
            len(line.get_xdata()) == len(LEVELS[kind]) + 1 for line in axes.lines if line.get_marker() == "o"
        )
