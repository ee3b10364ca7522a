import pytest
import torch

from r2m.errors import R2MError
from r2m.models.state_dicts import WEIGHTS
from r2m.models.weights import open_weights

AVERAGED = (
    "state_dict_ema",
    "model_ema",
    "params_ema",
    "ema",
    "ema_model",
    "EMA",
    "swa_model",
    "detector_avg",
)
BODY = {"blocks.0.weight": torch.ones(2), "norm.weight": torch.zeros(3)}
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}


@pytest.fixture
def opened(tmp_path):
    """Names and notes of what a checkpoint's weights are."""

    def of(content):
        torch.save(content, tmp_path / "w.pt")
        with open_weights(tmp_path / "w.pt") as weights:
            return list(weights.entries), weights.notes

    return of


@pytest.mark.parametrize("key", [*WEIGHTS, *AVERAGED, "detector", "my_weights"])
def test_a_key_of_any_name(opened, key):
    content = {"epoch": 3, key: BODY, "optimizer": OPTIMIZER, "opt": OPTIMIZER, "loss": torch.tensor(0.7)}
    names, notes = opened(content)
    assert names == sorted(BODY)
    assert notes == [f"weights taken from its key {key!r}; left out: loss"]


@pytest.mark.parametrize("averaged", AVERAGED)
@pytest.mark.parametrize("plain", ["model", "state_dict", "params", "detector"])
def test_plain_weights_before_averaged(opened, plain, averaged):
    names, notes = opened({averaged: {"other": torch.ones(1)}, plain: BODY, "step": torch.tensor(9)})
    assert names == sorted(BODY)
    assert notes == [
        f"weights taken from its key {plain!r}, not the averaged ones under {averaged}; left out: step"
    ]


def test_wrappers_within_wrappers(opened):
    names, notes = opened({"ema": {"module": {"state_dict": BODY}, "decay": 0.9}, "epoch": 1})
    assert names == sorted(BODY)
    assert len(notes) == 3


@pytest.mark.parametrize(
    "content",
    [
        {"generator": BODY, "discriminator": BODY},
        {"student": BODY, "teacher": BODY, "epoch": 3},
        {"model": BODY, "net": BODY},
        {"ema": BODY, "model_ema": BODY},
    ],
)
def test_several_models(opened, content):
    first, second = list(content)[:2]
    with pytest.raises(
        R2MError, match=f"mappings of tensors, '{first}' and '{second}'; save the one to merge alone"
    ):
        opened(content)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"backbone": BODY, "head": {"weight": torch.ones(1)}}, ["backbone.blocks.0.weight", "head.weight"]),
        ({"model": BODY, "classifier": {"bias": torch.ones(1)}}, ["classifier.bias", "model.norm.weight"]),
        (
            {"stem": {"weight": torch.ones(1)}, "layer1": {"conv": {"weight": torch.ones(1)}}},
            ["layer1.conv.weight"],
        ),
        ({"a.weight": torch.ones(1), "sub": {"weight": torch.ones(1)}}, ["a.weight", "sub.weight"]),
        (
            {"state_dict": {"backbone": BODY, "fc": {"weight": torch.ones(1)}}},
            ["backbone.norm.weight", "fc.weight"],
        ),
    ],
)
def test_parts_of_one_model(opened, content, names):
    found, notes = opened(content)
    assert set(names) <= set(found)
    assert "taken for parts of one model" in notes[-1]


def test_averaged_weights_beside_parts(opened):
    names, notes = opened({"backbone": BODY, "fc": {"weight": torch.ones(1)}, "ema": BODY})
    assert names == ["backbone.blocks.0.weight", "backbone.norm.weight", "fc.weight"]
    assert notes[-1] == "left out: ema"


def test_what_is_no_weights_is_named(opened):
    content = {**BODY, "bn.num_batches_tracked": 7, "bn._extra_state": {"scale": torch.ones(1)}}
    content |= {"_metadata": {"version": 1}, "classes": ["real", "fake"], "name": "vit", "none": None}
    names, notes = opened(content)
    assert names == sorted(BODY)
    assert notes == ["left out: bn.num_batches_tracked, bn._extra_state"]


@pytest.mark.parametrize(
    "value", [[0.5, 0.25], [torch.ones(2)], (torch.ones(2), torch.ones(2)), [[1.0], [2.0]]]
)
def test_weights_that_are_no_tensors(opened, value):
    with pytest.raises(R2MError, match=r"w\.pt: 'head\.weight' is a (list|tuple); expected a tensor"):
        opened({**BODY, "head.weight": value})


def test_names_that_become_the_same(opened):
    with pytest.raises(R2MError, match=r"two tensors are called 'sub\.weight'"):
        opened({"sub.weight": torch.ones(1), "sub": {"weight": torch.ones(1)}})


def test_a_mapping_that_holds_itself(opened):
    content = {"a.weight": torch.ones(1)}
    content["sub"] = content
    with pytest.raises(R2MError, match="a mapping that holds itself"):
        opened(content)
