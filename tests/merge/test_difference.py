"""`r2m diff`: how two weights files differ, and what the exit code tells."""

import json
import re
import subprocess
import sys
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import cli_calls
from clip_samples import openai_state, timm_state
from r2m.merge import difference
from r2m.merge.difference import diff
from r2m.models.specialists import open_like
from r2m.models.weights import open_weights

invoke = partial(cli_calls.invoke, "diff")


def weights(seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"blocks.0.weight": (5, 4), "blocks.1.weight": (5, 4), "norm.weight": (4,)}
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()} | more


def write(path, tensors):
    save_file(tensors, path)
    return path


@pytest.fixture
def pair(tmp_path):
    """Writes two sets of tensors and returns their files."""

    def written(first, second):
        return write(tmp_path / "a.safetensors", first), write(tmp_path / "b.safetensors", second)

    return written


def test_norms_and_cosines_are_those_of_the_tensors(pair, monkeypatch):
    first, second = weights(), weights()
    second["blocks.1.weight"] = second["blocks.1.weight"] + 0.1 * weights(1)["blocks.1.weight"]
    second["norm.weight"] = second["norm.weight"].clone()
    second["norm.weight"][2] += 3
    for piece in (2**18, 3):
        monkeypatch.setattr(difference, "PIECE", piece)
        found = diff(*pair(first, second), threads=2)
        assert not found["equal"]
        assert found["differing"] == ["blocks.1.weight", "norm.weight"]
        for key, one in found["tensors"].items():
            a, b = first[key].double().reshape(-1), second[key].double().reshape(-1)
            assert one["entries"] == int((a != b).sum())
            assert one["norm"] == pytest.approx((a - b).norm().item())
            assert one["relative"] == pytest.approx(((a - b).norm() / a.norm()).item())
            assert one["greatest"] == pytest.approx((a - b).abs().max().item())
            assert one["cosine"] == pytest.approx(torch.nn.functional.cosine_similarity(a, b, dim=0).item())
        a, b = (torch.cat([one[key].double().reshape(-1) for key in first]) for one in (first, second))
        assert found["total"]["norm"] == pytest.approx((a - b).norm().item())
        assert found["total"]["cosine"] == pytest.approx((a @ b / (a.norm() * b.norm())).item())
        assert found["total"]["greatest_in"] == "norm.weight"
        assert found["total"]["entries"] == 21


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=st.lists(st.floats(width=32), min_size=1, max_size=9),
    other=st.none() | st.tuples(st.integers(0, 8), st.floats(width=32)),
)
def test_a_file_equals_itself_and_no_other(pair, numbers, other):
    values = torch.tensor(numbers)
    changed = values.clone()
    if other is not None and other[0] < len(numbers):
        changed[other[0]] = other[1]
    found = diff(*pair({"x": values}, {"x": changed}))
    same = (values == changed) | (values.isnan() & changed.isnan())
    assert found["equal"] == bool(same.all())
    if found["equal"]:
        assert found["total"]["norm"] == found["total"]["greatest"] == 0


def test_equal_files_exit_with_0(pair, tmp_path):
    first, second = pair(weights(steps=torch.tensor(7)), weights(steps=torch.tensor(7)))
    assert invoke(first, second, code=0).splitlines()[-1] == "equal: 4 tensors"
    torch.save({"state_dict": weights(steps=torch.tensor(7))}, tmp_path / "c.ckpt")
    assert "equal: 4 tensors" in invoke(first, tmp_path / "c.ckpt", code=0)
    wrapped = {f"module.{key}": one for key, one in weights(steps=torch.tensor(7)).items()}
    text = invoke(first, write(tmp_path / "d.safetensors", wrapped), code=0)
    assert re.search(r"\[2\] its 'module\.blocks\.0\.weight' is 'blocks\.0\.weight'", text)


def test_what_differs_beside_values(pair):
    first = weights(head=torch.zeros(2, 4), extra=torch.ones(3))
    second = weights(head=torch.zeros(3, 4), more=torch.ones(()))
    second["norm.weight"] = second["norm.weight"].double()
    files = pair(first, second)
    text = invoke(*files, code=1)
    assert (
        "different: 0 of 3 tensors differ in values, 1 only in [1], 1 only in [2], 1 of other shapes" in text
    )
    assert "only in [1]: extra 3\n" in text
    assert "only in [2]: more scalar\n" in text
    assert "other shape: head 2×4, 3×4\n" in text
    assert "other type: norm.weight float32, float64" in text
    found = json.loads(invoke(*files, "--json", code=1))
    assert found["only_in_first"] == {"extra": [3]}
    assert found["other_shapes"] == {"head": [[2, 4], [3, 4]]}
    assert found["other_types"] == {"norm.weight": ["float32", "float64"]}
    assert found["tensors"].keys() == {"blocks.0.weight", "blocks.1.weight", "norm.weight"}


def test_integers_are_compared_exactly(pair):
    first, second = ({"x": torch.tensor([2**60 + one]), "flag": torch.tensor([True])} for one in (0, 1))
    found = diff(*pair(first, second))
    assert found["differing"] == ["x"]
    assert found["tensors"]["x"]["entries"] == 1
    assert found["total"]["norm"] == 0


def test_numbers_that_json_has_not(pair):
    first, second = {"x": torch.tensor([1.0, float("nan")])}, {"x": torch.tensor([1.0, 2.0])}
    found = json.loads(invoke(*pair(first, second), "--json", code=1), parse_constant=pytest.fail)
    assert found["tensors"]["x"]["norm"] is None
    assert found["tensors"]["x"]["greatest"] is None
    assert found["tensors"]["x"]["entries"] == 1
    assert found["total"]["greatest_in"] == "x"


def test_empty_and_zero_tensors(pair):
    zeros = {"none": torch.zeros(0, 4), "zero": torch.zeros(3)}
    assert diff(*pair(zeros, zeros))["equal"]
    found = diff(*pair(zeros, zeros | {"zero": torch.ones(3)}))
    assert found["tensors"]["zero"]["relative"] is None
    assert found["tensors"]["zero"]["cosine"] is None
    assert found["tensors"]["zero"]["norm"] == pytest.approx(3**0.5)


def test_an_adapter_is_compared_as_the_model_that_it_makes(tmp_path):
    base = write(tmp_path / "base.safetensors", weights())
    folder = tmp_path / "adapter"
    folder.mkdir()
    a, b = torch.ones(1, 4), torch.full((5, 1), 2.0)
    prefix = "base_model.model.blocks.0.lora_"
    write(folder / "adapter_model.safetensors", {f"{prefix}A.weight": a, f"{prefix}B.weight": b})
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 3}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    found = diff(base, folder)
    assert found["differing"] == ["blocks.0.weight"]
    assert found["tensors"]["blocks.0.weight"]["greatest"] == pytest.approx(6, rel=1e-5)


def test_a_clip_under_the_names_of_another_library(tmp_path):
    openai = write(tmp_path / "openai.safetensors", openai_state())
    timm = write(tmp_path / "timm.safetensors", timm_state())
    with open_weights(timm) as base, open_like(openai, base) as like:
        same = {key: like.tensor(key) for key in like.entries}
    renamed = write(tmp_path / "renamed.safetensors", same)
    assert diff(renamed, openai)["equal"]
    larger = write(tmp_path / "larger.safetensors", openai_state(grid=4))
    found = diff(timm, larger)
    assert found["other_shapes"] == {"pos_embed": [[1, 10, 16], [1, 17, 16]]}
    assert not found["only_in_first"]
    assert not found["only_in_second"]


def test_errors_exit_with_2_and_one_line(tmp_path):
    first = write(tmp_path / "a.safetensors", weights())
    (tmp_path / "b.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    for name in ("b.safetensors", "absent"):
        command = [sys.executable, "-m", "r2m", "diff", str(first), str(tmp_path / name)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert result.returncode == 2
        assert re.fullmatch(rf"r2m: error: .*{name}: .*\n", result.stderr)
        assert result.stdout == ""
