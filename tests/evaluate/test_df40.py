"""The protocols of DF40: which test sets count into which cell, and the tables to read."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from r2m.evaluate.df40 import DF40_COLUMNS, PART_KEYS, Part, df40_means, one_against_all, parts_of
from r2m.evaluate.evaluation import Evaluation
from r2m.evaluate.means import beside_videos, over_trainings
from r2m.evaluate.protocols import EvaluationContext, TestSet, describe, order_models, order_test_sets
from r2m.evaluate.score_matrix import ScoreMatrix, SetRows
from r2m.report.protocol_tables import MOST_COLUMNS, one_against_all_table, protocol_table
from r2m.report.table import Table

DF40 = EvaluationContext.model_validate(
    {
        "generators": {
            "simswap": {"family": "FS", "label": "SimSwap"},
            "inswap": {"family": "FS"},
            "wav2lip": {"family": "FR"},
            "sd2_1": {"family": "EFS"},
            "heygen": {"family": "FR", "role": "unseen", "label": "HeyGen"},
            "deepfacelab": {"family": "FS", "role": "unseen"},
        },
        "domains": {"ff": {"role": "train", "label": "FF"}, "cdf": {"role": "test", "label": "CDF"}},
    }
)
PAIRS = [
    *itertools.product(("ff", "cdf"), ("simswap", "inswap", "wav2lip", "sd2_1")),
    *(("heygen", "heygen"), ("deepfacelab", "deepfacelab")),
]
MODELS = [
    ("base", "base"),
    ("simswap", "specialist"),
    ("wav2lip", "specialist"),
    ("a", "merge"),
    ("b", "merge"),
]


def sets_of(context: EvaluationContext, pairs: Sequence[tuple[str, str]]) -> list[TestSet]:
    return order_test_sets([describe(domain, generator, context) for domain, generator in pairs], context)


def evaluation(
    context: EvaluationContext,
    pairs: Sequence[tuple[str, str]],
    models: Sequence[tuple[str, str]] = MODELS,
    seed: int = 0,
) -> Evaluation:
    """AUCs drawn for every model on every test set, and 20 resamples around each."""
    rng = np.random.default_rng(seed)
    named = pd.DataFrame(models, columns=["model", "kind"]).assign(
        method="", label=[m.title() for m, _ in models]
    )
    described = order_models(named, context)
    sets = sets_of(context, pairs)
    rows = [
        {"model": model, **item.columns(), "auc": rng.uniform(0.3, 1)}
        for model in described["model"]
        for item in sets
    ]
    none = np.array([], dtype=np.int64)
    matrix = ScoreMatrix(pd.DataFrame(), list(described["model"]), np.empty((0, 0)), np.empty((0, 0)))
    made = Evaluation(
        described, pd.DataFrame(rows), matrix, [SetRows(item, none, none) for item in sets], np.empty(0)
    )
    spread = rng.normal(0, 0.01, (20, *made.estimates.shape))
    return Evaluation(described, made.auc, matrix, made.sets, made.estimates + spread)


def table_of(
    made: Evaluation,
    context: EvaluationContext,
    videos: Evaluation | None = None,
    built_in: Sequence[str] = (),
) -> Table:
    of_videos = None if videos is None else df40_means(videos, context)
    means = beside_videos(df40_means(made, context), of_videos, PART_KEYS)
    return protocol_table(means, made.models, [own.item for own in made.sets], context, built_in)


def cells(table: Table, row: str) -> dict[str, str]:
    """Heading → cell of the row that begins with `row`."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.to_markdown().splitlines()
    ]
    return dict(zip(lines[0], next(line for line in lines if line[0] == row), strict=True))


def test_test_sets_of_each_part() -> None:
    sets = sets_of(DF40, PAIRS)
    names = {part: [sets[place].name for place in places] for part, places in parts_of(sets, DF40).items()}
    expected = {
        Part("P1", family="FS"): ["ff/simswap", "ff/inswap"],
        Part("P1", family="FR"): ["ff/wav2lip"],
        Part("P1", family="EFS"): ["ff/sd2_1"],
        Part("P1"): ["ff/simswap", "ff/inswap", "ff/wav2lip", "ff/sd2_1"],
        Part("P2", domain="cdf", family="FS"): ["cdf/simswap", "cdf/inswap"],
        Part("P2", domain="cdf", family="FR"): ["cdf/wav2lip"],
        Part("P2", domain="cdf", family="EFS"): ["cdf/sd2_1"],
        Part("P2", domain="cdf"): ["cdf/simswap", "cdf/inswap", "cdf/wav2lip", "cdf/sd2_1"],
        Part("P2"): ["cdf/simswap", "cdf/inswap", "cdf/wav2lip", "cdf/sd2_1"],
        Part("P3", family="FS", generator="deepfacelab"): ["deepfacelab/deepfacelab"],
        Part("P3", family="FR", generator="heygen"): ["heygen/heygen"],
        Part("P3", family="FS"): ["deepfacelab/deepfacelab"],
        Part("P3", family="FR"): ["heygen/heygen"],
        Part("P3"): ["deepfacelab/deepfacelab", "heygen/heygen"],
    }
    assert names == expected
    assert list(names) == list(expected), "in the order of the table"
    against = {sets[place].name for place in one_against_all(sets)}
    assert against == {f"ff/{g}" for g in ("simswap", "inswap", "wav2lip", "sd2_1")} | {
        "heygen/heygen",
        "deepfacelab/deepfacelab",
    }


def test_unseen_generators_count_in_every_domain_and_own_reals_of_trained_ones_in_the_first() -> None:
    pairs = [("wav2lip", "wav2lip"), ("ff", "heygen"), ("cdf", "heygen"), ("ff", "simswap")]
    sets = sets_of(DF40, pairs)
    parts = parts_of(sets, DF40)
    assert {sets[place].name for place in parts[Part("P1")]} == {"ff/simswap", "wav2lip/wav2lip"}
    assert {sets[place].name for place in parts[Part("P3")]} == {"ff/heygen", "cdf/heygen"}
    assert not any(part.protocol == "P2" for part in parts)


def test_means_and_their_intervals() -> None:
    made = evaluation(DF40, PAIRS)
    means = df40_means(made, DF40)
    assert list(means.columns) == DF40_COLUMNS
    assert len(means) == len(MODELS) * 14
    assert means["model"].drop_duplicates().tolist() == made.models["model"].tolist()
    row = means.query("model == 'a' and protocol == 'P2' and domain == 'cdf' and family == 'FS'").iloc[0]
    auc = made.auc.set_index(["model", "test_set"])["auc"]
    assert row["auc"] == pytest.approx((auc["a", "cdf/simswap"] + auc["a", "cdf/inswap"]) / 2)
    assert row["n_sets"] == 2
    assert row["low"] <= row["auc"] <= row["high"]


def test_table_to_read() -> None:
    made = evaluation(DF40, PAIRS)
    table = table_of(made, DF40)
    shown = cells(table, "Model")
    assert list(shown) == [
        *("Model", "P1 FS", "P1 FR", "P1 EFS", "P1 mean", "P2 CDF FS", "P2 CDF FR", "P2 CDF EFS", "P2 mean"),
        *("P3 deepfacelab", "P3 HeyGen", "P3 mean"),
    ]
    specialist = cells(table, "Simswap")
    assert [name for name, cell in specialist.items() if "†" in cell] == ["P1 FS", "P2 CDF FS"]
    assert all("**" in cell or "<ins>" in cell for cell in list(cells(table, "A").values())[1:])
    assert "**" not in "".join(cells(table, "Base").values())
    auc = made.auc.set_index(["model", "test_set"])["auc"]
    assert f"{auc['base', 'heygen/heygen']:.3f}" == cells(table, "Base")["P3 HeyGen"]
    for text in (
        "P1: generators that have a specialist, on FF, by family.",
        "P2: the same generators, on CDF, by domain and family.",
        "P3: generators that no specialist saw, on reals of their own, one by one.",
    ):
        assert text in table.caption
    latex = table.to_latex()
    assert latex.count("{") == latex.count("}")
    assert r"\multicolumn{4}{c}{P2: other domains}" in latex


def test_built_in_forgeries_are_not_taken_for_those_of_df40() -> None:
    made = evaluation(DF40, PAIRS)
    assert "stand-ins" not in table_of(made, DF40).caption
    some = table_of(made, DF40, built_in=["simswap", "heygen"]).caption
    assert "Stand-ins for the families of DF40, and none of its generators, are: SimSwap, HeyGen." in some
    everything = table_of(made, DF40, built_in=list(DF40.generators)).caption
    assert "All forgeries are stand-ins" in everything
    assert "these are no results on DF40" in everything


def test_videos_stand_beside_the_means_of_protocols_that_are_of_videos() -> None:
    made = evaluation(DF40, PAIRS)
    of_videos = evaluation(DF40, [pair for pair in PAIRS if pair != ("cdf", "sd2_1")], seed=1)
    table = table_of(made, DF40, of_videos)
    assert [name for name in cells(table, "Model") if "video" in name] == ["P1 video", "P2 video", "P3 video"]
    auc = of_videos.auc.set_index(["model", "test_set"])["auc"]
    values = [auc["a", f"ff/{generator}"] for generator in ("simswap", "inswap", "wav2lip", "sd2_1")]
    assert f"{np.mean(values):.3f}" in cells(table, "A")["P1 video"]
    assert cells(table, "A")["P2 video"] == "–"
    assert "Video: of videos" in table.caption


def many(unseen: int, domains: int) -> EvaluationContext:
    families = itertools.cycle(("FS", "FR", "EFS", "FE"))
    generators = {f"t{i}": {"family": next(families)} for i in range(8)}
    generators |= {f"u{i}": {"family": next(families), "role": "unseen"} for i in range(unseen)}
    tests = {f"d{i}": {"role": "test"} for i in range(domains)}
    return EvaluationContext.model_validate(
        {"generators": generators, "domains": {"ff": {"role": "train"}, **tests}}
    )


@pytest.mark.parametrize(
    ("unseen", "domains", "second", "third"),
    [
        (9, 2, "on d0 and d1, by domain and family.", "one by one."),
        (11, 3, "on d0, d1 and d2, by domain (protocols.csv has them by domain and family).", "by family ("),
        (
            40,
            11,
            "on 11 domains, all together (protocols.csv has them",
            "by family (protocols.csv has them one",
        ),
    ],
)
def test_a_table_stays_narrow(unseen: int, domains: int, second: str, third: str) -> None:
    context = many(unseen, domains)
    made = evaluation(context, list(itertools.product(context.domains, context.generators)))
    table = table_of(made, context)
    assert len(table.titles) <= 1 + 3 * (MOST_COLUMNS + 1)
    assert second in table.caption
    assert third in table.caption
    means = df40_means(made, context)
    assert means["generator"].nunique() == unseen + 1, "one of them is none"
    assert means.query("protocol == 'P2'")["domain"].nunique() == domains + 1


def test_several_trainings_have_a_deviation() -> None:
    runs = [evaluation(DF40, PAIRS, seed=seed) for seed in (0, 1)]
    means = over_trainings(lambda run: df40_means(run, DF40), runs[0], runs)
    values = np.array([df40_means(run, DF40)["auc"] for run in runs])
    np.testing.assert_allclose(means["auc_sd"], values.std(axis=0, ddof=1))
    table = protocol_table(means, runs[0].models, [own.item for own in runs[0].sets], DF40, [])
    assert "±" in cells(table, "A")["P1 mean"]
    assert "over seeds of training" in table.caption


def one_against_all_of(
    runs: Sequence[Evaluation], context: EvaluationContext, videos: Sequence[Evaluation] = ()
) -> Table:
    aucs, video_aucs = ([run.auc for run in each] for each in (runs, videos))
    sets = [own.item for own in runs[0].sets]
    return one_against_all_table(aucs, video_aucs, runs[0].models, sets, context, [])


def test_one_against_all() -> None:
    made = evaluation(DF40, PAIRS)
    auc = made.auc.set_index(["model", "test_set"])["auc"]["simswap"]
    table = one_against_all_of([made], DF40)
    assert list(table.frame["model"]) == ["simswap", "wav2lip"], "specialists alone, and each by family"
    row = table.frame.iloc[0]
    assert row["own"] == pytest.approx(auc["ff/simswap"])
    assert row["FS"] == pytest.approx((auc["ff/inswap"] + auc["deepfacelab/deepfacelab"]) / 2)
    assert row["FR"] == pytest.approx((auc["ff/wav2lip"] + auc["heygen/heygen"]) / 2)
    others = ["ff/inswap", "ff/wav2lip", "ff/sd2_1", "heygen/heygen", "deepfacelab/deepfacelab"]
    assert row["others"] == pytest.approx(auc[others].mean())
    assert row["worst"] == pytest.approx(auc[others].min())
    assert row["worst_set"] == auc[others].idxmin()
    shown = cells(table, "Specialist")
    assert list(shown) == [
        "Specialist",
        "Family",
        "Own",
        "FS",
        "FR",
        "EFS",
        "All others",
        "Worst",
        "Worst on",
    ]
    assert "P4 of DF40 on the generators of this run" in table.caption
    assert "ideo" not in table.caption


def test_one_against_all_of_videos_and_several_trainings() -> None:
    runs = [evaluation(DF40, PAIRS, seed=seed) for seed in (0, 1)]
    table = one_against_all_of(runs, DF40, runs)
    assert table.frame["others_video"].tolist() == pytest.approx(table.frame["others"].tolist())
    assert table.frame["own_sd"].notna().all()
    fewer = evaluation(DF40, [pair for pair in PAIRS if pair[1] != "simswap"])
    table = one_against_all_of(runs[:1], DF40, [fewer])
    assert table.frame["others_video"].notna().tolist() == [True, False], (
        "wav2lip's others have no whole videos"
    )
    assert cells(table, "Wav2Lip")["All others, video"] == "–"


def test_one_against_all_without_specialists_of_one_generator_and_without_others() -> None:
    made = evaluation(DF40, PAIRS, [("base", "base"), ("FS", "specialist"), ("a", "merge")])
    table = one_against_all_of([made], DF40)
    assert table.frame.empty
    assert table.to_markdown().startswith("| Specialist |")
    assert table.to_latex().count(r"\midrule") == 1
    alone = evaluation(DF40, [("ff", "simswap"), ("cdf", "simswap")], [("simswap", "specialist")])
    shown = cells(one_against_all_of([alone], DF40), "Simswap")
    assert shown["All others"] == shown["Worst"] == shown["Worst on"] == "–"
