import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from merge_samples import random_task_vectors
from safetensors.torch import load_file, save_file

from r2m.data.options import FacesOptions
from r2m.errors import R2MError
from r2m.merge import api, merging, recipe, registry, stream
from r2m.merge.engine import Settings, merge_files
from r2m.models import checkpoint, writer
from r2m.models.config import config_of
from r2m.models.options import BackboneOptions

ORACLES = Path(__file__).parents[1] / "oracles"
DATA_FREE = [name for name in registry.names() if registry.get(name).statistics is None]


def write_models(folder, count=3, dtype=torch.float32, seed=0):
    """A base and specialists with a head, an integer buffer, and weights of about 1."""
    generator = torch.Generator().manual_seed(seed)
    task_vectors = random_task_vectors(count, seed)
    shapes = {key: tensor.shape for key, tensor in task_vectors["s0"].items()}
    base = {key: torch.randn(shape, generator=generator) * 0.1 for key, shape in shapes.items()}
    base |= {"head.weight": torch.randn(1, 6, generator=generator), "steps": torch.tensor([7])}
    base |= {"logit_scale": torch.tensor(2.5), "unused.weight": torch.zeros(0, 6)}
    models = {"base": base}
    for name, one in task_vectors.items():
        models[name] = base | {key: base[key] + tensor for key, tensor in one.items()}
        models[name] |= {"head.weight": torch.randn(1, 6, generator=generator)}
        models[name] |= {"logit_scale": base["logit_scale"] + torch.randn((), generator=generator) * 1e-2}
    for name, tensors in models.items():
        converted = {
            key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in tensors.items()
        }
        save_file(converted, folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in models}


def asked(files, out, method="weight_averaging", **fields):
    specialists = {name: path for name, path in files.items() if name != "base"}
    content = {"method": method, "base": files["base"], "specialists": specialists, "out": out, **fields}
    return recipe.build(content, "test")


@pytest.fixture
def files(tmp_path):
    return write_models(tmp_path)


def left_over(folder, files):
    return {path.name for path in folder.iterdir()} - {path.name for path in files.values()}


@pytest.mark.parametrize(
    ("name", "options", "oracle"),
    [
        ("weight_averaging", {}, "mergekit_linear"),
        ("task_arithmetic", {"scaling": 0.3}, "task_arithmetic_lam0.3"),
        ("ties", {"keep": 0.2, "scaling": 1.0}, "ties_mean_k20_lam1"),
    ],
)
def test_files_of_the_reference_implementations(tmp_path, name, options, oracle):
    files = {f"s{i}": ORACLES / f"specialist{i}.safetensors" for i in range(3)}
    files["base"] = ORACLES / "base.safetensors"
    merge_files(asked(files, tmp_path / "m.safetensors", name, options=options), Settings())
    merged, expected = load_file(tmp_path / "m.safetensors"), load_file(ORACLES / f"{oracle}.safetensors")
    assert merged.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(merged[key], tensor, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", DATA_FREE)
def test_files_and_memory_agree_whatever_the_threads_and_pieces(tmp_path, monkeypatch, method):
    files = write_models(tmp_path, count=2)
    tensors = {name: load_file(path) for name, path in files.items()}
    base = tensors.pop("base")
    expected = api.merge(method, base, tensors)
    written = []
    for threads, piece in ((1, 2**20), (2, 2**20), (2, 48)):
        monkeypatch.setattr(stream, "PIECE_ENTRIES", piece)
        monkeypatch.setattr(stream, "LEAST_PIECE", 4)
        out = tmp_path / f"{threads}-{piece}.safetensors"
        merge_files(asked(files, out, method), Settings(threads=threads))
        merged = load_file(out)
        assert merged.keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(merged[key], tensor, atol=1e-6, rtol=0)
        written.append(out.read_bytes())
    assert written[0] == written[1]


def test_rerun_gives_identical_bytes_and_report(tmp_path, files):
    for _ in range(2):
        merge_files(asked(files, tmp_path / "m.safetensors", "r2m"), Settings(threads=2, force=True))
        content = (tmp_path / "m.safetensors").read_bytes(), (tmp_path / "m.json").read_bytes()
        (tmp_path / "m.safetensors").unlink()
    merge_files(asked(files, tmp_path / "m.safetensors", "r2m"), Settings(threads=1, force=True))
    assert content == ((tmp_path / "m.safetensors").read_bytes(), (tmp_path / "m.json").read_bytes())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dtypes_of_inputs_and_outputs(tmp_path, dtype):
    files = write_models(tmp_path, dtype=dtype)
    inputs = [load_file(files[name]) for name in ("s0", "s1", "s2")]
    for wanted in (None, "float32", "bfloat16"):
        out = tmp_path / "m.safetensors"
        merge_files(asked(files, out, dtype=wanted), Settings(force=True))
        merged = load_file(out)
        expected_type = dtype if wanted is None else getattr(torch, wanted)
        for key, tensor in merged.items():
            if key == "steps":
                assert tensor.dtype == torch.int64
                continue
            assert tensor.dtype == expected_type
            mean = torch.stack([one[key].double() for one in inputs]).mean(0)
            torch.testing.assert_close(tensor, mean.to(expected_type), atol=1e-6, rtol=2**-8)


def test_integers_and_excluded_tensors_are_those_of_the_base(tmp_path, files):
    out = tmp_path / "m.safetensors"
    report = merge_files(asked(files, out, exclude=["blocks.0.*", "pos_embed"]), Settings())
    base, merged = load_file(files["base"]), load_file(out)
    copied = {
        "blocks.0.attn.qkv.weight",
        "blocks.0.mlp.fc2.weight",
        "blocks.0.norm1.bias",
        "pos_embed",
        "steps",
        "unused.weight",
    }
    assert set(report["copied_from_base"]) == copied
    for key, tensor in merged.items():
        assert torch.equal(tensor, base[key]) == (key in copied)


def test_heads(tmp_path, files):
    out = tmp_path / "m.safetensors"
    heads = {name: load_file(path)["head.weight"] for name, path in files.items()}
    mean = torch.stack([heads[name] for name in ("s0", "s1", "s2")]).mean(0)
    for rule, expected in {"average": mean, "base": heads["base"], "specialist:s1": heads["s1"]}.items():
        fields = {"head": rule, "head_prefix": "head.", "options": {"scaling": 2.0}}
        merge_files(asked(files, out, "task_arithmetic", **fields), Settings(force=True))
        torch.testing.assert_close(load_file(out)["head.weight"], expected)
    merge_files(asked(files, out, "task_arithmetic", options={"scaling": 2.0}), Settings(force=True))
    alike = heads["base"] + 2 * sum(heads[name] - heads["base"] for name in ("s0", "s1", "s2"))
    torch.testing.assert_close(load_file(out)["head.weight"], alike)
    with pytest.raises(R2MError, match="head 'average': say which tensors are the head"):
        merge_files(asked(files, out, head="average"), Settings(force=True))
    with pytest.raises(R2MError, match="'classifier': no tensor has a name that begins so"):
        merge_files(asked(files, out, head_prefix="classifier"), Settings(force=True))
    with pytest.raises(R2MError, match="expected one of the specialists s0, s1, s2"):
        merge_files(asked(files, out, head="specialist:s9", head_prefix="head."), Settings(force=True))


def test_a_head_that_the_base_lacks(tmp_path, files):
    base = load_file(files["base"])
    del base["head.weight"]
    save_file(base, files["base"])
    with pytest.raises(R2MError, match=r"s0\.safetensors: has head.weight \(1, 6\), which .*--head-prefix"):
        merge_files(asked(files, tmp_path / "m.safetensors"), Settings())
    merge_files(asked(files, tmp_path / "m.safetensors", head_prefix="head."), Settings())
    assert load_file(tmp_path / "m.safetensors")["head.weight"].shape == (1, 6)


def test_provenance(tmp_path, files):
    fields = {"options": {"keep": 0.4}}
    report = merge_files(asked(files, tmp_path / "m.safetensors", "ties", **fields), Settings())
    metadata = checkpoint.read_metadata(tmp_path / "m.safetensors")
    assert metadata["method"] == "ties"
    assert json.loads(metadata["options"]) == {"keep": 0.4, "scaling": 1.0}
    digests = json.loads(metadata["inputs"])
    assert digests.keys() == {"s0", "s1", "s2"}
    assert all(one["digest"] == digests[name] for name, one in report["inputs"].items())
    assert metadata["base_hash"] == report["base"]["digest"]
    assert len({metadata["base_hash"], *digests.values()}) == 4
    assert json.loads((tmp_path / "m.json").read_text()) == report
    torch.save(load_file(files["s1"]), tmp_path / "s1.pt")
    changed = files | {"s1": tmp_path / "s1.pt"}
    merge_files(asked(changed, tmp_path / "n.safetensors", "ties", **fields), Settings())
    assert (tmp_path / "n.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()
    merge_files(asked(files, tmp_path / "o.safetensors", "r2m"), Settings())
    assert json.loads(checkpoint.read_metadata(tmp_path / "o.safetensors")["inputs"]) == digests


def test_partial_specialists_are_those_whose_metadata_name_this_base(tmp_path, files):
    base = load_file(files["base"])
    base_hash = checkpoint.digest(base)
    names = ["s0", "s1", "s2"]
    for name in names:
        tensors = load_file(files[name])
        trained = {key: tensor for key, tensor in tensors.items() if key.startswith(("blocks.1", "head"))}
        checkpoint.save(files[name], trained, {"base_hash": base_hash})
    merge_files(asked(files, tmp_path / "m.safetensors"), Settings())
    merged = load_file(tmp_path / "m.safetensors")
    assert torch.equal(merged["pos_embed"], base["pos_embed"])
    assert not torch.equal(merged["blocks.1.attn.proj.weight"], base["blocks.1.attn.proj.weight"])
    assert checkpoint.read_metadata(tmp_path / "m.safetensors")["base_hash"] == base_hash
    save_file(base | {"pos_embed": base["pos_embed"] + 1}, files["base"])
    with pytest.raises(R2MError, match=r"s0\.safetensors: its metadata say that s0 was made from the base"):
        merge_files(asked(files, tmp_path / "n.safetensors"), Settings())
    with pytest.raises(R2MError, match=r"lacks blocks\.0\.attn\.qkv\.weight"):
        merge_files(asked(files, tmp_path / "n.safetensors"), Settings(allow_other_base=True))


def test_warnings(tmp_path, files, caplog):
    base = load_file(files["base"])
    save_file(base, files["s0"])
    far = {key: tensor + 5 if tensor.is_floating_point() else tensor for key, tensor in base.items()}
    save_file(far, files["s1"])
    for method in ("weight_averaging", "ties"):
        caplog.clear()
        request = asked(files, tmp_path / "m.safetensors", method, exclude=["head.*"])
        report = merge_files(request, Settings(force=True))
        assert report["warnings"][0] == "s0: equal to the base, its task vector is zero"
        assert "s1: its task vector has" in report["warnings"][1]
        assert "was it made from another base?" in report["warnings"][1]
        assert len(report["warnings"]) == 2
        assert [record.message for record in caplog.records] == report["warnings"]
        assert report["inputs"]["s0"]["cosine_to_others"] is None


def test_a_longer_task_vector_than_the_others_is_warned_of(tmp_path, files):
    base, specialist = load_file(files["base"]), load_file(files["s0"])
    scaled = {key: base[key] + 30 * (specialist[key] - base[key]) for key in base if key != "head.weight"}
    save_file({**specialist, **scaled}, files["s0"])
    report = merge_files(asked(files, tmp_path / "m.safetensors", exclude=["head.*"]), Settings())
    (text,) = report["warnings"]
    assert re.fullmatch(
        r"s0: its task vector is \d+ times as long as the median specialist's"
        r" \(robust z-score \d+\.\d, threshold 3\.5\)",
        text,
    )
    assert report["inputs"]["s0"]["norm_z"] > report["stands_out_beyond"]
    assert [name for name, one in report["inputs"].items() if one["stands_out"]] == ["s0"]


def test_a_specialist_of_another_base_that_stands_out_gets_both_warnings(tmp_path, files):
    base, specialist = load_file(files["base"]), load_file(files["s0"])
    floats = [key for key in base if key != "head.weight" and base[key].is_floating_point()]
    scaled = {key: base[key] + 3e4 * (specialist[key] - base[key]) for key in floats}
    save_file({**specialist, **scaled}, files["s0"])
    report = merge_files(asked(files, tmp_path / "m.safetensors", exclude=["head.*"]), Settings())
    assert "was it made from another base?" in report["warnings"][0]
    assert "times as long as the median specialist's" in report["warnings"][1]


def test_the_longer_of_two_is_warned_of(tmp_path, files):
    base, specialist = load_file(files["base"]), load_file(files["s0"])
    scaled = {key: base[key] + 30 * (specialist[key] - base[key]) for key in base if key != "head.weight"}
    save_file({**specialist, **scaled}, files["s0"])
    two = {name: files[name] for name in ("base", "s0", "s1")}
    report = merge_files(asked(two, tmp_path / "m.safetensors", exclude=["head.*"]), Settings())
    (text,) = report["warnings"]
    assert re.fullmatch(r"s0: its task vector is \d+ times as long as the other's", text)
    assert report["inputs"]["s0"]["norm_z"] is None
    assert not report["inputs"]["s0"]["stands_out"]


@pytest.mark.parametrize("method", ["weight_averaging", "tsv_m"])
def test_a_task_vector_that_points_elsewhere_is_warned_of(tmp_path, files, method):
    base = load_file(files["base"])
    generator = torch.Generator().manual_seed(0)

    def noise(key):
        return 0.01 * torch.randn(base[key].shape, generator=generator)

    floating = [key for key, tensor in base.items() if tensor.is_floating_point()]
    shared = {key: noise(key) for key in floating}
    for name in ("s0", "s1", "s2"):
        common = {key: noise(key) for key in floating} if name == "s1" else shared
        changed = {key: base[key] + 2 * common[key] + noise(key) for key in floating}
        save_file({**base, **changed}, files[name])
    report = merge_files(asked(files, tmp_path / "m.safetensors", method, exclude=["head.*"]), Settings())
    (text,) = report["warnings"]
    assert re.match(r"s1: its task vector has the cosine -?0\.\d+ with the others' sum, the median", text)
    assert report["inputs"]["s1"]["cosine_z"] < -report["stands_out_beyond"]


def test_one_specialist_averages_to_itself(tmp_path, files):
    only = {name: files[name] for name in ("base", "s1")}
    merge_files(asked(only, tmp_path / "m.safetensors"), Settings())
    merged, expected = load_file(tmp_path / "m.safetensors"), load_file(files["s1"])
    for key, tensor in expected.items():
        torch.testing.assert_close(merged[key], tensor)
    with pytest.raises(R2MError, match="slerp: expected 2 specialists, got 1"):
        merge_files(asked(only, tmp_path / "n.safetensors", "slerp"), Settings())


@pytest.mark.parametrize("method", ["weight_averaging", "ties", "tsv_m", "r2m"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["base", "s1"])
def test_values_that_are_not_finite(tmp_path, files, method, value, where):
    tensors = load_file(files[where])
    tensors["blocks.0.mlp.fc2.weight"][1, 2] = value
    save_file(tensors, files[where])
    out = tmp_path / "m.safetensors"
    with pytest.raises(R2MError, match=rf"{where}\.safetensors: blocks.0.mlp.fc2.weight holds NaN or inf"):
        merge_files(asked(files, out, method), Settings(threads=2))
    assert left_over(tmp_path, files) == set()
    report = merge_files(asked(files, out, method), Settings(allow_nonfinite=True))
    assert report["nonfinite"] == ["blocks.0.mlp.fc2.weight"]
    merged = load_file(out)
    expected = sum(load_file(files[name])["blocks.0.mlp.fc2.weight"] for name in ("s0", "s1", "s2")) / 3
    torch.testing.assert_close(merged["blocks.0.mlp.fc2.weight"], expected, equal_nan=True)
    assert merged["blocks.0.mlp.fc2.weight"][1, 2].isfinite() == (where == "base")
    assert all(one.isfinite().all() for key, one in merged.items() if key != "blocks.0.mlp.fc2.weight")


def test_large_finite_values_are_merged(tmp_path, files):
    for path in files.values():
        tensors = load_file(path)
        tensors["pos_embed"] *= 1e25
        save_file(tensors, path)
    merge_files(asked(files, tmp_path / "m.safetensors"), Settings())
    assert load_file(tmp_path / "m.safetensors")["pos_embed"].isfinite().all()


def drop(tensors):
    del tensors["pos_embed"]


def add(tensors):
    tensors["extra"] = torch.zeros(2)


def reshape(tensors):
    tensors["pos_embed"] = tensors["pos_embed"].reshape(5, 6)


def retype(tensors):
    tensors["pos_embed"] = tensors["pos_embed"].long()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"s1\.safetensors: lacks pos_embed \(1, 5, 6\), which .*base\.safetensors has"),
        (add, r"s1\.safetensors: has extra \(2,\), which .*base\.safetensors lacks"),
        (reshape, r"s1\.safetensors: pos_embed has shape \(5, 6\), but \(1, 5, 6\) in .*base\.safetensors"),
        (retype, r"s1\.safetensors: pos_embed is torch.int64, but torch.float32 in .*base\.safetensors"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, files, change, message):
    tensors = load_file(files["s1"])
    change(tensors)
    save_file(tensors, files["s1"])
    with pytest.raises(R2MError, match=message):
        merge_files(asked(files, tmp_path / "m.safetensors"), Settings())
    assert left_over(tmp_path, files) == set()


def test_a_specialist_of_another_precision_is_told(tmp_path, files):
    tensors = {
        key: one.half() if one.is_floating_point() else one for key, one in load_file(files["s1"]).items()
    }
    save_file(tensors, files["s1"])
    report = merge_files(asked(files, tmp_path / "m.safetensors"), Settings())
    assert report["warnings"][0].endswith("is torch.float16, in the base torch.float32")
    assert load_file(tmp_path / "m.safetensors")["pos_embed"].dtype == torch.float32


def test_outputs_are_not_replaced_unasked(tmp_path, files):
    out = tmp_path / "m.safetensors"
    out.write_text("mine")
    with pytest.raises(R2MError, match=r"m\.safetensors: exists; --force replaces it"):
        merge_files(asked(files, out), Settings())
    assert out.read_text() == "mine"
    merge_files(asked(files, out), Settings(force=True))
    assert load_file(out)
    with pytest.raises(R2MError, match=r"s0\.safetensors: is one of the inputs"):
        merge_files(asked(files, files["s0"]), Settings(force=True))
    with pytest.raises(R2MError, match=r"m\.bin: expected a name that ends in \.safetensors"):
        merge_files(asked(files, tmp_path / "m.bin"), Settings())
    with pytest.raises(R2MError, match="absent: no such folder"):
        merge_files(asked(files, tmp_path / "absent" / "m.safetensors"), Settings())


def test_outputs_that_are_one_file_or_an_input(tmp_path, files):
    out, other = tmp_path / "m.safetensors", tmp_path / "n.safetensors"
    for fields in ({"report": out}, {"gram_cache": out}, {"gram_cache": other, "report": other}):
        with pytest.raises(R2MError, match=r"\.safetensors: stands for two outputs; expected different"):
            merge_files(asked(files, out, "r2m", **fields), Settings(force=True))
    statistics = {name: path for name, path in files.items() if name != "base"}
    for fields in ({"gram_cache": files["s1"]}, {"report": files["s1"]}):
        with pytest.raises(R2MError, match=r"s1\.safetensors: is one of the inputs"):
            merge_files(asked(files, out, "r2m", **fields), Settings(force=True))
    other.write_bytes(files["s1"].read_bytes())
    request = asked(files, other, "fisher", statistics=statistics | {"s1": other})
    with pytest.raises(R2MError, match=r"n\.safetensors: is one of the inputs"):
        merge_files(request, Settings(force=True))
    with pytest.raises(R2MError, match="gram_cache: ties needs no inner products, only r2m does"):
        merge_files(asked(files, out, "ties", gram_cache=other), Settings())
    assert left_over(tmp_path, files) == {"n.safetensors"}


def test_a_shard_is_not_replaced(tmp_path, files):
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(files["s1"], folder / "model.safetensors")
    with pytest.raises(R2MError, match=r"model\.safetensors: is one of the inputs"):
        merge_files(asked(files | {"s1": folder}, folder / "model.safetensors"), Settings(force=True))
    assert (folder / "model.safetensors").read_bytes() == files["s1"].read_bytes()


@pytest.mark.parametrize(
    ("method", "options", "dtype"),
    [("task_arithmetic", {"scaling": 1e8}, "float16"), ("wudi", {"lr": 1e30, "steps": 20}, None)],
)
def test_results_that_are_not_finite(tmp_path, files, method, options, dtype):
    out = tmp_path / "m.safetensors"
    request = asked(files, out, method, options=options, dtype=dtype)
    with pytest.raises(R2MError, match=r"values (are )?beyond torch\.float"):
        merge_files(request, Settings())
    assert left_over(tmp_path, files) == set()
    merge_files(request, Settings(allow_nonfinite=True))
    assert not all(one.isfinite().all() for one in load_file(out).values())


def test_a_model_merged_on_another_base_is_refused(tmp_path, files):
    merge_files(asked(files, tmp_path / "m.safetensors"), Settings())
    merged = files | {"s2": tmp_path / "m.safetensors"}
    merge_files(asked(merged, tmp_path / "n.safetensors"), Settings())
    moved = merged | {"base": files["s0"]}
    with pytest.raises(R2MError, match=r"m\.safetensors: its metadata say that s2 was made from the base"):
        merge_files(asked(moved, tmp_path / "o.safetensors"), Settings())
    assert not (tmp_path / "o.safetensors").exists()
    merge_files(asked(moved, tmp_path / "o.safetensors"), Settings(allow_other_base=True))


def test_patterns_do_not_reach_the_head(tmp_path, files):
    request = asked(files, tmp_path / "m.safetensors", exclude=["head.*"], head_prefix="head.")
    with pytest.raises(R2MError, match=r"exclude 'head\.\*': fits the head alone"):
        merge_files(request, Settings())


def test_a_full_disk(tmp_path, files, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer.os, "posix_fallocate", full)
    with pytest.raises(R2MError, match=r"m\.safetensors: no space left"):
        merge_files(asked(files, tmp_path / "m.safetensors"), Settings())
    assert left_over(tmp_path, files) == set()


def test_an_interruption_leaves_nothing(tmp_path, files, monkeypatch):
    method = registry.get("task_arithmetic")

    def interrupted(*_):
        raise KeyboardInterrupt

    changed = merging.updater
    monkeypatch.setattr(merging, "updater", lambda *_: (interrupted, None))
    for threads in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            merge_files(asked(files, tmp_path / "m.safetensors", method.name), Settings(threads=threads))
        assert left_over(tmp_path, files) == set()
    monkeypatch.setattr(merging, "updater", changed)


def test_statistics_are_asked_for(tmp_path, files):
    with pytest.raises(R2MError, match="fisher: expected --statistics NAME=FILE a specialist"):
        merge_files(asked(files, tmp_path / "m.safetensors", "fisher"), Settings())
    ones = {key: torch.ones_like(one) for key, one in load_file(files["s0"]).items() if key != "steps"}
    statistics = {}
    for weight, name in enumerate(("s0", "s1", "s2"), start=1):
        statistics[name] = tmp_path / f"{name}.fisher.safetensors"
        save_file({key: weight * one for key, one in ones.items()}, statistics[name])
    merge_files(asked(files, tmp_path / "m.safetensors", "fisher", statistics=statistics), Settings())
    inputs = [load_file(files[name]) for name in ("s0", "s1", "s2")]
    expected = sum(weight * one["pos_embed"] for weight, one in enumerate(inputs, start=1)) / 6
    torch.testing.assert_close(load_file(tmp_path / "m.safetensors")["pos_embed"], expected)
    with pytest.raises(R2MError, match="statistics: weight_averaging takes none"):
        merge_files(asked(files, tmp_path / "n.safetensors", statistics=statistics), Settings())
    del statistics["s1"]
    with pytest.raises(R2MError, match="statistics: expected those of s0, s1, s2, got s0, s2"):
        merge_files(asked(files, tmp_path / "n.safetensors", "fisher", statistics=statistics), Settings())


def test_gram_cache(tmp_path, files):
    cache, out = tmp_path / "grams.safetensors", tmp_path / "m.safetensors"
    merge_files(asked(files, out, "r2m"), Settings())
    expected = load_file(out)
    two = {name: files[name] for name in ("base", "s0", "s2")}
    for chosen in (two, files, files, two):
        merge_files(asked(chosen, out, "r2m", gram_cache=cache), Settings(force=True))
        if chosen is files:
            for key, tensor in load_file(out).items():
                torch.testing.assert_close(tensor, expected[key], atol=1e-6, rtol=0)
    cached = load_file(out)
    merge_files(asked(two, out, "r2m"), Settings(force=True))
    for key, tensor in load_file(out).items():
        torch.testing.assert_close(tensor, cached[key], atol=1e-6, rtol=0)


def test_sharded_inputs(tmp_path, files):
    tensors = load_file(files["s1"])
    folder = tmp_path / "sharded"
    folder.mkdir()
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[:3], names[3:])):
        save_file({name: tensors[name] for name in part}, folder / f"model-{number}.safetensors")
        weight_map |= dict.fromkeys(part, f"model-{number}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    merge_files(asked(files, tmp_path / "m.safetensors"), Settings())
    merge_files(asked(files | {"s1": folder}, tmp_path / "n.safetensors"), Settings())
    assert (tmp_path / "n.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def test_a_truncated_file(tmp_path, files):
    shutil.copy(files["s1"], tmp_path / "whole")
    files["s1"].write_bytes((tmp_path / "whole").read_bytes()[:-10])
    (tmp_path / "whole").unlink()
    with pytest.raises(R2MError, match=r"s1\.safetensors: corrupt or not a safetensors file \(truncated"):
        merge_files(asked(files, tmp_path / "m.safetensors"), Settings())
    assert left_over(tmp_path, files) == set()


def test_what_the_base_says_of_the_detector_is_kept(tmp_path, files):
    faces, backbone = FacesOptions(), BackboneOptions(name="test_vit", head="cosine")
    config = config_of(backbone, faces, "fp32").model_dump(mode="json")
    base = load_file(files["base"])
    checkpoint.save(files["base"], base, {"detector": config})
    merge_files(asked(files, tmp_path / "m.safetensors", head_prefix="head."), Settings())
    tensors, metadata = checkpoint.load(tmp_path / "m.safetensors")
    assert json.loads(metadata["detector"]) == config
    heads = [load_file(path)["head.weight"] for name, path in files.items() if name != "base"]
    directions = sum(head / head.norm() for head in heads) / len(heads)
    torch.testing.assert_close(tensors["head.weight"], directions)
    checkpoint.save(files["base"], base, {})
    merge_files(asked(files, tmp_path / "n.safetensors"), Settings())
    assert "detector" not in checkpoint.read_metadata(tmp_path / "n.safetensors")
