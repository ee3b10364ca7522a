import json
import os

import pytest
import torch
from safetensors.torch import load_file

from r2m.errors import R2MError
from r2m.models import checkpoint
from r2m.version import __version__


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "b.weight": torch.randn(3, 5, generator=generator),
        "a.half": torch.randn(7, generator=generator).half(),
        "mask": torch.tensor([True, False, True]),
        "steps": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "c.bf16": torch.randn(2, 2, generator=generator).bfloat16(),
        "transposed": torch.randn(4, 3, generator=generator).T,
    }


def test_round_trip(tmp_path, tensors):
    path = tmp_path / "new" / "x.safetensors"
    checkpoint.save(path, tensors, {"generator": "swap", "options": {"b": 1, "a": [1.5, None]}})
    loaded, metadata = checkpoint.load(path)
    assert list(loaded) == sorted(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
    assert metadata == {
        "format": "pt",
        "generator": "swap",
        "options": '{"a": [1.5, null], "b": 1}',
        "r2m_version": __version__,
    }
    assert checkpoint.read_metadata(path) == metadata
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_the_library_reads_what_is_written(tmp_path, tensors):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, tensors, {})
    loaded = load_file(path)
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_bytes_depend_on_content_only(tmp_path, tensors):
    metadata = {f"key{i}": str(i) for i in range(20)}
    checkpoint.save(tmp_path / "a", tensors, metadata)
    backwards = dict(reversed(tensors.items()))
    checkpoint.save(tmp_path / "b", backwards, dict(reversed(metadata.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_bytes_of_a_file(tmp_path):
    checkpoint.save(tmp_path / "x", {"b": torch.ones(1).half(), "a": torch.zeros(())}, {"k": [1]})
    header = (
        f'{{"__metadata__":{{"format":"pt","k":"[1]","r2m_version":"{__version__}"}},'
        '"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},'
        '"b":{"dtype":"F16","shape":[1],"data_offsets":[4,6]}}'
    ).encode()
    header += b" " * (-len(header) % 8)
    data = b"\0\0\0\0\x00\x3c"
    assert (tmp_path / "x").read_bytes() == len(header).to_bytes(8, "little") + header + data


def test_digest_is_of_the_content(tmp_path, tensors):
    digest = checkpoint.digest(tensors)
    checkpoint.save(tmp_path / "a", tensors, {})
    assert checkpoint.digest(checkpoint.load(tmp_path / "a")[0]) == digest
    assert checkpoint.digest(dict(reversed(tensors.items()))) == digest
    assert checkpoint.digest({**tensors, "steps": torch.tensor(4)}) != digest
    assert checkpoint.digest({**tensors, "steps": torch.tensor([3])}) != digest
    assert checkpoint.digest({**tensors, "steps": torch.tensor(3, dtype=torch.int32)}) != digest
    assert digest.startswith("blake3:")


def test_failed_save_leaves_nothing(tmp_path):
    with pytest.raises(KeyError):
        checkpoint.save(tmp_path / "x", {"z": torch.zeros(2, dtype=torch.complex64)}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("read", [checkpoint.load, checkpoint.read_metadata, checkpoint.load_weights])
def test_missing_and_corrupt_files(tmp_path, read):
    path = tmp_path / "x.safetensors"
    with pytest.raises(R2MError, match=r"x\.safetensors: no such file"):
        read(path)
    for content in (b"", b"garbage that is no header at all", b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(R2MError, match=r"x\.safetensors: corrupt"):
            read(path)


def test_truncated_file(tmp_path, tensors):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, tensors, {})
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(R2MError, match="corrupt"):
        checkpoint.load(path)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {"state_dict": {f"module.model.{name}": value for name, value in state.items()}},
        lambda state: (
            {f"backbone.{name}": value for name, value in state.items()} | {"head.bias": torch.ones(2)}
        ),
    ],
)
def test_load_weights_unwraps(tmp_path, caplog, suffix, wrap):
    caplog.set_level("INFO")
    state = {"blocks.0.weight": torch.ones(2, 3), "norm.bias": torch.zeros(2)}
    wrapped = wrap(state)
    torch.save(wrapped, tmp_path / f"w{suffix}")
    loaded = checkpoint.load_weights(tmp_path / f"w{suffix}")
    assert {name: loaded[name] for name in state}.keys() == state.keys()
    assert set(loaded) - set(state) <= {"head.bias"}
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    assert bool(caplog.records) == (wrapped is not state)


def test_load_weights_of_safetensors(tmp_path):
    checkpoint.save(tmp_path / "w.safetensors", {"module.a": torch.ones(2)}, {})
    assert list(checkpoint.load_weights(tmp_path / "w.safetensors")) == ["a"]


def test_load_weights_of_shards(tmp_path):
    checkpoint.save(tmp_path / "0.safetensors", {"a": torch.ones(2)}, {})
    checkpoint.save(tmp_path / "1.safetensors", {"b": torch.zeros(3)}, {})
    index = {"weight_map": {"b": "1.safetensors", "a": "0.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    loaded = checkpoint.load_weights(tmp_path)
    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {"a": [1, 1], "b": [0, 0, 0]}


def test_prefix_of_some_tensors_stays(tmp_path):
    torch.save({"model.a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "w.pt")
    assert list(checkpoint.load_weights(tmp_path / "w.pt")) == ["b", "model.a"]


def test_prefixes_in_shards(tmp_path):
    checkpoint.save(tmp_path / "0.safetensors", {"model.a": torch.ones(2)}, {})
    checkpoint.save(tmp_path / "1.safetensors", {"model.b": torch.zeros(3)}, {})
    index = {"weight_map": {"model.b": "1.safetensors", "model.a": "0.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert list(checkpoint.load_weights(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("head", ["head.weight", "fc.weight", "classifier.weight", "lm_head.weight"])
def test_a_head_beside_the_prefix_stays(tmp_path, head):
    checkpoint.save(tmp_path / "w.safetensors", {"backbone.a": torch.ones(2), head: torch.ones(1)}, {})
    assert list(checkpoint.load_weights(tmp_path / "w.safetensors")) == ["a", head]


def test_repeated_prefix(tmp_path):
    state = {"module.module.a": torch.ones(2), "module.a": torch.zeros(2)}
    checkpoint.save(tmp_path / "w.safetensors", state, {})
    loaded = checkpoint.load_weights(tmp_path / "w.safetensors")
    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {"a": [0, 0], "module.a": [1, 1]}


def test_names_that_would_collide(tmp_path):
    state = {"module.head.a": torch.ones(2), "head.a": torch.zeros(2)}
    checkpoint.save(tmp_path / "w.safetensors", state, {})
    with pytest.raises(R2MError, match=r"w\.safetensors: holds both 'head\.a' and 'module\.head\.a'"):
        checkpoint.load_weights(tmp_path / "w.safetensors")


def test_another_format_cannot_be_stated(tmp_path):
    with pytest.raises(ValueError, match="metadata 'format': 'np'"):
        checkpoint.save(tmp_path / "w.safetensors", {"a": torch.ones(2)}, {"format": "np"})
    assert not (tmp_path / "w.safetensors").exists()


def test_metadata_that_were_read_can_be_passed_on(tmp_path, tensors):
    checkpoint.save(tmp_path / "a", tensors, {"generator": "swap"})
    checkpoint.save(tmp_path / "b", *checkpoint.load(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


class Malicious:
    def __reduce__(self):
        return os.system, ("touch /tmp/r2m_was_here",)


def test_pickled_code_is_refused(tmp_path):
    torch.save({"a": Malicious()}, tmp_path / "w.pt")
    with pytest.raises(R2MError, match=r"w\.pt: holds pickled Python objects"):
        checkpoint.load_weights(tmp_path / "w.pt")
    assert not os.path.exists("/tmp/r2m_was_here")


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 not a real archive"])
def test_corrupt_pickles(tmp_path, content):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(R2MError, match=r"w\.pt"):
        checkpoint.load_weights(tmp_path / "w.pt")


def test_other_mistakes(tmp_path):
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(R2MError, match="expected a mapping"):
        checkpoint.load_weights(tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    with pytest.raises(R2MError, match=r"holds no tensors; its keys are \['epoch'\]"):
        checkpoint.load_weights(tmp_path / "none.pt")
    with pytest.raises(R2MError, match=r"no such file"):
        checkpoint.load_weights(tmp_path / "absent.pt")
    (tmp_path / "weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    with pytest.raises(R2MError, match=r"weights\.h5: an HDF5 file .* expected weights as \.safetensors"):
        checkpoint.load_weights(tmp_path / "weights.h5")
