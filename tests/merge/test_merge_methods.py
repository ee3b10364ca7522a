from pathlib import Path

import numpy as np
import pytest
import torch
from merge_samples import flatten, random_task_vectors
from safetensors.torch import load_file

from r2m.errors import R2MError
from r2m.merge import registry
from r2m.merge.methods import ties
from r2m.merge.options import OPTIONS, R2M, RankOptions, RealOptions, ResidualOptions, ScaleOptions
from r2m.merge.task_vector import apply, task_vector

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
    merged = apply(base, method.merge(oracle_vectors, method.options(**options)))
    expected = load_file(ORACLES / f"{oracle}.safetensors")
    assert merged.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(merged[key], tensor, atol=1e-5, rtol=0)


def test_defaults_are_those_of_the_reference_runs():
    assert OPTIONS["task_arithmetic"]().scaling == 0.3
    assert OPTIONS["ties"]().model_dump() == {"keep": 0.2, "scaling": 1.0}
    assert OPTIONS["r2m"]().model_dump(exclude_none=True) == {
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


def naive_ties(rows, keep, scaling):
    """TIES on a (K, P) array, entry by entry, after the paper's algorithm 1."""
    count, size = rows.shape
    kept = int(keep * size)
    trimmed = np.zeros_like(rows)
    for k in range(count):
        threshold = sorted(abs(rows[k]))[max(0, size - kept - 1)]
        for p in range(size):
            if abs(rows[k, p]) >= threshold:
                trimmed[k, p] = rows[k, p]
    signs = np.sign(trimmed.sum(0))
    signs[signs == 0] = np.sign(signs.sum())
    merged = np.zeros(size, dtype=rows.dtype)
    for p in range(size):
        agreeing = [value for value in trimmed[:, p] if value != 0 and (value > 0) == (signs[p] > 0)]
        merged[p] = sum(agreeing) / len(agreeing) if agreeing else 0.0
    return scaling * merged


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("keep", [0.01, 0.2, 0.77, 1.0])
def test_ties_against_a_transcription(count, keep):
    task_vectors = random_task_vectors(count, seed=count)
    keys = sorted(task_vectors["s0"])
    rows = np.stack([flatten(one).float().numpy() for one in task_vectors.values()])
    expected = naive_ties(rows, keep, 0.7)
    update = ties.merge(task_vectors, keep=keep, scaling=0.7)
    assert list(update) == keys
    np.testing.assert_allclose(flatten(update).numpy(), expected, atol=1e-9)


def test_ties_with_tied_magnitudes_and_cancelling_sums():
    # Small whole numbers: many magnitudes tie and many trimmed sums are zero.
    generator = torch.Generator().manual_seed(4)
    for _ in range(20):
        rows = torch.randint(-2, 3, (4, 30), generator=generator).float()
        task_vectors = {f"s{k}": {"a": row[:18].reshape(3, 6), "b": row[18:]} for k, row in enumerate(rows)}
        update = ties.merge(task_vectors, keep=0.4, scaling=1.0)
        np.testing.assert_allclose(flatten(update).numpy(), naive_ties(rows.numpy(), 0.4, 1.0), atol=1e-6)


def test_ties_keeps_one_more_than_the_share():
    tensors = {"w": torch.arange(1.0, 101).reshape(10, 10)}
    least = ties.threshold(tensors, tensors, 0.2)
    assert (tensors["w"] >= least).sum() == 21


@pytest.mark.parametrize("name", registry.names())
def test_every_method(name):
    method = registry.get(name)
    task_vectors = random_task_vectors(3)
    before = {key: flatten(one).clone() for key, one in task_vectors.items()}
    update = method.merge(task_vectors, method.options())
    assert {key: tensor.shape for key, tensor in update.items()} == {
        key: tensor.shape for key, tensor in sorted(task_vectors["s0"].items())
    }
    assert all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in update.values())
    assert all(torch.equal(before[key], flatten(one)) for key, one in task_vectors.items())
    absent = {name: dict(one) for name, one in task_vectors.items()}
    del absent["s1"]["pos_embed"]
    absent["s2"]["pos_embed"] = torch.zeros(1, 5, 6)
    assert method.merge(absent, method.options())["pos_embed"].shape == (1, 5, 6)


@pytest.mark.parametrize("name", registry.names())
def test_mistakes_are_told_by_every_method(name, task_vectors):
    method = registry.get(name)
    other = {**task_vectors, "s2": {**task_vectors["s2"], "pos_embed": torch.ones(1, 6, 6)}}
    with pytest.raises(
        R2MError, match=r"pos_embed: shape \(1, 6, 6\) in task vector 's2', but \(1, 5, 6\) in 's0'"
    ):
        method.merge(other, method.options())
    nan = {**task_vectors, "s1": {**task_vectors["s1"], "pos_embed": torch.full((1, 5, 6), float("nan"))}}
    with pytest.raises(R2MError, match="pos_embed: task vector 's1' holds NaN"):
        method.merge(nan, method.options())
    with pytest.raises(R2MError, match="at least one"):
        method.merge({}, method.options())


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
    results = list(method.sweep(task_vectors, candidates))
    assert len(results) == len(candidates)
    for options, update in results:
        assert options in candidates
        single = method.merge(task_vectors, options)
        assert all(torch.equal(update[key], single[key]) for key in single)


def test_registry():
    assert registry.names() == ["r2m", "task_arithmetic", "ties", "weight_averaging"]
    assert registry.get("r2m").options is R2M
    with pytest.raises(R2MError, match="unknown merging method 'tis'; did you mean 'ties'"):
        registry.get("tis")


def test_options_need_no_torch():
    import subprocess
    import sys

    code = (
        "import sys; from r2m.merge import registry; registry.get('r2m').options();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("model", "value", "message"),
    [
        (RankOptions, {}, "expected exactly one of ratio"),
        (RankOptions, {"ratio": 0.1, "fixed": 3}, "got \\['ratio', 'fixed'\\]"),
        (RankOptions, {"ratio": 0}, "greater than 0"),
        (RankOptions, {"optimal_threshold": False}, "True"),
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
    options = OPTIONS[name]()
    for exclude_none in (False, True):
        text = options.model_dump_json(exclude_none=exclude_none)
        assert OPTIONS[name].model_validate_json(text) == options
