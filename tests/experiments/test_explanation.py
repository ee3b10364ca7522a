"""Deletion and insertion, and the experiment on explanations."""

import numpy as np
import pandas as pd
import pytest
import torch
from experiment_context import CONTEXT
from hypothesis import given, settings
from hypothesis import strategies as st
from reported import report

from detector_samples import VIT, save_whole
from layout import check_layout
from r2m import manifest
from r2m.errors import R2MError
from r2m.evaluate.faithfulness import (
    area,
    between,
    centred_map,
    deletion_and_insertion,
    random_map,
    ranks,
)
from r2m.evaluate.protocols import EvaluationContext
from r2m.experiments import explanation
from r2m.models import checkpoint
from r2m.report.figures.map_sheet import MapRow, draw_map_sheet
from r2m.session_files import Compute

SIZE = 16


def measured(probabilities, images, maps, steps=5):
    others = torch.zeros_like(images)
    ends = probabilities(images), probabilities(others)
    return deletion_and_insertion(probabilities, images, others, maps, ends, steps)


def brightness(place):
    """A probability that depends on one patch of 4 × 4 pixels alone."""

    def probabilities(images):
        row, column = place
        return (
            images[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].mean((1, 2, 3)).double().numpy()
        )

    return probabilities


def patch_map(place):
    relevance = torch.zeros(1, SIZE, SIZE)
    row, column = place
    relevance[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1
    return relevance


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_places_of_pixels_are_a_permutation(seed):
    maps = torch.from_numpy(np.random.default_rng(seed).random((2, SIZE, SIZE), np.float32))
    order = ranks(maps)
    for one, own in zip(maps, order, strict=True):
        assert sorted(own.flatten().tolist()) == list(range(SIZE**2))
        assert (one.flatten()[own.flatten().argsort()].diff() <= 0).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4, 8]))
@settings(max_examples=20, deadline=None)
def test_insertion_is_the_deletion_of_what_is_left(seed, steps):
    """To insert the most relevant pixels is to delete the least relevant ones, backwards."""
    random = np.random.default_rng(seed)
    images = torch.from_numpy(random.random((2, 3, SIZE, SIZE), np.float32))
    maps = torch.from_numpy(np.stack([random.permutation(SIZE**2).reshape(SIZE, SIZE) for _ in range(2)]))
    weights = torch.from_numpy(random.random((SIZE, SIZE), np.float32))

    def probabilities(batch):
        return torch.sigmoid((batch * weights).mean((1, 2, 3))).double().numpy()

    _, insertion = measured(probabilities, images, maps, steps)
    deletion, _ = measured(probabilities, images, -maps, steps)
    np.testing.assert_allclose(insertion, deletion, atol=1e-6)


def test_scores_by_hand():
    images = torch.ones(1, 3, SIZE, SIZE)
    # The patch is a sixteenth: after the first of five steps nothing of it is left.
    deletion, insertion = measured(brightness((1, 2)), images, patch_map((1, 2)))
    assert deletion == pytest.approx(0.1)
    assert insertion == pytest.approx(0.9)
    worst = measured(brightness((1, 2)), images, -patch_map((1, 2)))
    assert (worst[0], worst[1]) == (pytest.approx(0.9), pytest.approx(0.1))
    assert area([np.array([0.0]), np.array([1.0]), np.array([1.0])]) == pytest.approx(0.75)
    shares = [float(one.mean()) for one in between(images, 0 * images, ranks(patch_map((0, 0))), 4)]
    assert shares == [0.75, 0.5, 0.25]


def test_baselines():
    assert np.unravel_index(centred_map(9).argmax(), (9, 9)) == (4, 4)
    one, other = (random_map(SIZE, np.random.default_rng(seed)) for seed in (0, 1))
    assert one.shape == (SIZE, SIZE)
    assert not np.allclose(one, other)


def test_images_are_drawn_by_the_seed(image_sets):
    rows = pd.concat([manifest.read(path) for path in image_sets.paths("swap", "drawn", "up", "sketch")])
    chosen = dict(explanation.drawn(rows, "drawn", 2, 0))
    assert list(chosen) == ["swap", "up", "real"]
    for own in chosen.values():
        assert (own["split"].unique(), own["domain"].unique()) == (["test"], ["drawn"])
        assert len(own) == 2
    again = dict(
        explanation.drawn(rows.sample(frac=1, random_state=0).sort_values("image_id"), "drawn", 2, 0)
    )
    assert again["swap"]["image_id"].tolist() == chosen["swap"]["image_id"].tolist()
    with pytest.raises(R2MError, match="domain nowhere: no images in the split 'test'"):
        dict(explanation.drawn(rows, "nowhere", 2, 0))


def test_photographs_show_other_people(image_sets):
    rows = pd.concat([manifest.read(path) for path in image_sets.paths("drawn", "swap")])
    own = rows[(rows["generator"] == "swap") & (rows["domain"] == "drawn") & (rows["split"] == "test")]
    paths = explanation.photographs(rows, "drawn", own, np.random.default_rng(0))
    others = rows.set_index("path").loc[paths]
    assert (set(others["label"]), set(others["split"])) == ({0}, {"test"})
    assert (others["identity"].to_numpy() != own["identity"].to_numpy()).all()
    alone = rows[rows["identity"] == own["identity"].iloc[0]]
    with pytest.raises(R2MError, match="domain drawn: no test photograph of another person than drawn-test"):
        explanation.photographs(alone, "drawn", own[:1], np.random.default_rng(0))


def test_run_table_and_figure(image_sets, base_files, tmp_path, one_thread):
    out, maps = tmp_path / "scores.parquet", tmp_path / "maps.safetensors"
    manifests = image_sets.paths("drawn", "swap", "up")
    explanation.run(
        model=save_whole(base_files["vit"], tmp_path / "model.safetensors"),
        manifests=manifests,
        domain="drawn",
        images=3,
        shown=2,
        seed=0,
        compute=Compute(VIT, "cpu", "fp32"),
        scores=out,
        maps=maps,
        threads=1,
    )
    assert len(checkpoint.load(maps)[0]) == 3 * 2
    context = EvaluationContext.model_validate(CONTEXT)
    explanation.sheet(scores=out, maps=maps, manifests=manifests, context=context, out=tmp_path / "sheet")
    assert {path.suffix for path in tmp_path.glob("sheet.*")} == {".png", ".pdf", ".svg"}
    scores = pd.read_parquet(out)
    assert scores.groupby(["generator", "order"]).size().to_dict() == {
        (name, order): 3 for name in ("real", "swap", "up") for order in explanation.ORDERS
    }
    assert scores.groupby("image_id")["whole"].nunique().eq(1).all()
    measures = scores[["whole", "deletion", "insertion"]].to_numpy()
    assert ((measures >= 0) & (measures <= 1)).all()
    report("explanation", out, tmp_path)
    table = pd.read_csv(tmp_path / "table.csv")
    assert list(dict.fromkeys(table["images"])) == ["All fakes", "swap", "Upsampler", "Reals"]
    own = scores[(scores["generator"] == "up") & (scores["order"] == "map")]
    found = table.query("images == 'Upsampler' and order == 'map'").iloc[0]
    assert found["deletion"] == pytest.approx(own["deletion"].mean(), abs=1e-6)
    assert found["count"] == 3


@pytest.mark.parametrize("count", [1, 4, 8])
def test_layout_of_the_sheet(count):
    random = np.random.default_rng(0)
    images = list(random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))
    maps = list(random.random((count, 32, 32), np.float32))
    labels = ("StyleGAN expression", "Real-ESRGAN", "real")
    figure = draw_map_sheet([MapRow(label, images, maps, [0.5] * count) for label in labels])
    check_layout(figure)
    assert len(figure.axes) == 1 + 2 * count * len(labels)


def test_layout_of_the_figure():
    labels = ["All fakes", "StyleGAN expression", "Real-ESRGAN", "Reals"]
    rows = [
        {"images": label, "order": order, "deletion": 0.3, "insertion": 0.6}
        for label in labels
        for order in explanation.ORDERS
    ]
    check_layout(explanation.figure(pd.DataFrame(rows), EvaluationContext()))
