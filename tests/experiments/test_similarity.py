"""Similarity of features on the small ViT, its summary, and its command."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reported import chosen_file, compute, report

from layout import check_layout
from r2m.errors import R2MError
from r2m.evaluate.image_kinds import image_kind
from r2m.evaluate.jackknife import interval
from r2m.evaluate.protocols import EvaluationContext, read_table
from r2m.evaluate.similarity import KEYS, MEAN, MEASURES, OTHERS, spaced, summary
from r2m.experiments import similarity
from r2m.session import POOLED

LAYERS = ["blocks.4", "blocks.5", POOLED]
DRAWN_LAYERS = [*(f"blocks.{index}" for index in range(8, 12)), POOLED]


def test_layers_keep_the_order_of_the_rows(bench):
    rows = bench.inputs.select(split="test").sample(frac=1, random_state=1)
    tensors = bench.updated(bench.task_vectors["up"])
    layers = bench.layer_features(tensors, rows)
    assert list(layers) == LAYERS
    np.testing.assert_array_equal(layers[POOLED], bench.features(tensors, rows))
    for place in (0, len(rows) - 1):
        single = bench.layer_features(tensors, rows.iloc[[place]])
        for name in LAYERS:
            np.testing.assert_allclose(layers[name][place], single[name][0], atol=1e-5)


def test_similarities_are_those_of_features_taken_one_by_one(bench, chosen):
    found = similarity.run(bench, [chosen], "drawn", 100)
    assert set(found["generator"]) == {"real", "swap", "up"}
    rows = bench.inputs.select(split="test", domain="drawn", generator="up")
    assert set(found["left_out"]) == {"", *rows["identity"]}
    # Three specialists, each beside the base, two others and the merge.
    assert len(found) == 3 * 4 * len(LAYERS) * 3 * (1 + rows["identity"].nunique())

    def features(update, layer):
        return bench.layer_features(bench.updated(update), rows)[layer].astype(float)

    for layer in LAYERS:
        one = features(bench.task_vectors["swap"], layer)
        whole = bench.layer_features(bench.merged(chosen.method, chosen.options), rows)[layer].astype(float)
        base = features({}, layer)
        row = found[
            (found["specialist"] == "swap")
            & (found["other"] == "r2m")
            & (found["layer"] == layer)
            & (found["generator"] == "up")
        ].set_index("left_out")
        for name, kept in [("", slice(None)), (rows["identity"].iloc[0], slice(1, None))]:
            x, y, origin = one[kept], whole[kept], base[kept]
            cosine = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(x, y, strict=True)]
            shifts = [
                (a - o) @ (b - o) / np.linalg.norm(a - o) / np.linalg.norm(b - o)
                for a, b, o in zip(x, y, origin, strict=True)
            ]
            assert row.loc[name, "cosine"] == pytest.approx(np.mean(cosine), abs=1e-5)
            assert row.loc[name, "shift_cosine"] == pytest.approx(np.mean(shifts), abs=1e-4)
            x, y = x - x.mean(0), y - y.mean(0)
            cka = np.linalg.norm(y.T @ x) ** 2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)
            assert row.loc[name, "cka"] == pytest.approx(cka, abs=1e-4)
    both = found[(found["kind"] == "specialist") & (found["layer"] == POOLED) & (found["left_out"] == "")]
    values = both.set_index(["specialist", "other", "generator"])["cosine"]
    assert values["swap", "up", "real"] == values["up", "swap", "real"]


def test_other_domains_are_refused_and_images_are_spaced(bench):
    with pytest.raises(R2MError, match="domain moon: no images in the split 'test'"):
        similarity.run(bench, [], "moon", 100)
    rows = pd.DataFrame({"a": range(10)})
    assert spaced(rows, 4)["a"].tolist() == [0, 3, 6, 9]
    assert spaced(rows, 10) is rows


def test_kinds_of_images(context):
    assert image_kind("real", "swap", context) == "real"
    assert image_kind("up", "up", context) == "own"
    assert image_kind("up", "swap", context) == "foreign"
    assert image_kind("up", "EFS", context) == "own"
    assert image_kind("up", "FS", context) == "foreign"
    assert image_kind("up", None, context) == "trained"
    assert image_kind("else", "swap", context) == "unseen"


def made_similarities():
    """Two specialists, the merge and each other, on reals, both of their fakes and an unseen generator."""
    random = np.random.default_rng(0)
    rows = []
    for specialist, others in {"swap": ("up",), "up": ("swap",)}.items():
        pairs = [("merge", "r2m"), ("base", "base"), *(("specialist", one) for one in others)]
        for kind, other in pairs:
            for layer in LAYERS:
                for generator in ("real", "swap", "up", "new"):
                    for person in ("", "p", "q", "s"):
                        keys = [specialist, kind, other, layer, generator, person]
                        rows.append([*keys, *random.uniform(size=4)])
    found = pd.DataFrame(rows, columns=[*KEYS, "left_out", *MEASURES])
    found.loc[found["kind"] == "base", "shift_cosine"] = np.nan
    # This person shows no unseen fake.
    return found[(found["generator"] != "new") | (found["left_out"] != "s")]


def test_summary_of_means_and_differences(context, tmp_path):
    path = tmp_path / "scores.parquet"
    made = made_similarities()
    made.to_parquet(path)
    frame = summary(made, context)
    assert frame["other"].unique().tolist() == ["r2m", OTHERS, "base"]
    assert len(frame) == (2 * 4 + 3) * (len(LAYERS) + 2)
    plain = made.set_index([*KEYS, "left_out"])["cka"].sort_index()

    def values(specialist, generator):
        one = plain[specialist, "merge", "r2m", POOLED, generator]
        return np.array([one.get(person, one[""]) for person in ("", "p", "q", "s")])

    chosen = frame["other"].eq("r2m") & frame["measure"].eq("cka") & frame["layer"].eq(POOLED)
    cells = frame[chosen].set_index("specialist")
    difference = values("swap", "real") - values("swap", "up")
    assert cells.loc["swap", "real_foreign"] == pytest.approx(difference[0])
    limits = cells.loc["swap", ["real_foreign_low", "real_foreign_high"]].tolist()
    np.testing.assert_allclose(limits, interval(difference))
    unseen = (values("swap", "new") + values("up", "new")) / 2
    assert cells.loc["mean", "unseen"] == pytest.approx(unseen[0])
    assert cells.loc["mean", "unseen_low"] == pytest.approx(interval(unseen)[0])
    own = (values("swap", "swap") + values("up", "up")) / 2
    assert cells.loc["mean", "own"] == pytest.approx(own[0])
    assert cells.loc["mean", "fake_up"] == pytest.approx((values("swap", "up") + values("up", "up"))[0] / 2)
    table = similarity.table(path, context)
    assert table.to_markdown().count("\n|") == 2 + 4 + 4 + 3 - 1
    assert "Of 2 specialists" in table.caption
    pd.DataFrame({"cka": [1.0]}).to_parquet(path)
    with pytest.raises(
        R2MError, match=r"scores\.parquet: expected similarities with the columns specialist, kind"
    ):
        similarity.table(path, context)


def test_run_table_and_figure(bench_files, chosen, tmp_path):
    out = tmp_path / "scores.parquet"
    chosen_files = [chosen_file(tmp_path, chosen)]
    compute("similarity", bench_files, out, chosen=chosen_files, domain="drawn", images=500)
    report("similarity", out, tmp_path)
    assert pd.read_csv(tmp_path / "table.csv")["layer"].unique().tolist() == LAYERS


def written(rows: list[dict[str, object]], folder: Path) -> pd.DataFrame:
    """Return the rows as the figure gets them, empty cells as text."""
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return read_table(folder / "table.csv")


@pytest.mark.parametrize(
    ("compared", "layers"),
    [
        (["Averaging"], ["pooled"]),
        (["Averaging", "R²M, matrix space", "Other specialists", "Base"], DRAWN_LAYERS),
        (["A merge whose name is long enough to wrap", "Base"], DRAWN_LAYERS),
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
