"""Merging files whose names, wrappers and formats differ, as a user calls it."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cli_calls import invoke
from r2m.errors import R2MError

pytestmark = pytest.mark.usefixtures("one_thread")

BODY = ("blocks.0.fc.weight", "blocks.1.fc.weight", "norm.weight")
SHAPES = dict(zip(BODY, ((8, 6), (8, 6), (6,)), strict=True))


def weights(seed, **more):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()} | more


def under(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def merge(folder, base, specialists, *more):
    """Average specialists (name → file) and return the merged tensors and the report."""
    named = [f"--specialist={name}={folder / file}" for name, file in specialists.items()]
    output = folder / "merged.safetensors"
    method = ["merge", "--method", "weight_averaging", "--base", folder / base]
    invoke(*method, *named, "--out", output, "--force", *more)
    return load_file(output), json.loads(output.with_suffix(".json").read_text())


def assert_averaged(merged, prefix="", seeds=(1, 2)):
    for name in BODY:
        average = torch.stack([weights(seed)[name] for seed in seeds]).mean(0)
        torch.testing.assert_close(merged[prefix + name], average)


@pytest.mark.parametrize("own", ["", "module.", "backbone.", "net.image_encoder."])
@pytest.mark.parametrize("base", ["", "backbone.", "model.vision_model."])
def test_the_output_has_the_names_of_the_base(tmp_path, base, own):
    save_file(under(base, weights(0)), tmp_path / "base.safetensors")
    torch.save({"state_dict": under(own, weights(1))}, tmp_path / "a.ckpt")
    save_file(under(base, weights(2)), tmp_path / "b.safetensors")
    merged, report = merge(tmp_path, "base.safetensors", {"a": "a.ckpt", "b": "b.safetensors"})
    assert set(merged) == set(under(base, SHAPES))
    assert_averaged(merged, base)
    example = f"its {own + BODY[0]!r} is {base + BODY[0]!r} in base.safetensors, and 2 more names differ so"
    assert (example in report["inputs"]["a"]["notes"]) == (own != base)
    assert report["inputs"]["b"]["notes"] == []


def test_the_output_loads_into_the_class_of_the_inputs(tmp_path):
    class Detector(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5))
            self.fc = torch.nn.Linear(5, 2)

    for name in ("base", "a", "b"):
        torch.save(torch.nn.DataParallel(Detector()).state_dict(), tmp_path / f"{name}.pth")
    merged, _ = merge(tmp_path, "base.pth", {"a": "a.pth", "b": "b.pth"}, "--head-prefix", "module.fc.")
    torch.nn.DataParallel(Detector()).load_state_dict(merged)


@pytest.mark.parametrize("head", ["fc.", "classifier.", "my_head."])
@pytest.mark.parametrize(("base", "own"), [("backbone.", "backbone."), ("", "backbone."), ("backbone.", "")])
def test_heads_of_any_name_beside_a_prefix(tmp_path, base, own, head):
    save_file(under(base, weights(0)), tmp_path / "base.safetensors")
    for seed, name in ((1, "a"), (2, "b")):
        content = under(own, weights(seed)) | {f"{head}weight": torch.full((2, 6), float(seed))}
        save_file(content, tmp_path / f"{name}.safetensors")
    files = {"a": "a.safetensors", "b": "b.safetensors"}
    merged, _ = merge(tmp_path, "base.safetensors", files, "--head-prefix", head)
    assert_averaged(merged, base)
    assert merged[f"{head}weight"].tolist() == [[1.5] * 6] * 2


@pytest.mark.parametrize("prefix", ["head.", "module.head."])
def test_a_head_is_named_in_either_form(tmp_path, prefix):
    save_file(weights(0), tmp_path / "base.safetensors")
    for seed, name in ((1, "a"), (2, "b")):
        content = under("module.", weights(seed, **{"head.weight": torch.full((2, 6), float(seed))}))
        save_file(content, tmp_path / f"{name}.safetensors")
    files = {"a": "a.safetensors", "b": "b.safetensors"}
    merged, report = merge(tmp_path, "base.safetensors", files, "--head-prefix", prefix)
    assert report["head_tensors"] == ["head.weight"]
    assert merged["head.weight"].tolist() == [[1.5] * 6] * 2


def test_names_that_nothing_relates(tmp_path):
    save_file(weights(0), tmp_path / "base.safetensors")
    save_file({"layer1.0.conv1": torch.ones(3)}, tmp_path / "a.safetensors")
    with pytest.raises(
        R2MError, match=r"a\.safetensors: no tensor is called as in .*: it has 'layer1\.0\.conv1', the base"
    ):
        merge(tmp_path, "base.safetensors", {"a": "a.safetensors"})
    save_file(under("student.", weights(1)) | under("teacher.", weights(2)), tmp_path / "a.safetensors")
    with pytest.raises(
        R2MError, match=r"a\.safetensors: holds the base's tensors several times, .*'student\.'"
    ):
        merge(tmp_path, "base.safetensors", {"a": "a.safetensors"})


def test_digests_do_not_depend_on_known_prefixes(tmp_path):
    digests = []
    for base, own in (("", ""), ("", "module."), ("backbone.", "model."), ("model.", "")):
        save_file(under(base, weights(0)), tmp_path / "base.safetensors")
        save_file(under(own, weights(1)), tmp_path / "a.safetensors")
        _, report = merge(tmp_path, "base.safetensors", {"a": "a.safetensors"})
        digests.append((report["base"]["digest"], report["inputs"]["a"]["digest"]))
    assert len(set(digests)) == 1


def test_exclude_has_the_names_of_the_base(tmp_path):
    save_file(under("backbone.", weights(0)), tmp_path / "base.safetensors")
    save_file(under("module.", weights(1)), tmp_path / "a.safetensors")
    merged, _ = merge(tmp_path, "base.safetensors", {"a": "a.safetensors"}, "--exclude", "backbone.norm.*")
    assert torch.equal(merged["backbone.norm.weight"], weights(0)["norm.weight"])
    torch.testing.assert_close(merged["backbone.blocks.0.fc.weight"], weights(1)["blocks.0.fc.weight"])


def test_statistics_follow_the_names_of_the_base(tmp_path):
    save_file(under("backbone.", weights(0)), tmp_path / "base.safetensors")
    files = {"a": "a.safetensors", "b": "b.safetensors"}
    for seed, name in ((1, "a"), (2, "b")):
        save_file(weights(seed), tmp_path / f"{name}.safetensors")
        fisher = {key: torch.full(shape, float(seed)) for key, shape in SHAPES.items()}
        save_file(fisher, tmp_path / f"{name}_fisher.safetensors")
    given = [f"--statistics={name}={tmp_path / f'{name}_fisher.safetensors'}" for name in files]
    merged, _ = merge(tmp_path, "base.safetensors", files, "--method", "fisher", *given)
    expected = (weights(1)["norm.weight"] + 2 * weights(2)["norm.weight"]) / 3
    torch.testing.assert_close(merged["backbone.norm.weight"], expected)


def test_what_is_written_says_pt(tmp_path):
    save_file(weights(0), tmp_path / "base.safetensors")
    save_file(weights(1), tmp_path / "a.safetensors")
    merge(tmp_path, "base.safetensors", {"a": "a.safetensors"})
    with safe_open(tmp_path / "merged.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"


@pytest.mark.parametrize("more", [[], ["--base", "base.safetensors"]])
def test_inspect_compares_under_the_same_names(tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    save_file(weights(0), "base.safetensors")
    save_file(weights(1), "a.safetensors")
    save_file(under("module.net.", weights(1)), "b.safetensors")
    found = json.loads(invoke("inspect", "a.safetensors", "b.safetensors", *more, "--json"))
    assert found["cosines"][0][1] == pytest.approx(1)
    assert found["files"][0]["norm"] == pytest.approx(found["files"][1]["norm"])
    first = "base.safetensors" if more else "a.safetensors"
    assert found["files"][1]["notes"] == [
        f"its 'module.net.blocks.0.fc.weight' is 'blocks.0.fc.weight' in {first}, and 2 more names differ so"
    ]


def test_inspect_looks_into_files_of_several_models(tmp_path):
    save_file(weights(0), tmp_path / "a.safetensors")
    save_file(under("student.", weights(1)) | under("teacher.", weights(2)), tmp_path / "b.safetensors")
    found = json.loads(invoke("inspect", tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--json"))
    assert found["cosines"][0][1] == 0
    assert "several times, with the prefixes 'student.' and 'teacher.'" in found["files"][1]["notes"][0]


def write_adapter(folder, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 6, generator=generator), torch.randn(8, 2, generator=generator)
    name = "base_model.model.blocks.0.fc.lora_"
    folder.mkdir()
    save_file({f"{name}A.weight": a, f"{name}B.weight": b}, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 1}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return weights(0) | {"blocks.0.fc.weight": weights(0)["blocks.0.fc.weight"] + 0.5 * b @ a}


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "r2m"])
@pytest.mark.parametrize("threads", [1, 2])
def test_adapters_merge_as_the_models_that_they_make(tmp_path, method, threads):
    save_file(weights(0), tmp_path / "base.safetensors")
    adapters, models = {}, {}
    for seed, name in enumerate("abc", start=1):
        adapters[name], models[name] = name, f"{name}.safetensors"
        save_file(write_adapter(tmp_path / name, seed), tmp_path / models[name])
    settings = ["--method", method, "--threads", threads]
    merged, report = merge(tmp_path, "base.safetensors", adapters, *settings)
    expected, other = merge(tmp_path, "base.safetensors", models, *settings)
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor)
    assert "a LoRA adapter, applied to 1 of the base's tensors" in report["inputs"]["a"]["notes"]
    assert [text for text in report["warnings"] if "float32" in text] == []
    assert report["base"]["digest"] == other["base"]["digest"]


def test_an_adapters_config_is_an_input(tmp_path):
    save_file(weights(0), tmp_path / "base.safetensors")
    write_adapter(tmp_path / "a", 1)
    report = tmp_path / "a" / "adapter_config.json"
    with pytest.raises(R2MError, match=r"adapter_config\.json: is one of the inputs"):
        merge(tmp_path, "base.safetensors", {"a": "a"}, "--report", report, "--force")


def test_an_adapter_of_a_base_in_half_precision(tmp_path):
    save_file({name: one.bfloat16() for name, one in weights(0).items()}, tmp_path / "base.safetensors")
    write_adapter(tmp_path / "a", 1)
    merged, report = merge(tmp_path, "base.safetensors", {"a": "a"})
    assert merged["blocks.0.fc.weight"].dtype == torch.bfloat16
    assert not [text for text in report["warnings"] if "in the base" in text]
