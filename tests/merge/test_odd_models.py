"""Models with something odd, merged from files and in memory."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from r2m.errors import R2MError
from r2m.merge import api, merging, recipe, registry, stages
from r2m.merge.engine import Settings, merge_files
from r2m.merge.options import R2M
from r2m.merge.passes import parts
from r2m.merge.tensors import task_vector
from r2m.models import checkpoint

DATA_FREE = [name for name in registry.names() if registry.get(name).statistics is None]
INF, NAN = float("inf"), float("nan")


def models(count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    base = {f"blocks.{i}.mlp.weight": torch.randn(12, 8, generator=generator) for i in range(2)}
    base |= {"norm.bias": torch.randn(8, generator=generator)}
    specialists = {
        name: {key: one + 0.01 * torch.randn(one.shape, generator=generator) for key, one in base.items()}
        for name in "abc"[:count]
    }
    return base, specialists


def merged_files(
    folder, base, specialists, method="weight_averaging", settings=None, suffix="safetensors", **fields
):
    paths = {}
    for name, tensors in {"base": base, **specialists}.items():
        paths[name] = folder / f"{name}.{suffix}"
        if suffix == "pt":
            torch.save(tensors, paths[name])
        else:
            save_file(tensors, paths[name])
    content = {"method": method, "base": paths.pop("base"), "specialists": paths, **fields}
    asked = recipe.build({**content, "out": folder / "m.safetensors"}, "test")
    report = merge_files(asked, settings or Settings(force=True))
    return load_file(folder / "m.safetensors"), report


# Values that are not finite


@pytest.mark.parametrize("method", ["weight_averaging", "ties", "r2m"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_tensors_that_are_not_finite_are_the_mean_of_the_weights(tmp_path, method, dtype):
    base, specialists = models()
    mask = torch.full((3, 3), -INF).triu(1)
    base["mask"] = mask
    values = {"a": mask, "b": mask.clone(), "c": mask.clone()}
    values["b"][0, 0], values["c"][1, 0], values["c"][0, 1] = INF, NAN, 6.0
    everything = {name: one | {"mask": values[name]} for name, one in specialists.items()}
    base, *rest = (
        {key: one.to(dtype) for key, one in tensors.items()} for tensors in (base, *everything.values())
    )
    everything = dict(zip(everything, rest, strict=True))
    expected = (sum(one["mask"].double() for one in everything.values()) / 3).to(dtype)
    assert expected[0, 2] == -INF
    assert expected[0, 0] == INF
    found, report = merged_files(
        tmp_path, base, everything, method, Settings(allow_nonfinite=True, force=True)
    )
    torch.testing.assert_close(found["mask"], expected, equal_nan=True, atol=0, rtol=0)
    assert report["nonfinite"] == ["mask"]
    memory = api.merge(method, base, everything, allow_nonfinite=True)
    torch.testing.assert_close(memory["mask"], expected, equal_nan=True, atol=0, rtol=0)
    for key, tensor in found.items():
        torch.testing.assert_close(tensor, memory[key], equal_nan=True, atol=1e-3, rtol=0)
    with pytest.raises(R2MError, match="mask: the specialist or the base holds NaN or infinite values"):
        api.merge(method, base, everything)


def test_a_model_of_nothing_finite(tmp_path):
    base, specialists = (
        {"w": torch.full((2, 2), NAN)},
        {"a": {"w": torch.ones(2, 2)}, "b": {"w": torch.zeros(2, 2)}},
    )
    for method in ("ties", "r2m", "weight_averaging"):
        found, _ = merged_files(
            tmp_path, base, specialists, method, Settings(allow_nonfinite=True, force=True)
        )
        assert torch.equal(found["w"], torch.full((2, 2), 0.5))
        assert torch.equal(api.merge(method, base, specialists, allow_nonfinite=True)["w"], found["w"])


def test_a_mask_of_the_least_half_is_finite(tmp_path):
    base, specialists = models()
    mask = torch.full((3, 3), torch.finfo(torch.float16).min).triu(1).half()
    everything = {name: one | {"mask": mask} for name, one in specialists.items()}
    for method in ("weight_averaging", "task_arithmetic", "karcher", "r2m"):
        found, report = merged_files(tmp_path, base | {"mask": mask}, everything, method)
        assert torch.equal(found["mask"], mask)
        assert report["nonfinite"] == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sums_beyond_the_dtype(tmp_path, dtype):
    most = torch.finfo(dtype).max
    base = {"w": torch.full((4, 4), 0.8 * most).to(dtype)}
    specialists = {
        name: {"w": torch.full((4, 4), most * (1 - 0.01 * i)).to(dtype)} for i, name in enumerate("abc")
    }
    message = rf"w: merging gives NaN or values beyond {dtype} from finite inputs"
    with pytest.raises(R2MError, match=message):
        api.merge("task_arithmetic", base, specialists, {"scaling": 1})
    # Files are rounded when they are written; in float32 the merge itself is beyond it.
    beyond = {
        torch.float16: r"w: 16 values are beyond torch\.float16",
        torch.bfloat16: r"w: merging gives NaN or values beyond torch\.float32",
    }
    with pytest.raises(R2MError, match=beyond.get(dtype, message)):
        merged_files(tmp_path, base, specialists, "task_arithmetic", options={"scaling": 1})
    merged = api.merge("task_arithmetic", base, specialists, {"scaling": 1}, allow_nonfinite=True)
    assert merged["w"].isinf().all()
    assert merged["w"].dtype == dtype


# Batch normalisation


def with_batch_norm(seed=1):
    base, specialists = models()
    generator = torch.Generator().manual_seed(seed)
    base |= {"bn.running_mean": torch.zeros(8), "bn.running_var": torch.full((8,), 4.0)}
    base |= {"bn.num_batches_tracked": torch.tensor(3), "bn.weight": torch.ones(8)}
    for one in specialists.values():
        one |= {"bn.running_mean": torch.randn(8, generator=generator)}
        one |= {"bn.running_var": torch.rand(8, generator=generator)}
        one |= {"bn.num_batches_tracked": torch.tensor(5), "bn.weight": torch.ones(8) * 1.1}
    return base, specialists


@pytest.mark.parametrize("method", DATA_FREE)
def test_running_statistics_are_averaged_by_every_method(tmp_path, method, caplog):
    base, specialists = with_batch_norm()
    specialists = dict(list(specialists.items())[: registry.get(method).most_specialists])
    options = {"scaling": 2.0} if "scaling" in registry.get(method).options.model_fields else {}
    found, report = merged_files(tmp_path, base, specialists, method, options=options)
    memory = api.merge(method, base, specialists, options)
    for key in ("bn.running_mean", "bn.running_var"):
        expected = sum(one[key] for one in specialists.values()) / len(specialists)
        torch.testing.assert_close(found[key], expected)
        torch.testing.assert_close(memory[key], expected)
    assert (found["bn.running_var"] >= 0).all()
    text = "running statistics (bn.running_mean and 1 more) are averaged"
    assert any(one.startswith(text) for one in report["warnings"])
    assert caplog.text.count(text) == 2


@pytest.mark.parametrize("method", DATA_FREE)
def test_running_statistics_have_no_say_in_the_weights(method):
    base, specialists = with_batch_norm()
    specialists = dict(list(specialists.items())[: registry.get(method).most_specialists])
    whole = api.merge(method, base, specialists)
    kept = [key for key in base if "running" not in key]
    part = api.merge(
        method,
        {key: base[key] for key in kept},
        {name: {key: one[key] for key in kept} for name, one in specialists.items()},
    )
    assert all(torch.equal(whole[key], part[key]) for key in kept)


@pytest.mark.parametrize("method", ["task_arithmetic", "r2m"])
def test_running_statistics_in_sweeps(method):
    base, specialists = with_batch_norm()
    task_vectors = {name: task_vector(base, one) for name, one in specialists.items()}
    chosen = registry.get(method)
    values = [{"scaling": 0.5}, {"scaling": 2.0}] if method == "task_arithmetic" else [{}]
    candidates = [chosen.options.model_validate(one) for one in values]
    for options, update in merging.sweep(chosen, task_vectors, candidates, base=base):
        expected, _ = merging.merge(chosen, task_vectors, options, base=base)
        assert update.keys() == expected.keys()
        for key in expected:
            torch.testing.assert_close(update[key], expected[key], atol=1e-6, rtol=1e-5)


def test_running_statistics_in_the_stages_of_r2m(tmp_path):
    base, specialists = with_batch_norm()
    checkpoint.save(tmp_path / "base.safetensors", base, {})
    taus, heads = ({name: tmp_path / part / f"{name}.safetensors" for name in specialists} for part in "th")
    for name, one in specialists.items():
        path = tmp_path / f"{name}.safetensors"
        head = {"head.bias": torch.zeros(1)}
        checkpoint.save(path, one | head, {"base_hash": checkpoint.digest(base)})
        stages.task_vector(
            base=tmp_path / "base.safetensors", specialist=path, task_vector=taus[name], head=heads[name]
        )
    tune, real = tmp_path / "tune.json", tmp_path / "real.safetensors"
    chosen = {
        "variant": "v",
        "method": "r2m",
        "head": "average",
        "options": R2M().model_dump(exclude_none=True),
    }
    tune.write_text(json.dumps(chosen))
    made = {"chosen": tune, "task_vectors": taus, "core": real, "threads": 1}
    stages.real_component(**made, report=tmp_path / "real.json")
    residuals = {name: tmp_path / "residuals" / f"{name}.safetensors" for name in specialists}
    for name, path in residuals.items():
        stages.residual(**made, specialist=name, residual=path, report=tmp_path / f"{name}.json")
    stages.merge(
        **{**made, "task_vectors": {}},
        base=tmp_path / "base.safetensors",
        residuals=residuals,
        statistics={},
        heads=heads,
        initial_head=None,
        seed=0,
        model=tmp_path / "m.safetensors",
        report=tmp_path / "m.json",
    )
    found, expected = load_file(tmp_path / "m.safetensors"), api.merge("r2m", base, specialists)
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, atol=1e-6, rtol=1e-6)
    task_vectors = {name: task_vector(base, one) for name, one in specialists.items()}
    summands = parts(task_vectors, R2M())
    for key, core in summands.core.items():
        total = core + sum(summands.residual(name)[key] for name in specialists)
        torch.testing.assert_close(base[key] + total, expected[key], atol=1e-6, rtol=1e-6)


# Equal specialists


@pytest.mark.parametrize("method", ["r2m", "weight_averaging"])
def test_equal_specialists_are_named_and_accuse_no_other(tmp_path, method, caplog):
    base, specialists = models()
    everything = {"a": specialists["a"], "b": dict(specialists["a"]), "c": specialists["c"], "d": dict(base)}
    _, report = merged_files(tmp_path, base, everything, method)
    expected = [
        "a and b are the same: their weights are equal, and count 2 times",
        "d: equal to the base, its task vector is zero",
    ]
    assert [one for one in report["warnings"] if "residual" not in one] == expected
    assert not any(one["stands_out"] for one in report["inputs"].values())
    assert report["inputs"]["a"]["cosine_to_others"] == report["inputs"]["b"]["cosine_to_others"]
    assert abs(report["inputs"]["a"]["cosine_to_others"]) < 0.5
    caplog.clear()
    api.merge(method, base, everything)
    assert all(text in caplog.text for text in expected)
    assert "stands" not in caplog.text


def test_an_outlier_beside_equal_specialists_is_still_told(tmp_path):
    base, specialists = models()
    generator = torch.Generator().manual_seed(5)
    more = {
        f"s{i}": {key: one + 0.01 * torch.randn(one.shape, generator=generator) for key, one in base.items()}
        for i in range(3)
    }
    far = {key: base[key] + 40 * (one - base[key]) for key, one in specialists["a"].items()}
    _, report = merged_files(tmp_path, base, {**more, "far": far, "same": dict(more["s0"])})
    assert [name for name, one in report["inputs"].items() if one["stands_out"]] == ["far"]
    assert any(one.startswith("s0 and same are the same") for one in report["warnings"])
    assert any(one.startswith("far: its task vector is") for one in report["warnings"])


# Tied weights


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("method", DATA_FREE)
def test_tied_tensors_stay_equal(tmp_path, method, suffix):
    base, specialists = models(registry.get(method).most_specialists or 3)
    tie = {"embed.weight": "lm_head.weight", "norm.bias": "zz.bias"}
    for i, one in enumerate((base, *specialists.values())):
        one["embed.weight"] = torch.randn(20, 8, generator=torch.Generator().manual_seed(i)) * 0.01
        one |= {copy: one[key] if suffix == "pt" else one[key].clone() for key, copy in tie.items()}
    found, _ = merged_files(tmp_path, base, specialists, method, suffix=suffix)
    memory = api.merge(method, base, specialists)
    for key, copy in tie.items():
        assert torch.equal(found[key], found[copy])
        assert torch.equal(memory[key], memory[copy])
    assert all(torch.allclose(found[key], memory[key], atol=1e-6) for key in found)


def test_only_tensors_equal_in_all_models_are_tied(tmp_path):
    base, specialists = models()
    for one in (base, *specialists.values()):
        one["copy.weight"] = one["blocks.0.mlp.weight"].clone()
    alone = api.merge("dare", *models())
    specialists["c"]["copy.weight"][0, 0] += 1
    for merged in (
        api.merge("dare", base, specialists),
        merged_files(tmp_path, base, specialists, "dare")[0],
    ):
        assert not torch.equal(merged["blocks.0.mlp.weight"], merged["copy.weight"])
        assert torch.equal(merged["blocks.0.mlp.weight"], alone["blocks.0.mlp.weight"])


# Tensors that only some models have


@pytest.mark.parametrize("names", ["abc", "b"])
def test_superfluous_tensors_can_be_left_out(tmp_path, names):
    base, specialists = models()
    plain, _ = merged_files(tmp_path, base, specialists)
    for name in names:
        specialists[name]["embeddings.position_ids"] = torch.arange(5)[None]
        specialists[name]["extra.weight"] = torch.ones(2)
    with pytest.raises(R2MError, match=r"--exclude \S+ leaves it out, and if it is the head.*--head-prefix"):
        merged_files(tmp_path, base, specialists)
    found, report = merged_files(tmp_path, base, specialists, exclude=["*position_ids", "extra.*"])
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[key], plain[key]) for key in plain)
    assert report["exclude"] == ["*position_ids", "extra.*"]
    with pytest.raises(R2MError, match=r"exclude 'extr\.\*': fits no tensor of the base or of a specialist"):
        merged_files(tmp_path, base, specialists, exclude=["*position_ids", "extr.*"])


def test_tensors_that_only_the_base_has_can_be_kept(tmp_path):
    base, specialists = models()
    base["position_ids"] = torch.arange(5)[None]
    with pytest.raises(R2MError, match=r"lacks position_ids .*--exclude position_ids keeps the base's"):
        merged_files(tmp_path, base, specialists)
    found, _ = merged_files(tmp_path, base, specialists, exclude=["position_ids"])
    assert torch.equal(found["position_ids"], base["position_ids"])


# Options that leave nothing


@pytest.mark.parametrize(("count", "options"), [(3, {"min_tasks": 4}), (1, {})])
def test_consensus_of_more_than_there_are(tmp_path, count, options):
    base, specialists = models(count)
    message = rf"consensus: min_tasks is {options.get('min_tasks', 2)}, but there (is|are) {count} specialist"
    with pytest.raises(R2MError, match=message):
        merged_files(tmp_path, base, specialists, "consensus", options=options)
    with pytest.raises(R2MError, match=message):
        api.merge("consensus", base, specialists, options)
    merged_files(tmp_path, base, specialists, "consensus", options={"min_tasks": count})


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("breadcrumbs", {"density": 0.001}),
        ("task_arithmetic", {"scaling": 0.0}),
        ("consensus", {"mask_scale": 1e9}),
    ],
)
def test_a_merge_that_is_the_base_is_warned_of(tmp_path, method, options, caplog):
    base, specialists = models()
    found, report = merged_files(tmp_path, base, specialists, method, options=options)
    assert all(torch.equal(found[key], base[key]) for key in base)
    text = "nothing is left of the task vectors: the merged weights are the base's"
    assert text in report["warnings"]
    caplog.clear()
    caplog.set_level(logging.WARNING)
    api.merge(method, base, specialists, options)
    assert text in caplog.text


# The same checks in memory


def test_what_the_api_refuses_and_warns_of(caplog):
    base, specialists = models()
    lacking = {key: one for key, one in specialists["a"].items() if key != "norm.bias"}
    for wrong, message in [
        (lacking, r"specialist 'a' lacks norm\.bias, which the base has"),
        (specialists["a"] | {"extra": torch.ones(1)}, r"specialist 'a' has extra, which the base lacks"),
        (specialists["a"] | {"norm.bias": torch.ones(3)}, r"norm\.bias: shape \(3,\) in the specialist 'a'"),
        (specialists["a"] | {"norm.bias": torch.full((8,), NAN)}, r"norm\.bias: .* holds NaN"),
    ]:
        with pytest.raises(R2MError, match=message):
            api.merge("ties", base, {**specialists, "a": wrong})
    with pytest.raises(R2MError, match="expected at least 1 specialists, got 0"):
        api.merge("ties", base, {})
    with pytest.raises(R2MError, match="no floating-point tensor is left to merge"):
        api.merge("ties", {"ids": torch.arange(3)}, {"a": {"ids": torch.arange(3)}})
    far = {key: 40 * one for key, one in specialists["a"].items()}
    api.merge("ties", base, {**specialists, "a": far})
    assert "a: its task vector has 39 times the norm of the base" in caplog.text
