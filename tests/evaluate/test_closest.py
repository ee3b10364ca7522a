"""Which specialist responds most to a fake, from scores whose right answers are known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from r2m.evaluate.closest import CLOSEST_COLUMNS, CLOSEST_KEYS, closest, closest_table, own_calibrations
from r2m.evaluate.evaluation import evaluate, read_scores
from r2m.evaluate.protocols import EvaluationContext
from r2m.evaluate.seeds import mean_over_seeds
from r2m.models.decision import Decision
from r2m.report.closest_table import closest_specialists_table
from r2m.train.deciding import platt

MEMBERS = {name: [name] for name in ("swap", "tps", "up")}


def table_of(
    files: list[Path], context: EvaluationContext, members: dict[str, list[str]] = MEMBERS
) -> pd.DataFrame:
    run = evaluate(map(read_scores, files), context, resamples=50, seed=0)
    calibrations = own_calibrations(map(read_scores, files), members, context)
    return closest_table(run, calibrations, members, context, resamples=50, seed=0)


def test_calibrations_are_of_the_specialists_own_val(
    score_files: list[Path], context: EvaluationContext
) -> None:
    found = own_calibrations(map(read_scores, score_files), MEMBERS, context)
    assert set(found) == set(MEMBERS)
    frame = read_scores(score_files[1]).frame.query("split == 'val'")
    frame = frame.sort_values("image_id")
    own, reals = (frame.loc[frame["generator"] == name, "logit"].to_numpy(float) for name in ("swap", "real"))
    slope, offset = platt([(reals, own)])
    assert found["swap"] == Decision(slope=slope, offset=offset)


def test_shares_counts_and_right_answers(score_files: list[Path], context: EvaluationContext) -> None:
    table = table_of(score_files, context)
    assert list(table.columns) == CLOSEST_COLUMNS
    assert not table.duplicated(CLOSEST_KEYS).any()
    cells = table[(table["specialist"] != "") & (table["test_set"] != "")]
    assert len(cells) == 4 * 3
    assert (cells.groupby("test_set")["count"].sum() == 30).all()
    np.testing.assert_allclose(cells.groupby("test_set")["share"].sum(), 1)
    assert (table["low"] <= table["share"]).all()
    assert (table["share"] <= table["high"]).all()
    trained = table[table["protocol"] == "in_distribution"]
    right = trained[trained["is_right"] == 1]
    own = right[right["specialist"] != ""]
    assert (own["specialist"] == own["generator"]).all()
    mean = right[right["test_set"] == ""].iloc[0]
    assert mean["share"] == pytest.approx(own["share"].mean())
    assert mean["share"] > 0.9, "logits are three standard deviations apart"
    assert mean["chance"] == pytest.approx(1 / 3)
    assert (mean["n_fake"], mean["count"]) == (90, own["count"].sum())


def test_probabilities_are_compared_by_hand(score_files: list[Path], context: EvaluationContext) -> None:
    files = {path.stem: path for path in score_files if path.stem in MEMBERS}
    calibrations = own_calibrations(map(read_scores, score_files), MEMBERS, context)
    fakes = {
        name: read_scores(path).frame.query("split == 'test' and domain == 'a' and generator == 'inp'")
        for name, path in files.items()
    }
    said = pd.DataFrame(
        {name: calibrations[name].probabilities(frame["logit"]) for name, frame in fakes.items()}
    )
    expected = said.idxmax(axis=1).value_counts()
    table = table_of(score_files, context).query("test_set == 'a/inp'").set_index("specialist")["count"]
    assert {name: table[name] for name in MEMBERS} == {name: expected.get(name, 0) for name in MEMBERS}


def test_an_unseen_generator_is_right_by_its_family(
    score_files: list[Path], context: EvaluationContext
) -> None:
    assert table_of(score_files, context).query("protocol == 'unseen_generator'")["is_right"].eq(0).all()
    editing = context.generators["inp"].model_copy(update={"family": "FS"})
    context = context.model_copy(update={"generators": context.generators | {"inp": editing}})
    unseen = table_of(score_files, context).query("protocol == 'unseen_generator'").set_index("specialist")
    assert unseen["is_right"].to_dict() == {"swap": 1, "tps": 0, "up": 0, "": 1}
    assert (unseen.loc[""]["share"] == unseen.loc["swap", "share"]).all()
    assert unseen.loc[""].query("test_set == ''")["chance"].item() == 1


def test_specialists_of_several_generators_and_of_none(
    score_files: list[Path], context: EvaluationContext
) -> None:
    members = {"swap": ["swap", "tps"], "up": []}
    table = table_of(score_files, context, members).query("protocol == 'in_distribution'")
    assert set(table["specialist"]) == {"swap", ""}
    assert set(table["generator"]) == {"swap", "tps", ""}, "up has no specialist to be named"
    assert (table["share"] == 1).all()
    assert table.loc[table["test_set"] == "", "chance"].item() == 1


@pytest.mark.parametrize("members", [{}, {"swap": ["gone"]}])
def test_no_specialists(
    score_files: list[Path], context: EvaluationContext, members: dict[str, list[str]]
) -> None:
    table = table_of(score_files, context, members)
    assert list(table.columns) == CLOSEST_COLUMNS
    assert table.empty
    none = mean_over_seeds([table, table], CLOSEST_KEYS)
    assert list(none.columns) == CLOSEST_COLUMNS
    run = evaluate(map(read_scores, score_files), context, resamples=50, seed=0)
    rendered = closest_specialists_table(none, run.models, context)
    assert rendered.to_markdown().startswith("| Generator | Family | Right | Chance |")
    assert "begin{tabular}" in rendered.to_latex()


def test_means_over_seeds(
    score_files: list[Path], context: EvaluationContext, rewrite: Callable[..., Path]
) -> None:
    first = table_of(score_files, context)
    noise = np.random.default_rng(0).normal(0, 2, len(read_scores(score_files[1]).frame))
    rewrite(score_files[1], lambda frame: frame.assign(logit=frame["logit"] + noise))
    other = table_of(score_files, context)
    mean = mean_over_seeds([first, other], CLOSEST_KEYS)
    np.testing.assert_allclose(mean["share"], (first["share"] + other["share"]) / 2)
    assert set(mean["is_right"]) == {0, 1}
    assert pd.api.types.is_integer_dtype(mean["count"])


def test_readers_table(score_files: list[Path], context: EvaluationContext) -> None:
    run = evaluate(map(read_scores, score_files), context, resamples=50, seed=0)
    table = table_of(score_files, context)
    lines = closest_specialists_table(table, run.models, context).to_markdown().splitlines()
    assert lines[0] == "| Generator | Family | Swap | Tps | Up | Right | Chance |"
    assert lines[2].startswith("| *Trained generators; right: their own specialist* |")
    assert lines[3].startswith("| Swap_1 | FS | ")
    assert lines[6].startswith("| Mean |  | – | – | – | ")
    assert lines[6].endswith("| 0.33 |")
    assert lines[8].startswith("| inp | FE | ")
    assert lines[8].endswith(" | – | – |"), "no specialist is of its family"


@given(arrays(float, (3, 20), elements=st.floats(0, 1)), st.permutations(range(3)))
def test_the_order_of_specialists_changes_no_answer(responses: np.ndarray, order: list[int]) -> None:
    places = closest(responses)
    greatest = responses.max(axis=0)
    np.testing.assert_array_equal(responses[places, np.arange(20)], greatest)
    turned = closest(responses[order])
    is_single = (responses == greatest).sum(axis=0) == 1
    np.testing.assert_array_equal(np.array(order)[turned][is_single], places[is_single])
