"""Layout of the figures of similarity and rationale, with few and many models, long names and empty cells."""

from pathlib import Path

import pandas as pd
import pytest
from layout import check_layout

from r2m.evaluate.protocols import EvaluationContext, read_table
from r2m.experiments.similarity import MEASURES
from r2m.figures import rationale, similarity
from r2m.tables.rationale import COLUMNS
from r2m.tables.similarity import MEAN

LAYERS = [*(f"blocks.{index}" for index in range(8, 12)), "pooled"]


def written(rows: list[dict[str, object]], folder: Path) -> pd.DataFrame:
    """Return the rows as `r2m experiment-figure` reads them, empty cells as text."""
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return read_table(folder / "table.csv")


@pytest.mark.parametrize(
    ("compared", "layers"),
    [
        (["Averaging"], ["pooled"]),
        (["Averaging", "R²M, matrix space", "Other specialists", "Base"], LAYERS),
        (["A merge whose name is long enough to wrap", "Base"], LAYERS),
    ],
)
def test_similarity_layout(compared: list[str], layers: list[str], tmp_path: Path) -> None:
    kinds = ("real", "own", "foreign", "unseen")
    rows: list[dict[str, object]] = [
        {
            **{"compared": name, "quantity": title, "layer": layer, "specialist": specialist},
            **{
                f"{kind}{end}": 0.9 - 0.1 * at
                for at, kind in enumerate(kinds)
                for end in ("", "_low", "_high")
            },
        }
        for name in compared
        for key, title in MEASURES.items()
        if not (name == "Base" and key == "shift_cosine")
        for specialist in (MEAN, "swap")
        for layer in layers
    ]
    rows[0]["real_low"] = None
    figure = similarity.figure(written(rows, tmp_path), EvaluationContext())
    check_layout(figure)
    assert len(figure.axes) == len(compared) * len(MEASURES) - ("Base" in compared)
    assert len(figure.axes[0].lines) == len(kinds)


@pytest.mark.parametrize("merges", [["R²M"], ["R²M, matrix space", "A merge with quite a long name"]])
def test_rationale_layout(merges: list[str], tmp_path: Path) -> None:
    parts = {
        "base": "none (base)",
        "core": "core",
        "residual": "residual",
        "residual:up": "residual of Upsampler",
    }
    rows: list[dict[str, object]] = [
        {"merge": merge, "part": part, "shift": shift, "images": kind, **dict.fromkeys(COLUMNS, 0.2)}
        for merge in merges
        for part, shift in parts.items()
        for kind in ("real", *(("own", "foreign") if ":" in part else ("trained",)), "unseen")
    ]
    for row in rows:
        if row["part"] != "residual":
            row["error"] = None
    figure = rationale.figure(written(rows, tmp_path), EvaluationContext())
    check_layout(figure)
    assert not any("base" in text.get_text() for text in figure.axes[0].texts)
