"""Merged weights in half precision: what the report says of their rounding, and values that do not fit."""

import json
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from r2m.errors import R2MError
from r2m.merge import recipe, rounding
from r2m.merge.engine import Settings, merge_files
from r2m.merge.rounding import errors_of

SHAPES = {"blocks.0.weight": (7, 5), "blocks.1.weight": (7, 5), "norm.weight": (5,)}


def write_models(folder, change=lambda tensors: tensors, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    base = {key: torch.randn(shape, generator=generator) for key, shape in SHAPES.items()}
    base |= {"head.weight": torch.randn(1, 5, generator=generator), "steps": torch.tensor([7])}
    for name in ("base", "a", "b"):
        moved = {
            key: one + 0.1 * torch.randn(one.shape, generator=generator) if one.is_floating_point() else one
            for key, one in base.items()
        }
        tensors = change(dict(base if name == "base" else moved))
        converted = {key: one.to(dtype) if one.is_floating_point() else one for key, one in tensors.items()}
        save_file(converted, folder / f"{name}.safetensors")


def asked(folder, dtype=None, out="m", **fields):
    content = {
        "method": "weight_averaging",
        "base": folder / "base.safetensors",
        "specialists": {name: folder / f"{name}.safetensors" for name in ("a", "b")},
        "out": folder / f"{out}.safetensors",
        "dtype": dtype,
    }
    return recipe.build({**content, **fields}, "test")


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("method", ["weight_averaging", "tsv_m"])
def test_the_report_states_the_greatest_errors(tmp_path, name, method):
    def tiny(tensors):
        tensors["norm.weight"][:] = torch.tensor([1e-9, 1.0, 0.0, 2.0, -3.0])
        return tensors

    write_models(tmp_path, tiny)
    fields = {"method": method, "exclude": ["blocks.1.*"], "head_prefix": "head."}
    exact_report = merge_files(asked(tmp_path, out="exact", **fields), Settings())
    assert exact_report["rounding"] == {}
    report = merge_files(asked(tmp_path, name, **fields), Settings(threads=2))
    exact, rounded = (load_file(tmp_path / f"{one}.safetensors") for one in ("exact", "m"))
    errors = {key: (exact[key] - rounded[key].float()).abs() for key in (*SHAPES, "head.weight")}
    shares = {key: (one / exact[key].abs().where(exact[key] != 0, 1)).max() for key, one in errors.items()}
    for key, tensor in rounded.items():
        assert tensor.dtype == (torch.int64 if key == "steps" else getattr(torch, name))
        assert torch.equal(tensor, exact[key].to(tensor.dtype))
    (told,) = report["rounding"].items()
    assert told[0] == name
    worst, farthest = max(errors, key=lambda key: errors[key].max()), max(shares, key=shares.get)
    assert told[1] == {
        "tensors": 4,
        "greatest_absolute": pytest.approx(errors[worst].max().item()),
        "greatest_absolute_in": worst,
        "greatest_relative": pytest.approx(shares[farthest].item()),
        "greatest_relative_in": farthest,
        "to_zero": 1 if name == "float16" else 0,
        "to_infinity": 0,
    }
    assert json.loads((tmp_path / "m.json").read_text())["rounding"] == report["rounding"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_types_of_the_base_are_rounded_to_as_well(tmp_path, dtype):
    write_models(tmp_path, dtype=dtype)
    report = merge_files(asked(tmp_path), Settings())
    (told,) = report["rounding"].values()
    assert told["tensors"] == 4
    assert 0 < told["greatest_relative"] <= torch.finfo(dtype).eps / 2
    assert all(
        one.dtype == dtype for key, one in load_file(tmp_path / "m.safetensors").items() if key != "steps"
    )


@pytest.mark.parametrize("where", ["blocks.0.weight", "blocks.1.weight", "head.weight"])
def test_values_that_float16_cannot_hold(tmp_path, caplog, where):
    caplog.set_level(logging.WARNING)

    def great(tensors):
        tensors[where][0, 1] = 7e4
        return tensors

    write_models(tmp_path, great)
    fields = {"exclude": ["blocks.1.*"], "head_prefix": "head."}
    before = sorted(tmp_path.iterdir())
    with pytest.raises(
        R2MError, match=rf"{where}: 1 values are beyond torch\.float16, up to 7e\+04 in magnitude"
    ):
        merge_files(asked(tmp_path, "float16", **fields), Settings())
    assert sorted(tmp_path.iterdir()) == before
    report = merge_files(asked(tmp_path, "float16", **fields), Settings(allow_nonfinite=True))
    warning = f"{where}: 1 finite values are beyond torch.float16 and became infinite"
    assert report["warnings"] == [warning]
    assert warning in caplog.text
    assert report["rounding"]["float16"]["to_infinity"] == 1
    assert load_file(tmp_path / "m.safetensors")[where].isinf().sum() == 1
    report = merge_files(asked(tmp_path, "bfloat16", **fields), Settings(force=True))
    assert report["rounding"]["bfloat16"]["to_infinity"] == 0


@settings(max_examples=50, deadline=None)
@given(
    numbers=st.lists(st.floats(width=32), max_size=12),
    dtype=st.sampled_from([torch.float16, torch.bfloat16]),
    part=st.sampled_from([1, 5, 2**17]),
)
def test_errors_are_those_of_every_entry(numbers, dtype, part):
    exact = torch.tensor(numbers)
    rounded = exact.to(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounding, "PART", part)
        found = errors_of(exact, rounded)
    pairs = [(a, b) for a, b in zip(exact.tolist(), rounded.tolist(), strict=True) if abs(a) < float("inf")]
    finite = [(a, b) for a, b in pairs if abs(b) < float("inf")]
    assert found.to_infinity == len(pairs) - len(finite)
    assert found.to_zero == sum(b == 0 != a for a, b in finite)
    assert found.absolute == pytest.approx(max((abs(a - b) for a, b in finite), default=0), rel=1e-6)
    shares = [abs(a - b) / abs(a) for a, b in finite if a]
    assert found.relative == pytest.approx(max(shares, default=0), rel=1e-6)
    assert found.relative <= 1
