"""Weights per specialist: what they do to a merge, and who takes none."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from r2m.errors import R2MError
from r2m.merge import api, recipe, registry
from r2m.merge.engine import Settings, merge_files
from r2m.merge.stream import MemorySource
from r2m.merge.weights import Weighted, factors
from r2m.models import checkpoint

REFUSING = [name for name in registry.names() if registry.get(name).unweighted]
TAKING = [name for name in registry.names() if name not in REFUSING]
NAMES = ("a", "b", "c")


def models(seed=0):
    """A base and three specialists with matrices, vectors and running statistics."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {f"blocks.{i}.mlp.weight": (12, 8) for i in range(3)} | {
        "norm.bias": (8,),
        "bn.running_var": (4,),
    }
    base = {key: torch.rand(shape, generator=generator) + 1 for key, shape in shapes.items()}
    specialists = {
        name: {key: one + 0.1 * torch.randn(one.shape, generator=generator) for key, one in base.items()}
        for name in NAMES
    }
    return base, specialists


def statistics_of(name, base, specialists):
    if registry.get(name).statistics is None:
        return None
    grams = {key: torch.eye(one.shape[1]) for key, one in base.items() if one.ndim == 2}
    return dict.fromkeys(specialists, grams)


def moved(base, specialists, by):
    """Specialists moved by other task vectors: θ₀ + w_k τ_k."""
    return {
        name: {key: base[key] + by[name] * (one[key] - base[key]) for key in base}
        for name, one in specialists.items()
    }


def options_of(name):
    return {"drop": 0.0, "eps": 0.0} if name == "della" else {}


def assert_close(found, expected, tolerance=2e-5):
    assert found.keys() == expected.keys()
    for key, tensor in found.items():
        torch.testing.assert_close(tensor, expected[key], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", TAKING)
def test_a_weighted_merge_is_that_of_specialists_moved_so_far(name):
    base, specialists = models()
    statistics = statistics_of(name, base, specialists)
    weights = {"a": 2.0, "b": 1.5, "c": 2.5}
    found = api.merge(name, base, specialists, options_of(name), weights=weights, statistics=statistics)
    by = {key: weight / 2 for key, weight in weights.items()}
    expected = api.merge(name, base, moved(base, specialists, by), options_of(name), statistics=statistics)
    assert_close(found, expected, tolerance=1e-3 if name == "wudi" else 2e-5)
    plain = api.merge(name, base, specialists, options_of(name), statistics=statistics)
    assert any(not torch.allclose(found[key], plain[key], atol=1e-6) for key in base)


@pytest.mark.parametrize("name", TAKING)
@pytest.mark.parametrize("weight", [0.3, 7.0])
def test_equal_weights_change_nothing(name, weight):
    base, specialists = models()
    statistics = statistics_of(name, base, specialists)
    found = api.merge(name, base, specialists, weights=dict.fromkeys(NAMES, weight), statistics=statistics)
    plain = api.merge(name, base, specialists, statistics=statistics)
    assert all(torch.equal(found[key], plain[key]) for key in base)


@given(
    weights=st.lists(st.floats(0, 100, allow_subnormal=False), min_size=3, max_size=3).filter(
        lambda w: sum(w) > 0.1
    )
)
@settings(max_examples=25, deadline=None)
def test_weight_averaging_is_the_weighted_mean(weights):
    base, specialists = models()
    found = api.merge("weight_averaging", base, specialists, weights=dict(zip(NAMES, weights, strict=True)))
    for key, tensor in found.items():
        total = sum(w * one[key].double() for w, one in zip(weights, specialists.values(), strict=True))
        torch.testing.assert_close(tensor.double(), total / sum(weights), atol=1e-6, rtol=0)


def test_task_arithmetic_takes_weights_relative_to_their_mean():
    base, specialists = models()
    found = api.merge("task_arithmetic", base, specialists, {"scaling": 0.5}, weights={"a": 4.0})
    for key in ("norm.bias", "blocks.1.mlp.weight"):
        total = sum(
            w * (one[key] - base[key]) for w, one in zip((2, 0.5, 0.5), specialists.values(), strict=True)
        )
        torch.testing.assert_close(found[key], base[key] + 0.5 * total)
    weighted = (
        sum(w * one["bn.running_var"] for w, one in zip((4, 1, 1), specialists.values(), strict=True)) / 6
    )
    torch.testing.assert_close(found["bn.running_var"], weighted)


def test_a_weight_of_zero_leaves_a_specialist_out_of_the_mean():
    base, specialists = models()
    found = api.merge("weight_averaging", base, specialists, weights={"b": 0})
    assert_close(found, api.merge("weight_averaging", base, {name: specialists[name] for name in "ac"}), 1e-6)


@given(weights=st.dictionaries(st.sampled_from(NAMES), st.floats(0, 1e308), max_size=3))
@settings(deadline=None)
def test_factors_have_mean_one(weights):
    method = registry.get("ties")
    complete = [weights.get(name, 1.0) for name in NAMES]
    if max(complete) == 0:
        with pytest.raises(R2MError, match="weights: all are 0"):
            factors(method, weights, NAMES)
        return
    found = factors(method, weights, NAMES)
    if found is None:
        assert len(set(complete)) == 1
        return
    assert sum(found.values()) == pytest.approx(3)
    for name, weight in zip(NAMES, complete, strict=True):
        assert found[name] * (max(complete) / max(found.values())) == pytest.approx(weight)


@pytest.mark.parametrize("name", REFUSING)
def test_methods_that_take_none_say_why(name):
    base, specialists = models()
    method = registry.get(name)
    some = dict(list(specialists.items())[: method.most_specialists])
    with pytest.raises(R2MError, match=rf"weights: {name} takes none, it"):
        api.merge(name, base, some, weights={"a": 2.0}, statistics=statistics_of(name, base, some))


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ({"d": 1.0}, "weights: no specialist 'd'; expected one of a, b, c"),
        ({"a": -1.0}, "weights: a: expected a finite number of at least 0, got -1.0"),
        ({"a": math.inf}, "weights: a: expected a finite number"),
        ({"a": math.nan}, "weights: a: expected a finite number"),
        (dict.fromkeys(NAMES, 0.0), "weights: all are 0; expected one above 0"),
    ],
)
def test_mistakes_are_told(weights, text):
    base, specialists = models()
    with pytest.raises(R2MError, match=text):
        api.merge("ties", base, specialists, weights=weights)


def test_a_weighted_source_gives_the_same_one_by_one_and_at_once():
    generator = torch.Generator().manual_seed(1)
    task_vectors = {name: {"w": torch.randn(4, 5, generator=generator)} for name in NAMES}
    statistics = {name: {"w": torch.eye(5)} for name in NAMES}
    source = MemorySource(task_vectors, {"w": torch.ones(4, 5)}, statistics)
    weighted = Weighted(source, [2.0, 0.5, 0.0])
    stacked = weighted.task_vectors("w", 3, 11)
    for index, (name, factor) in enumerate(zip(NAMES, (2.0, 0.5, 0.0), strict=True)):
        expected = factor * task_vectors[name]["w"].reshape(-1)[3:11]
        assert torch.equal(weighted.task_vector(index, "w", 3, 11), expected)
        assert torch.equal(stacked[index], expected)
    assert torch.equal(weighted.base("w", 0, 20), torch.ones(20))
    assert torch.equal(weighted.statistic(0, "w", 0, 20), torch.eye(5))
    assert torch.equal(source.task_vectors("w", 3, 11)[0], task_vectors["a"]["w"].reshape(-1)[3:11])


# Files


def merged_files(folder, method="ties", name="m", **fields):
    base, specialists = models()
    paths = {key: folder / f"{key}.safetensors" for key in ("base", *NAMES)}
    for key, tensors in {"base": base, **specialists}.items():
        save_file(tensors, paths[key])
    content = {"method": method, "base": paths.pop("base"), "specialists": paths, **fields}
    report = merge_files(recipe.build({**content, "out": folder / f"{name}.safetensors"}, "test"), Settings())
    return folder / f"{name}.safetensors", report


@pytest.mark.parametrize("method", ["weight_averaging", "ties", "r2m"])
def test_files_are_merged_as_tensors_in_memory(tmp_path, method):
    base, specialists = models()
    weights = {"a": 3.0, "b": 0.5}
    path, report = merged_files(tmp_path, method, weights=weights)
    assert_close(load_file(path), api.merge(method, base, specialists, weights=weights), 1e-6)
    effective = {"a": 2.0, "b": pytest.approx(1 / 3), "c": pytest.approx(2 / 3)}
    assert report["weights"] == effective
    assert json.loads(checkpoint.load(path)[1]["weights"]) == effective
    # What is told of the specialists is told of them as they are.
    _, plain = merged_files(tmp_path, method, "plain")
    assert report["inputs"] == plain["inputs"]
    assert report["warnings"] == plain["warnings"]
    assert "weights" not in plain
    assert report["update_norm"] != plain["update_norm"]


def test_equal_weights_give_the_same_file(tmp_path):
    plain, _ = merged_files(tmp_path)
    alike, _ = merged_files(tmp_path, name="alike", weights=dict.fromkeys(NAMES, 0.3))
    assert plain.read_bytes() == alike.read_bytes()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"method": "slerp", "weights": {"a": 2.0}}, "weights: slerp takes none, its option t"),
        ({"weights": {"a": "much"}}, r"weights\.a: expected a number"),
        ({"weights": {"d": 2.0}}, "weights: no specialist 'd'"),
        (
            {"method": "r2m", "weights": {"a": 2.0}, "gram_cache": "g.safetensors"},
            "gram_cache: holds inner products",
        ),
    ],
)
def test_recipes_are_checked(tmp_path, fields, text):
    with pytest.raises(R2MError, match=text):
        merged_files(tmp_path, **fields)
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize("name", ["karcher", "sce"])
def test_calibration_lets_no_method_take_weights(name, tmp_path):
    """What is calibrated merges, so what it says of weights holds."""
    base, specialists = models()
    with pytest.raises(R2MError, match=f"weights: {name} takes none"):
        api.merge(name, base, specialists, {"calibrate": "svc"}, weights={"a": 2.0})
    content = {"method": name, "base": "b", "specialists": {"a": "a", "b": "c"}, "out": tmp_path / "out"}
    content |= {"options": {"calibrate": "svc"}, "weights": {"a": 2.0}}
    with pytest.raises(R2MError, match=f"weights: {name} takes none"):
        recipe.build(content, "here").resolved()
