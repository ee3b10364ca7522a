from pathlib import Path

import pytest
import torch
from merge_samples import flatten, random_task_vectors
from safetensors.torch import load_file

from r2m.errors import R2MError
from r2m.merge import merging, registry
from r2m.merge.options import R2M, RankOptions, RealOptions, ResidualOptions, ScaleOptions
from r2m.merge.tensors import apply, task_vector

ORACLES = Path(__file__).parents[1] / "oracles"


@pytest.fixture(scope="module")
def base():
    return load_file(ORACLES / "base.safetensors")


@pytest.fixture(scope="module")
def oracle_vectors(base):
    return {f"s{i}": task_vector(base, load_file(ORACLES / f"specialist{i}.safetensors")) for i in range(3)}


@pytest.mark.parametrize(
    ("name", "options", "oracle"),
    [
        ("weight_averaging", {}, "mergekit_linear"),
        ("task_arithmetic", {"scaling": 0.3}, "task_arithmetic_lam0.3"),
        ("ties", {"keep": 0.2, "scaling": 1.0}, "ties_mean_k20_lam1"),
    ],
)
def test_reference_implementations(base, oracle_vectors, name, options, oracle):
    method = registry.get(name)
    merged = apply(base, merging.merge(method, oracle_vectors, method.options(**options))[0])
    expected = load_file(ORACLES / f"{oracle}.safetensors")
    assert merged.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(merged[key], tensor, atol=1e-5, rtol=0)


def test_defaults_are_those_of_the_reference_runs():
    assert registry.get("task_arithmetic").options().scaling == 0.3
    assert registry.get("ties").options().model_dump() == {"keep": 0.2, "scaling": 1.0}
    assert registry.get("r2m").options().model_dump(exclude_none=True) == {
        "real": {
            "space": "task",
            "rank": 1,
            "core_ratio": 0.02,
            "center": False,
            "scope": "model",
            "block_weight": "none",
        },
        "residual": {"definition": "projection", "rank": {"ratio": 0.1}, "vectors": "keep"},
        "norm_match": "model",
        "scale": {"relative": 0.6},
    }


def complete(method, task_vectors):
    """As many task vectors as a method takes, with a base and statistics beside them."""
    chosen = dict(list(task_vectors.items())[: method.most_specialists])
    every = {key: tensor.shape for one in task_vectors.values() for key, tensor in one.items()}
    inputs = {"base": {key: torch.ones(shape) for key, shape in every.items()}}
    if method.statistics is not None:
        matrices = {key: shape for key, shape in every.items() if len(shape) == 2}
        if "Gram" in method.statistics:
            one = {key: torch.eye(shape[1]) for key, shape in matrices.items()}
        else:
            one = {key: torch.ones(shape) for key, shape in every.items()}
        inputs["statistics"] = dict.fromkeys(chosen, one)
    return chosen, inputs


@pytest.mark.parametrize("name", registry.names())
def test_every_method(name):
    method = registry.get(name)
    task_vectors, inputs = complete(method, random_task_vectors(3))
    before = {key: flatten(one).clone() for key, one in task_vectors.items()}
    update, _ = merging.merge(method, task_vectors, method.options(), **inputs)
    assert {key: tensor.shape for key, tensor in update.items()} == {
        key: tensor.shape for key, tensor in sorted(task_vectors["s0"].items())
    }
    assert all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in update.values())
    assert all(torch.equal(before[key], flatten(one)) for key, one in task_vectors.items())
    absent = {name: dict(one) for name, one in task_vectors.items()}
    del absent["s1"]["pos_embed"]
    merged, _ = merging.merge(method, absent, method.options(), **inputs)
    assert merged["pos_embed"].shape == (1, 5, 6)


@pytest.mark.parametrize("name", registry.names())
def test_mistakes_are_told_by_every_method(name, task_vectors):
    method = registry.get(name)
    task_vectors, inputs = complete(method, task_vectors)
    last = max(task_vectors)
    other = {**task_vectors, last: {**task_vectors[last], "pos_embed": torch.ones(1, 6, 6)}}
    with pytest.raises(R2MError, match=rf"pos_embed: shape \(1, 6, 6\) of '{last}', but \(1, 5, 6\) of 's0'"):
        merging.merge(method, other, method.options(), **inputs)
    nan = {**task_vectors, "s1": {**task_vectors["s1"], "pos_embed": torch.full((1, 5, 6), float("nan"))}}
    with pytest.raises(R2MError, match="pos_embed: 's1' holds NaN"):
        merging.merge(method, nan, method.options(), **inputs)
    with pytest.raises(R2MError, match="at least one"):
        merging.merge(method, {}, method.options())


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("task_arithmetic", [{"scaling": 0.1}, {"scaling": 0.5}]),
        ("ties", [{"keep": 0.1}, {"keep": 0.5, "scaling": 2}]),
        ("r2m", [{"scale": {"relative": 1}}, {"residual": {"rank": {"energy": 0.5}}}]),
    ],
)
def test_sweep_equals_single_merges(task_vectors, name, candidates):
    method = registry.get(name)
    candidates = [method.options.model_validate(one) for one in candidates]
    results = list(merging.sweep(method, task_vectors, candidates))
    assert len(results) == len(candidates)
    for options, update in results:
        assert options in candidates
        single, _ = merging.merge(method, task_vectors, options)
        torch.testing.assert_close(flatten(update), flatten(single), rtol=1e-5, atol=1e-9)


SCALED = [name for name in registry.names() if "scaling" in registry.get(name).options.model_fields]


@pytest.mark.parametrize("name", SCALED)
def test_proportional_methods_say_so(task_vectors, name):
    method = registry.get(name)
    task_vectors, inputs = complete(method, task_vectors)
    once, twice = (
        flatten(merging.merge(method, task_vectors, method.options(scaling=scaling), **inputs)[0])
        for scaling in (1, 2)
    )
    difference = torch.linalg.norm(twice - 2 * once)
    assert (difference <= 1e-6 * torch.linalg.norm(twice)) == method.is_proportional


def test_sweep_merges_proportional_candidates_once(task_vectors, monkeypatch):
    calls = []
    monkeypatch.setattr(
        merging,
        "merge",
        lambda *args, real=merging.merge, **kwargs: calls.append(args[2]) or real(*args, **kwargs),
    )
    method = registry.get("ties")
    candidates = [
        method.options(keep=keep, scaling=scaling) for keep in (0.2, 0.5) for scaling in (0.5, 1.0, 2.0)
    ]
    assert [options for options, _ in merging.sweep(method, task_vectors, candidates)] == candidates
    assert [one.keep for one in calls] == [0.2, 0.5]


def test_registry():
    assert " ".join(registry.names()) == (
        "breadcrumbs cart consensus dare dc_merge della esm fisher iso_c iso_cts karcher knots_ties"
        " lines model_stock nuslerp pcb r2m regmean sce score slerp subspace_boosting svc swudi"
        " task_arithmetic ties tsv_m weight_averaging wudi"
    )
    assert registry.get("r2m").options is R2M
    with pytest.raises(R2MError, match="unknown merging method 'tis'; did you mean 'ties'"):
        registry.get("tis")


def test_options_need_no_torch():
    import subprocess
    import sys

    code = (
        "import sys; from r2m.merge import registry;"
        "[registry.get(one).options() for one in registry.names()];"
        "sys.exit(bool({'torch', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("model", "value", "message"),
    [
        (RankOptions, {}, "expected exactly one of ratio"),
        (RankOptions, {"ratio": 0.1, "fixed": 3}, "got \\['ratio', 'fixed'\\]"),
        (RankOptions, {"ratio": 0}, "greater than 0"),
        (RankOptions, {"optimal_threshold": False}, "expected true"),
        (RankOptions, {"energie": 0.4}, "did you mean 'energy'"),
        (ScaleOptions, {}, "expected exactly one"),
        (ScaleOptions, {"relative": 0.6, "absolute": 1}, "expected exactly one"),
        (ScaleOptions, {"relative": -1}, "greater than or equal"),
        (RealOptions, {"rank": 0}, "greater than 0"),
        (RealOptions, {"space": "weight"}, "'task' or 'matrix'"),
        (ResidualOptions, {"vectors": "maybe"}, "'keep' or 'drop'"),
        (R2M, {"norm_match": "global"}, "'model', 'layer' or 'none'"),
    ],
)
def test_wrong_options(model, value, message):
    with pytest.raises(ValueError, match=message):
        model.model_validate(value)


@pytest.mark.parametrize("name", registry.names())
def test_options_survive_json(name):
    method = registry.get(name)
    options = method.options()
    for exclude_none in (False, True):
        text = options.model_dump_json(exclude_none=exclude_none)
        assert method.options.model_validate_json(text) == options
