from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from r2m.errors import R2MError
from r2m.evaluate.protocols import (
    EvaluationContext,
    describe,
    group_title,
    order_models,
    order_test_sets,
    panel_title,
    panels,
    read_table,
)


@pytest.mark.parametrize(
    ("domain", "generator", "protocol", "panel"),
    [
        ("a", "swap", "in_distribution", "in_distribution"),
        ("a", "inp", "unseen_generator", "unseen_generator"),
        ("swap", "swap", "in_distribution", "in_distribution"),
        ("inp", "inp", "unseen_generator", "unseen_generator"),
        ("b", "swap", "cross_dataset", "cross_dataset_trained"),
        ("b", "inp", "cross_dataset", "cross_dataset_unseen"),
    ],
)
def test_protocol(context: EvaluationContext, domain: str, generator: str, protocol: str, panel: str) -> None:
    item = describe(domain, generator, context)
    assert (item.protocol, item.panel, item.name) == (protocol, panel, f"{domain}/{generator}")


@pytest.mark.parametrize(("domain", "generator"), [("c", "swap"), ("a", "gone"), ("swap", "tps")])
def test_unknown_names_are_errors(context: EvaluationContext, domain: str, generator: str) -> None:
    with pytest.raises(R2MError, match=f"{domain}/{generator}"):
        describe(domain, generator, context)


def test_order_is_protocol_then_domain_then_family(context: EvaluationContext) -> None:
    pairs = [(d, g) for g in context.generators for d in ("b", "a")] + [("tps", "tps")]
    ordered = order_test_sets([describe(d, g, context) for d, g in pairs], context)
    names = [item.name for item in ordered]
    assert names[:5] == ["a/swap", "a/tps", "a/up", "tps/tps", "a/inp"]
    assert names[5:] == ["b/swap", "b/tps", "b/up", "b/inp"]
    assert order_test_sets(ordered[::-1], context) == ordered


def test_titles(context: EvaluationContext) -> None:
    assert group_title(describe("a", "inp", context), context) == "CelebA\nunseen generators"
    assert group_title(describe("tps", "tps", context), context) == "own reals\ntrained generators"
    assert (context.domain_label("b"), context.domain_label("swap")) == ("b", "Swap_1")


def test_groups_of_unseen_generators(grouped: EvaluationContext) -> None:
    assert grouped.groups == ["other", "old", "new"]
    found = {name: describe("a", name, grouped) for name in grouped.generators}
    assert {name: item.group for name, item in found.items()} == {
        "tps": "other",
        "swap": None,
        "up": "old",
        "inp": "new",
    }
    assert found["inp"].panel == "unseen_generator/new"
    assert describe("b", "inp", grouped).panel == "cross_dataset_unseen"
    assert panels(grouped) == [
        "in_distribution",
        *(f"unseen_generator/{group}" for group in grouped.groups),
        *("cross_dataset_trained", "cross_dataset_unseen"),
    ]
    assert panel_title("unseen_generator/new") == "Unseen generators,\nnew"
    assert group_title(found["inp"], grouped) == "CelebA\nunseen generators,\nnew"
    assert group_title(found["swap"], grouped) == "CelebA\ntrained generators"


def test_a_single_group_parts_nothing(context: EvaluationContext) -> None:
    alone = context.generators["inp"].model_copy(update={"group": "new"})
    one = context.model_copy(update={"generators": {**context.generators, "inp": alone}})
    assert one.groups == []
    for domain in "ab":
        assert describe(domain, "inp", one) == describe(domain, "inp", context)
    assert panels(one) == panels(context)


def test_generators_of_a_group_stand_together() -> None:
    unseen = {"up": ("EFS", "new"), "poisson": ("FS", "old"), "sbi": ("FS", "new"), "attr": ("FE", None)}
    generators = {
        name: {"family": family, "role": "unseen", "group": group} for name, (family, group) in unseen.items()
    }
    context = EvaluationContext.model_validate(
        {"generators": {**generators, "swap": {"family": "FS"}}, "domains": {"a": {"role": "train"}}}
    )
    sets = [describe("a", name, context) for name in ("attr", "poisson", "up", "swap", "sbi")]
    names = [item.generator for item in order_test_sets(sets, context)]
    assert names == ["swap", "sbi", "up", "poisson", "attr"]


def test_models_are_ordered_by_kind_and_family(context: EvaluationContext) -> None:
    rows = [
        ("z", "merge"),
        ("joint", "joint"),
        ("a", "merge"),
        ("tps", "specialist"),
        ("family", "specialist"),
    ]
    rows += [("swap", "specialist"), ("base", "base")]
    ordered = order_models(pd.DataFrame(rows, columns=["model", "kind"]), context)
    assert list(ordered["model"]) == ["base", "swap", "tps", "family", "joint", "z", "a"]


def test_context_rejects_unknown_keys() -> None:
    with pytest.raises(ValidationError, match="rol"):
        EvaluationContext.model_validate({"domains": {"a": {"rol": "train"}}})


def test_names_in_tables_stay_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("model,label,method,auc\nnull,42,,0.5\n")
    frame = read_table(tmp_path / "t.csv")
    assert frame.iloc[0].tolist() == ["null", "42", "", 0.5]
    with pytest.raises(R2MError, match=r"none\.csv"):
        read_table(tmp_path / "none.csv")
