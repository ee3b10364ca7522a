import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from detector_samples import IDENTITIES, VIT, load_detector, session_of
from r2m.errors import R2MError
from r2m.evaluate.scores import score, write
from r2m.trunk.inputs import Inputs

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("drawn", "sketch", "swap")


@pytest.fixture
def inputs(image_sets, trunk_files):
    return Inputs(image_sets.paths(*NAMES), [trunk_files[name] for name in NAMES], VIT)


@pytest.fixture
def detector(base_files):
    return load_detector(base_files["vit"], VIT)


def test_every_val_and_test_image_once(inputs, detector):
    frame = score(session_of(detector, inputs), batch_size=4)
    expected = inputs.select(split=["val", "test"])
    assert sorted(frame["image_id"]) == sorted(expected["image_id"])
    assert len(frame) == 2 * (IDENTITIES["val"] + IDENTITIES["test"]) + 6
    by_id = frame.set_index("image_id")["logit"]
    logits = session_of(detector, inputs).predict(expected)
    np.testing.assert_allclose(by_id[expected["image_id"]], logits, atol=1e-5)
    assert set(frame["set"]) == set(NAMES)


def test_no_batch_holds_images_of_two_sets(inputs, detector, monkeypatch):
    batches = []
    fetch = inputs.fetch
    monkeypatch.setattr(inputs, "fetch", lambda rows: (batches.append(rows), fetch(rows))[1])
    score(session_of(detector, inputs), 4)
    assert all(len(rows) <= 4 and len(set(rows["set"])) == 1 for rows in batches)


def test_sampling_is_kept_where_a_manifest_says_it(inputs, detector, monkeypatch):
    session = session_of(detector, inputs)
    plain = score(session)
    rows = inputs.select(split=["val", "test"])
    monkeypatch.setattr(inputs, "select", lambda **columns: rows.assign(sampling=None))
    assert list(score(session)) == list(plain)
    monkeypatch.setattr(
        inputs, "select", lambda **columns: rows.assign(sampling=rows["set"].map({"swap": "8"}))
    )
    kept = score(session)
    assert (kept["sampling"].eq("8") == kept["set"].eq("swap")).all()
    assert kept.loc[kept["set"] != "swap", "sampling"].isna().all()


def test_parquet_and_its_metadata(inputs, detector, tmp_path):
    frame = score(session_of(detector, inputs), 64)
    model = {"model": "ties", "kind": "merge", "method": "ties", "label": "TIES"}
    write(frame, model, tmp_path / "scores.parquet")
    table = pq.read_table(tmp_path / "scores.parquet")
    assert table.column_names == [
        "image_id",
        "set",
        "domain",
        "split",
        "label",
        "generator",
        "identity",
        "video",
        "logit",
        "probability",
    ]
    assert json.loads(table.schema.metadata[b"r2m"]) == model
    read = pd.read_parquet(tmp_path / "scores.parquet")
    np.testing.assert_allclose(read["probability"], 1 / (1 + np.exp(-read["logit"].astype(float))))
    assert read["logit"].dtype == np.float32
    first = (tmp_path / "scores.parquet").read_bytes()
    write(frame, dict(reversed(model.items())), tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == first


def test_extreme_logits_have_a_probability(inputs, detector):
    detector.load_tensors({"head.bias": torch.tensor([-800.0])})
    with np.errstate(over="ignore"):
        assert (score(session_of(detector, inputs), 64)["probability"] < 1e-300).all()


def test_a_logit_that_is_not_finite(inputs, detector):
    detector.load_tensors({"head.bias": torch.tensor([float("nan")])})
    with pytest.raises(R2MError, match=r"drawn/test00: the model's logit is not finite"):
        score(session_of(detector, inputs), 64)
