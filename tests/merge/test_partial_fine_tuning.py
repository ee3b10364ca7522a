"""Specialists of which some tensors did not change: all ways to merge them agree."""

import json

import pytest
import torch
from safetensors.torch import load_file

from r2m.errors import R2MError
from r2m.merge import api, merging, recipe, registry, stages
from r2m.merge.engine import Settings, merge_files
from r2m.merge.tensors import apply, merged_shapes, task_vector
from r2m.models import checkpoint

LAYERS = range(5)
TRAINED = ("blocks.1.mlp.weight", "blocks.2.mlp.weight", "blocks.2.norm.bias")
# Methods for which an unchanged tensor has no say in the others' merge.
LOCAL = [name for name in registry.names() if name not in ("ties", "pcb", "lines")]


def models(count=3, seed=0):
    """A base of five blocks, and specialists that were trained in the second and third."""
    generator = torch.Generator().manual_seed(seed)
    base = {f"blocks.{i}.mlp.weight": torch.randn(12, 8, generator=generator) for i in LAYERS}
    base |= {f"blocks.{i}.norm.bias": torch.randn(8, generator=generator) for i in LAYERS}
    base |= {"patch_embed.weight": torch.randn(8, 3, 2, 2, generator=generator)}
    base |= {"position_ids": torch.arange(6), "unused": torch.zeros(0, 4)}
    specialists = {
        f"s{j}": base
        | {key: base[key] + 0.01 * torch.randn(base[key].shape, generator=generator) for key in TRAINED}
        for j in range(count)
    }
    return base, specialists


def statistics_of(method, base, specialists):
    """Statistics of every specialist, where the method needs some."""
    if method.statistics is None:
        return None
    kept = {key: one for key, one in base.items() if key in merged_shapes(base)}
    if "Gram" in method.statistics:
        some = {key: torch.eye(one.shape[1]) for key, one in kept.items() if one.ndim == 2}
    else:
        some = {key: torch.ones_like(one) for key, one in kept.items()}
    return {name: {key: (i + 1.0) * one for key, one in some.items()} for i, name in enumerate(specialists)}


def save_all(folder, base, tensors, metadata=None):
    paths = {name: folder / f"{name}.safetensors" for name in tensors}
    for name, path in paths.items():
        checkpoint.save(path, tensors[name], {"base_hash": checkpoint.digest(base), **(metadata or {})})
    return paths


def from_files(folder, method, base, specialists, statistics):
    paths = save_all(folder / "whole", base, {"base": base, **specialists})
    given = {} if statistics is None else save_all(folder / "statistics", base, statistics)
    content = {"method": method.name, "base": paths.pop("base"), "specialists": paths, "statistics": given}
    merge_files(recipe.build({**content, "out": folder / "cli.safetensors"}, "test"), Settings())
    return load_file(folder / "cli.safetensors")


def from_stages(folder, method, base, specialists, statistics):
    head = {"head.weight": torch.ones(1, 8)}
    paths = save_all(folder / "models", base, {name: one | head for name, one in specialists.items()})
    checkpoint.save(folder / "base.safetensors", base, {})
    taus = {name: folder / "tau" / f"{name}.safetensors" for name in paths}
    heads = {name: folder / "heads" / f"{name}.safetensors" for name in paths}
    for name, path in paths.items():
        stages.task_vector(
            base=folder / "base.safetensors", specialist=path, task_vector=taus[name], head=heads[name]
        )
    chosen = {"variant": "v", "method": method.name, "head": "average"}
    options = method.options().model_dump(exclude_none=True)
    tune = folder / "tune.json"
    tune.write_text(json.dumps(chosen | {"options": options}))
    real, residuals = None, {}
    if method.name == "r2m":
        real = folder / "real.safetensors"
        made = {"chosen": tune, "task_vectors": taus, "core": real, "threads": 1}
        stages.real_component(**made, report=folder / "real.json")
        residuals = {name: folder / "residuals" / f"{name}.safetensors" for name in paths}
        for name, path in residuals.items():
            stages.residual(**made, specialist=name, residual=path, report=folder / f"{name}.json")
    given = {} if statistics is None else save_all(folder / "stage-statistics", base, statistics)
    stages.merge(
        chosen=tune,
        base=folder / "base.safetensors",
        task_vectors={} if real else taus,
        core=real,
        residuals=residuals,
        statistics=given,
        heads=heads,
        initial_head=None,
        seed=0,
        model=folder / "staged.safetensors",
        report=folder / "staged.json",
        threads=1,
    )
    merged = load_file(folder / "staged.safetensors")
    del merged["head.weight"]
    return merged


@pytest.mark.parametrize("name", registry.names())
def test_files_memory_and_stages_agree(tmp_path, name):
    method = registry.get(name)
    base, specialists = models(method.most_specialists or 3)
    statistics = statistics_of(method, base, specialists)
    memory = api.merge(name, base, specialists, statistics=statistics)
    files = from_files(tmp_path, method, base, specialists, statistics)
    staged = from_stages(tmp_path, method, base, specialists, statistics)
    assert memory.keys() == files.keys() == staged.keys() == base.keys()
    for key, tensor in base.items():
        torch.testing.assert_close(files[key], memory[key], atol=1e-6, rtol=0)
        torch.testing.assert_close(staged[key], memory[key], atol=1e-6, rtol=0)
        if key not in TRAINED:
            assert torch.equal(files[key], tensor), key
            assert torch.equal(memory[key], tensor), key
            assert torch.equal(staged[key], tensor), key
    assert any(not torch.equal(memory[key], base[key]) for key in TRAINED)


@pytest.mark.parametrize("name", registry.names())
def test_specialists_equal_to_the_base_merge_to_the_base(tmp_path, name):
    method = registry.get(name)
    base, _ = models()
    specialists = {f"s{i}": dict(base) for i in range(method.most_specialists or 3)}
    statistics = statistics_of(method, base, specialists)
    memory = api.merge(name, base, specialists, statistics=statistics)
    files = from_files(tmp_path, method, base, specialists, statistics)
    for key, tensor in base.items():
        assert torch.equal(memory[key], tensor), key
        assert torch.equal(files[key], tensor), key


@pytest.mark.parametrize("name", registry.names())
def test_sweeps_see_the_unchanged_tensors(name):
    method = registry.get(name)
    base, specialists = models(method.most_specialists or 3)
    task_vectors = {key: task_vector(base, one) for key, one in specialists.items()}
    statistics = statistics_of(method, base, specialists)
    trained = {key: base[key] for key in TRAINED}
    options = method.options()
    ((_, update),) = merging.sweep(
        method, task_vectors, [options], base=trained, statistics=statistics, shapes=merged_shapes(base)
    )
    expected = api.merge(name, base, specialists, statistics=statistics)
    assert update.keys() == set(TRAINED)
    for key, tensor in apply(trained, update).items():
        torch.testing.assert_close(tensor, expected[key], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", LOCAL)
def test_unchanged_tensors_have_no_say(name):
    """Merges with them and without are the same to the last bit."""
    method = registry.get(name)
    base, specialists = models(method.most_specialists or 3)
    statistics = statistics_of(method, base, specialists)
    kept = [key for key in base if key.startswith(("blocks.1", "blocks.2"))]
    few = {key: base[key] for key in kept}
    few_specialists = {one: {key: tensors[key] for key in kept} for one, tensors in specialists.items()}
    whole = api.merge(name, base, specialists, statistics=statistics)
    part = api.merge(name, few, few_specialists, statistics=statistics)
    assert all(torch.equal(whole[key], part[key]) for key in kept)


def test_ties_keeps_a_share_of_all_entries():
    base, specialists = models()
    task_vectors = {key: task_vector(base, one) for key, one in specialists.items()}
    names = sorted(merged_shapes(base))
    rows = torch.stack(
        [
            torch.cat([one.get(key, torch.zeros_like(base[key])).reshape(-1) for key in names])
            for one in task_vectors.values()
        ]
    )
    least = rows.abs().sort(descending=True).values[:, int(0.05 * rows.shape[1])]
    trimmed = torch.where(rows.abs() >= least[:, None], rows, 0.0).double()
    agree = (trimmed.sign() == trimmed.sum(0).sign()) & (trimmed != 0)
    expected = (trimmed * agree).sum(0) / agree.sum(0).clamp(min=1)
    merged = api.merge("ties", base, specialists, {"keep": 0.05})
    found = torch.cat([(merged[key] - base[key]).reshape(-1) for key in names])
    torch.testing.assert_close(found, expected.float(), atol=1e-6, rtol=0)


def test_lines_counts_the_frozen_blocks():
    base, specialists = models()
    merged = api.merge("lines", base, specialists, {"alpha": 0.0, "beta": 1.0})
    for i in (1, 2):
        key = f"blocks.{i}.mlp.weight"
        total = sum(one[key] - base[key] for one in specialists.values())
        torch.testing.assert_close(merged[key] - base[key], i / 4 * total, atol=1e-6, rtol=0)


def test_task_vectors_must_fit_into_the_model():
    base, specialists = models()
    task_vectors = {key: task_vector(base, one) for key, one in specialists.items()}
    del base["blocks.1.mlp.weight"]
    method = registry.get("ties")
    with pytest.raises(R2MError, match=r"blocks\.1\.mlp\.weight: shape \(12, 8\) in the task vectors"):
        merging.merge(method, task_vectors, method.options(), base=base)
