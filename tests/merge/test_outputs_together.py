"""Merges with several of an adapter, shards, rules, half precision and a cache; all their files or none."""

import json
import os

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from r2m import files as r2m_files
from r2m.cli import r2m as group
from r2m.errors import R2MError
from r2m.merge import recipe
from r2m.merge.engine import Settings, merge_files
from r2m.models.specialists import open_base, open_like
from r2m.models.weights import open_weights

SHAPES = {f"blocks.{i}.fc.weight": (6, 8) for i in range(3)} | {"head.weight": (1, 6), "head.bias": (1,)}
MATRICES = [key for key in SHAPES if key.startswith("blocks.")]
FULL, NAMES = 6, ("a", "b", "c")
RULES = [{"match": "blocks.1.*", "options": {"scaling": 0.9}}]


@pytest.fixture
def folder(tmp_path):
    generator = torch.Generator().manual_seed(0)
    base = {key: torch.randn(shape, generator=generator) for key, shape in SHAPES.items()}
    (tmp_path / "tuned").mkdir()
    save_file(base, tmp_path / "base.safetensors")
    for name in NAMES:
        moved = {key: one + 0.1 * torch.randn(one.shape, generator=generator) for key, one in base.items()}
        save_file(moved, tmp_path / "tuned" / f"{name}.safetensors")
    return tmp_path


def merge(folder, method="task_arithmetic", out="m", force=False, **fields):
    content = {
        "method": method,
        "base": folder / "base.safetensors",
        "specialists": {name: folder / "tuned" / f"{name}.safetensors" for name in NAMES},
        "head_prefix": "head.",
        "out": folder / f"{out}.safetensors",
    }
    return merge_files(recipe.build({**content, **fields}, "test"), Settings(force=force))


def adapted(folder, lora="lora"):
    """Return the model that an adapter makes of the base."""
    with open_base(folder / "base.safetensors") as base, open_like(folder / lora, base) as model:
        return {key: model.tensor(key) for key in model.entries}


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "tuned" and path.name != "base.safetensors"
    }


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("method", ["task_arithmetic", "tsv_m"])
def test_an_adapter_is_of_the_update_before_it_is_rounded(folder, method, dtype):
    assert merge(folder, method, "exact")["rounding"] == {}
    report = merge(folder, method, dtype=dtype, out_lora=folder / "lora", lora_rank=FULL)
    exact, rounded = load_file(folder / "exact.safetensors"), load_file(folder / "m.safetensors")
    model = adapted(folder)
    for key, tensor in exact.items():
        assert torch.equal(rounded[key], tensor.to(getattr(torch, dtype)))
        torch.testing.assert_close(model[key], tensor, rtol=1e-5, atol=1e-6)
    assert report["lora"]["relative_error"] < 1e-6
    assert report["lora"]["whole"] == ["head.bias", "head.weight"]
    assert torch.equal(model["head.weight"], exact["head.weight"])
    assert report["rounding"][dtype]["tensors"] == len(SHAPES)
    assert report["rounding"][dtype]["greatest_absolute"] == max(
        float((exact[key] - rounded[key].float()).abs().max()) for key in exact
    )
    merge(folder, method, "alone", dtype=dtype)
    assert (folder / "alone.safetensors").read_bytes() == (folder / "m.safetensors").read_bytes()


def test_an_adapter_beside_shards(folder):
    fields = {"out_lora": folder / "lora", "lora_rank": 2}
    single = merge(folder, **fields)
    expected, whole = files_of(folder), load_file(folder / "m.safetensors")
    report = merge(folder, shard_size=400, force=True, **fields)
    assert len(report["shards"]) == 2
    assert report["lora"] == single["lora"]
    found = files_of(folder)
    names = {name for name in expected if name.startswith("lora/")}
    assert found.keys() == names | {"m.json", "m.safetensors.index.json", *report["shards"]}
    assert all(found[name] == expected[name] for name in names)
    with open_weights(folder / "m.safetensors.index.json") as weights:
        assert all(torch.equal(weights.tensor(key), tensor) for key, tensor in whole.items())


def test_an_adapter_of_a_merge_with_rules(folder):
    report = merge(folder, rules=RULES, out_lora=folder / "lora", lora_rank=FULL)
    merged, model = load_file(folder / "m.safetensors"), adapted(folder)
    assert report["rules"][0]["tensors"] == ["blocks.1.fc.weight"]
    base = load_file(folder / "base.safetensors")
    moved = [load_file(folder / "tuned" / f"{name}.safetensors") for name in NAMES]
    for key in MATRICES:
        torch.testing.assert_close(model[key], merged[key], rtol=1e-5, atol=1e-6)
        scaling = 0.9 if key.startswith("blocks.1.") else 0.3
        change = scaling * sum(one[key] - base[key] for one in moved)
        torch.testing.assert_close(merged[key], base[key] + change, rtol=1e-5, atol=1e-6)


def test_adapters_that_a_pattern_fits(folder):
    """What `--out-lora` wrote is found by its folder's name, and not replaced by a merge that reads it."""
    for name in ("a", "b"):
        one = {name: folder / "tuned" / f"{name}.safetensors"}
        (folder / "adapters").mkdir(exist_ok=True)
        merge(folder, "weight_averaging", name, specialists=one, out_lora=folder / "adapters" / name)
    flags = ["merge", "--method", "weight_averaging", "--base", folder / "base.safetensors"]
    flags += ["--specialist", folder / "adapters" / "*", "--specialist", folder / "tuned" / "c.safetensors"]
    flags += ["--head-prefix", "head.", "--out", folder / "m.safetensors", "--out-lora", folder / "lora"]
    flags += ["--shard-size", "400B"]
    result = CliRunner().invoke(group, [*map(str, flags)])
    assert result.exit_code == 0, result.output
    report = json.loads((folder / "m.json").read_text())
    assert list(report["inputs"]) == ["a", "b", "c"]
    assert report["inputs"]["a"]["notes"][-1].startswith("a LoRA adapter, applied to 3")
    mean = merge(folder, "weight_averaging", "mean")
    assert mean["update_norm"] == pytest.approx(report["update_norm"], rel=1e-5)
    text = CliRunner().invoke(group, [*map(str, flags[:-4]), "--out-lora", f"{folder}/adapters/b", "--force"])
    assert "adapters/b/adapter_config.json: is one of the inputs" in str(text.exception)


def everything(folder, **fields):
    given = {"out_lora": folder / "lora", "gram_cache": folder / "cache", "shard_size": 400, **fields}
    return merge(folder, "r2m", **given)


EVERYTHING = {
    "m.json",
    *("lora/adapter_config.json", "lora/adapter_model.safetensors", "cache"),
    *("m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors", "m.safetensors.index.json"),
}


def refused_at(patch, step):
    """Let the system refuse one of the renames that put outputs in their places."""
    replace, steps = os.replace, iter(range(99))

    def refuse(source, target):
        if not str(source).endswith(".old") and next(steps) == step:
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    patch.setattr(r2m_files.os, "replace", refuse)


def unlinked(*given, **options):
    raise PermissionError(1, "Operation not permitted")


def test_all_files_appear_or_none(folder, monkeypatch):
    for step in range(len(EVERYTHING)):
        with monkeypatch.context() as patch:
            refused_at(patch, step)
            patch.setattr(r2m_files.os, "link", unlinked)
            with pytest.raises(R2MError, match=r"cannot be written \(Permission denied\)"):
                everything(folder)
        assert files_of(folder) == {}
        assert not (folder / "lora").exists()
    everything(folder)
    assert files_of(folder).keys() == EVERYTHING


@pytest.mark.parametrize(("size", "count"), [(None, 5), (200, 9), (400, 7)])
def test_all_files_are_replaced_or_none(folder, monkeypatch, size, count):
    # A cache of two specialists is written again for three.
    everything(folder, specialists={name: folder / "tuned" / f"{name}.safetensors" for name in NAMES[:2]})
    before = files_of(folder)
    assert before.keys() == EVERYTHING
    for step in (0, 2, count - 1):
        with monkeypatch.context() as patch:
            refused_at(patch, step)
            with pytest.raises(R2MError, match=r"cannot be written \(Permission denied\)"):
                everything(folder, shard_size=size, lora_rank=1, force=True)
        assert files_of(folder) == before
    report = everything(folder, shard_size=size, lora_rank=1, force=True)
    weights = {*report["shards"], "m.safetensors.index.json"} if size else {"m.safetensors"}
    others = {name for name in EVERYTHING if not name.startswith(("m-", "m.safetensors"))}
    assert files_of(folder).keys() == others | weights
    assert len(files_of(folder)) == count


def test_the_index_comes_last(folder, monkeypatch):
    for force in (False, True):
        order = []
        for name in ("_claim", "_replace"):
            original = getattr(r2m_files, name)
            monkeypatch.setattr(
                r2m_files,
                name,
                lambda temporary, path, *rest, original=original, order=order: (
                    order.append(path.name) or original(temporary, path, *rest)
                ),
            )
        (folder / "cache").unlink(missing_ok=True)
        everything(folder, force=force)
        assert set(order) == {name.rpartition("/")[2] for name in EVERYTHING}
        assert order[-1] == "m.safetensors.index.json"
        monkeypatch.undo()


@pytest.mark.parametrize("present", sorted(EVERYTHING - {"cache"}))
def test_what_exists_is_replaced_by_force_alone(folder, present):
    path = folder / present
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(R2MError, match=rf"{path.name}: exists(, of the same name in shards)?; --force"):
        everything(folder)
    assert files_of(folder) == {present: b"mine"}
    everything(folder, force=True)
    assert files_of(folder).keys() == EVERYTHING


@pytest.mark.parametrize(
    "name",
    ["m.safetensors", "m.json", "cache", "m.safetensors.index.json", "m-00001-of-00002.safetensors"],
)
def test_the_folder_of_an_adapter_is_no_other_output(folder, name):
    with pytest.raises(R2MError, match=rf"{name}: stands for two outputs; expected different names"):
        everything(folder, out_lora=folder / name)
    with pytest.raises(R2MError, match="new: no such folder"):
        everything(folder, out="new/m", out_lora=folder / "new")
    assert files_of(folder) == {}
