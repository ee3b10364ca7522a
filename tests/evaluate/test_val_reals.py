"""The logits of val's reals, from files of scores."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from r2m.errors import R2MError
from r2m.evaluate.evaluation import read_scores
from r2m.evaluate.val_reals import val_reals


def test_reals_of_val(score_files: list[Path]) -> None:
    frame = read_scores(score_files[6]).frame.query("split == 'val' and label == 0")
    expected = frame["logit"].to_numpy(float)
    for metadata in ({"variant": "r2m", "name": "x"}, {"name": "r2m", "seed": "0"}):
        np.testing.assert_array_equal(val_reals(score_files[6], metadata), expected)


def test_reals_of_a_generators_own_are_none_of_the_training_domain(
    score_files: list[Path], rewrite: Callable[..., Path]
) -> None:
    expected = val_reals(score_files[1], {"name": "swap"})

    def with_own(frame: pd.DataFrame) -> pd.DataFrame:
        own = frame[(frame["split"] == "val") & (frame["label"] == 0)]
        own = own.assign(domain="up", logit=9.0, image_id="up/" + own["image_id"])
        return pd.concat([frame, own], ignore_index=True)

    path = rewrite(score_files[1], with_own)
    np.testing.assert_array_equal(val_reals(path, {"name": "swap"}), expected)
    alone = rewrite(path, lambda frame: frame[~((frame["domain"] == "a") & (frame["label"] == 0))])
    assert (val_reals(alone, {"name": "swap"}) == 9).all()


def test_scores_of_something_else(
    score_files: list[Path], rewrite: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(R2MError, match=r"r2m\.parquet: scores of 'r2m'; expected those of the model 'ties'"):
        val_reals(score_files[6], {"variant": "ties"})
    seeded = rewrite(score_files[1], lambda frame: frame, seed=1)
    assert len(val_reals(seeded, {"name": "swap", "seed": "1"}))
    with pytest.raises(R2MError, match="scores of seed 1; expected those of the model, seed 0"):
        val_reals(seeded, {"variant": "swap", "seed": "0"})
    no_reals = rewrite(score_files[2], lambda frame: frame[frame["split"] == "test"])
    with pytest.raises(R2MError, match="no reals in split 'val'"):
        val_reals(no_reals, {"name": "tps"})
    (tmp_path / "table.parquet").write_bytes(b"no table")
    with pytest.raises(R2MError, match="not a readable Parquet file of scores"):
        val_reals(tmp_path / "table.parquet", {"name": "tps"})
    with pytest.raises(R2MError, match=r"gone\.parquet: cannot be read \(No such file or directory\)"):
        val_reals(tmp_path / "gone.parquet", {"name": "tps"})


def test_a_detector_that_names_no_model(score_files: list[Path]) -> None:
    """As `r2m merge` writes it: whose scores a file has cannot be told."""
    message = r"r2m\.parquet: scores of 'r2m', but the detector's metadata have neither 'variant' nor 'name'"
    with pytest.raises(R2MError, match=message):
        val_reals(score_files[6], {"method": "r2m"})
