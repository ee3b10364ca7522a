"""Integer tensors: buffers are the base's, quantized weights are refused."""

import json
import logging

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from r2m.cli import r2m as r2m_command
from r2m.errors import R2MError
from r2m.merge import api, recipe
from r2m.merge.engine import Settings, merge_files

WEIGHT = {"norm.bias": torch.linspace(-1, 1, 6)}


def moved(tensors):
    return {key: one + 0.01 if one.is_floating_point() else one for key, one in tensors.items()}


def asked(folder, base, specialists, **fields):
    for name, tensors in {"base": base, **specialists}.items():
        save_file(tensors, folder / f"{name}.safetensors")
    paths = {name: folder / f"{name}.safetensors" for name in specialists}
    content = {"method": "weight_averaging", "base": folder / "base.safetensors", "specialists": paths}
    return recipe.build({**content, "out": folder / "m.safetensors", **fields}, "test")


BUFFERS = {
    "position_ids": torch.arange(5)[None],
    "mask": torch.tensor([[True, False]]),
    "buckets": torch.tensor([3, 1], dtype=torch.int32),
    "steps": torch.tensor(7),
}


def test_equal_buffers_are_copied_without_a_word(tmp_path, caplog):
    base = WEIGHT | BUFFERS
    report = merge_files(asked(tmp_path, base, {"a": moved(base), "b": moved(moved(base))}), Settings())
    assert report["warnings"] == []
    assert report["other_integers"] == {}
    merged = load_file(tmp_path / "m.safetensors")
    assert all(torch.equal(merged[key], tensor) for key, tensor in BUFFERS.items())


@pytest.mark.parametrize("key", BUFFERS)
def test_a_buffer_that_differs_is_warned_of_and_kept(tmp_path, caplog, key):
    base = WEIGHT | BUFFERS
    other = moved(base)
    other[key] = ~other[key] if other[key].dtype == torch.bool else other[key] + 1
    models = {"a": moved(moved(base)), "b": other, "c": other | {"norm.bias": base["norm.bias"] - 0.02}}
    report = merge_files(asked(tmp_path, base, models), Settings())
    text = f"{key}: holds integers, which are not merged: those of b, c differ from the base's"
    assert [one for one in report["warnings"] if one.startswith(text)]
    assert report["other_integers"] == {key: ["b", "c"]}
    assert torch.equal(load_file(tmp_path / "m.safetensors")[key], base[key])
    assert text in caplog.text
    caplog.clear()
    merged = api.merge("weight_averaging", base, models)
    assert torch.equal(merged[key], base[key])
    assert text in caplog.text
    files = [str(tmp_path / f"{name}.safetensors") for name in ("a", "b")]
    arguments = ["inspect", "--base", str(tmp_path / "base.safetensors"), *files]
    shown = CliRunner().invoke(r2m_command, [*arguments, "--json"], catch_exceptions=False).output
    notes = [one["notes"] for one in json.loads(shown)["files"]]
    assert notes == [[], [f"other integers than the base in {key}"]]


def test_counters_of_batches_differ_as_a_rule(tmp_path, caplog):
    base = WEIGHT | {"bn.num_batches_tracked": torch.tensor(10)}
    other = moved(base) | {"bn.num_batches_tracked": torch.tensor(12)}
    report = merge_files(asked(tmp_path, base, {"a": other, "b": moved(other)}), Settings())
    assert report["warnings"] == []
    assert load_file(tmp_path / "m.safetensors")["bn.num_batches_tracked"] == 10
    caplog.set_level(logging.WARNING)
    api.merge("weight_averaging", base, {"a": other, "b": moved(other)})
    assert "num_batches" not in caplog.text


def int8(*shape):
    return torch.randint(-127, 127, shape, dtype=torch.int8)


QUANTIZED = {
    "int8 with a scale a row": {"fc.weight": int8(4, 6), "fc.SCB": torch.ones(4)},
    "int8 alone": {"fc.weight": int8(4, 6)},
    "4 bits, packed": {
        "fc.weight": torch.randint(0, 255, (12, 1), dtype=torch.uint8),
        "fc.weight.absmax": torch.ones(2),
        "fc.weight.quant_state.bitsandbytes__nf4": torch.zeros(8, dtype=torch.uint8),
    },
    "gptq": {"fc.qweight": torch.ones(2, 6, dtype=torch.int32), "fc.scales": torch.ones(1, 6)},
    "another name": {"fc.codes": int8(4, 6), "fc.codes_scale": torch.ones(4)},
    "compressed": {"fc.weight_packed": torch.ones(4, 2, dtype=torch.int32)},
}


@pytest.mark.parametrize("case", QUANTIZED)
@pytest.mark.parametrize("prefix", ["", "head."])
def test_quantized_weights_are_refused(tmp_path, case, prefix):
    base = WEIGHT | {prefix + key: tensor for key, tensor in QUANTIZED[case].items()}
    key = prefix + next(iter(QUANTIZED[case]))
    fields = {"head_prefix": "head."} if prefix else {}
    with pytest.raises(R2MError, match=rf"base\.safetensors: {key} is a quantized weight .*dequantize"):
        merge_files(asked(tmp_path, base, {"a": moved(base), "b": base}, **fields), Settings())
    assert not (tmp_path / "m.safetensors").exists()
    with pytest.raises(R2MError, match=f"base: {key} is a quantized weight"):
        api.merge("weight_averaging", base, {"a": moved(base), "b": base})
    if not prefix:
        asked_for = asked(tmp_path, base, {"a": moved(base), "b": base}, exclude=["fc.*"])
        merge_files(asked_for, Settings())
        assert torch.equal(load_file(tmp_path / "m.safetensors")[key], base[key])


def test_packed_integers_of_any_name_that_differ_are_refused(tmp_path):
    base = WEIGHT | {"experts_blocks": torch.zeros(3, 4, dtype=torch.uint8)}
    other = moved(base) | {"experts_blocks": torch.ones(3, 4, dtype=torch.uint8)}
    with pytest.raises(R2MError, match=r"b\.safetensors: experts_blocks is a quantized weight \(uint8\)"):
        merge_files(asked(tmp_path, base, {"a": moved(base), "b": other}), Settings())


def test_weights_that_are_quantized_in_a_specialist_only(tmp_path):
    base = WEIGHT | {"fc.weight": torch.ones(4, 6)}
    other = base | {"fc.weight": int8(4, 6)}
    with pytest.raises(R2MError, match=r"b\.safetensors: fc\.weight is torch\.int8.*dequantized before"):
        merge_files(asked(tmp_path, base, {"a": moved(base), "b": other}), Settings())
    with pytest.raises(R2MError, match=r"fc\.weight: torch\.int8 in the specialist 'b'"):
        api.merge("weight_averaging", base, {"a": moved(base), "b": other})


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64])
def test_types_that_cannot_be_merged(dtype):
    base = WEIGHT | {"fc.weight": torch.zeros(2, 2).to(dtype)}
    with pytest.raises(R2MError, match=rf"base: fc\.weight: tensors of {dtype} cannot be merged"):
        api.merge("weight_averaging", base, {"a": base})
