import json
import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from r2m.errors import R2MError
from r2m.models import checkpoint
from r2m.models.entries import DTYPES, Entry
from r2m.models.weights import open_weights

DTYPE_NAMES = [str(dtype).removeprefix("torch.") for dtype in DTYPES]


@pytest.fixture
def state():
    """Every dtype, and the shapes that are easily got wrong."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"layer.{name}": torch.randint(-9, 99, (5, 7), generator=generator).to(dtype)
        for name, dtype in zip(DTYPE_NAMES, DTYPES, strict=True)
    }
    return tensors | {"empty": torch.zeros(0, 4), "scalar": torch.tensor(3.5), "steps": torch.tensor(3)}


def assert_same(weights, state):
    assert list(weights.entries) == sorted(state)
    for name, tensor in state.items():
        assert weights.entries[name] == Entry(tensor.dtype, tuple(tensor.shape))
        read = weights.tensor(name)
        assert read.dtype == tensor.dtype
        assert torch.equal(read, tensor)


def write_shards(folder, state, count=3, **index):
    """Write `state` as shards with an index, as Hugging Face's libraries do."""
    names = sorted(state)
    shard_of = {name: f"model-{i % count:05d}.safetensors" for i, name in enumerate(names)}
    for shard in set(shard_of.values()):
        tensors = {name: state[name] for name in names if shard_of[name] == shard}
        save_file(tensors, folder / shard, metadata={"format": "pt"})
    content = {"metadata": {"total_size": 5}, "weight_map": shard_of} | index
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    return shard_of


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth", "w.bin"])
def test_every_dtype_and_shape(tmp_path, state, name):
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(state, path, metadata={"a": "b"})
    else:
        torch.save(state, path)
    with open_weights(path) as weights:
        assert_same(weights, state)
        assert weights.path == path
        assert weights.files == (path,)
        assert weights.notes == []
        assert weights.metadata == ({"a": "b"} if path.suffix == ".safetensors" else {})


def test_sizes():
    entry = Entry(torch.float16, (3, 4))
    assert (entry.numel, entry.nbytes) == (12, 24)
    assert Entry(torch.float64, ()).nbytes == 8
    assert Entry(torch.float64, (0, 4)).nbytes == 0


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("dtype", DTYPE_NAMES)
def test_pieces(tmp_path, state, name, dtype):
    (save_file if name.endswith("tensors") else torch.save)(state, tmp_path / name)
    key = f"layer.{dtype}"
    flat = state[key].reshape(-1)
    buffer = torch.full((100, 8), 7, dtype=torch.uint8).reshape(-1)
    with open_weights(tmp_path / name) as weights:
        for start, stop in ((0, 35), (0, 1), (3, 20), (34, 35), (35, 35)):
            assert torch.equal(weights.read(key, start, stop), flat[start:stop])
            piece = weights.read(key, start, stop, out=buffer)
            assert torch.equal(piece, flat[start:stop])
            assert piece.data_ptr() == buffer.data_ptr() or start == stop
        assert torch.equal(weights.read(key, 30), flat[30:])
        assert buffer[35 * flat.element_size() :].eq(7).all()


def test_wrong_requests(tmp_path):
    save_file({"a": torch.ones(4)}, tmp_path / "w.safetensors")
    with open_weights(tmp_path / "w.safetensors") as weights:
        for start, stop in ((-1, 2), (3, 2), (0, 5)):
            with pytest.raises(ValueError, match="of a tensor of 4"):
                weights.read("a", start, stop)
        for buffer in (torch.empty(15, dtype=torch.uint8), torch.empty(4), torch.empty(40).byte()[::2]):
            with pytest.raises(ValueError, match="buffer of 16 bytes"):
                weights.read("a", out=buffer)
        with pytest.raises(KeyError):
            weights.read("b")
    with pytest.raises(ValueError, match="closed"):
        weights.read("a")


def test_many_threads_read_one_file(tmp_path):
    tensor = torch.arange(100_000)
    save_file({"a": tensor}, tmp_path / "w.safetensors")
    with open_weights(tmp_path / "w.safetensors") as weights, ThreadPoolExecutor(4) as pool:
        starts = range(0, 100_000, 1000)
        pieces = list(pool.map(lambda start: weights.read("a", start, start + 1000), starts))
    assert torch.equal(torch.cat(pieces), tensor)


def test_short_reads_are_continued(tmp_path, state, monkeypatch):
    save_file(state, tmp_path / "w.safetensors")
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, offset: preadv(fd, [views[0][:3]], offset))
    with open_weights(tmp_path / "w.safetensors") as weights:
        assert_same(weights, state)


def test_truncated_while_open(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    with open_weights(path) as weights:
        os.truncate(path, 2000)
        with pytest.raises(R2MError, match=r"w\.safetensors: truncated while it was read: .* byte 2,000"):
            weights.read("a")


def test_a_failing_disk_is_named(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(4)}, path)

    def fail(*_):
        raise OSError(5, "Input/output error")

    with open_weights(path) as weights:
        monkeypatch.setattr(os, "preadv", fail)
        with pytest.raises(R2MError, match=r"w\.safetensors: cannot be read \(Input/output error\)"):
            weights.read("a")


# Shards and folders


def test_shards(tmp_path, state):
    shard_of = write_shards(tmp_path, state)
    for path in (tmp_path, tmp_path / "model.safetensors.index.json"):
        with open_weights(path) as weights:
            assert_same(weights, state)
            assert weights.metadata == {"format": "pt", "total_size": "5"}
            assert weights.path == tmp_path / "model.safetensors.index.json"
            assert {one.name for one in weights.files} == {weights.path.name, *shard_of.values()}
            assert len(weights.notes) == (path == tmp_path)


def test_folder_with_one_file(tmp_path, state):
    save_file(state, tmp_path / "model.safetensors")
    save_file(state, tmp_path / "optimizer.safetensors")
    with open_weights(tmp_path) as weights:
        assert_same(weights, state)
        assert weights.notes == ["weights taken from the folder's model.safetensors"]


def test_folders_without_a_choice(tmp_path, state):
    with pytest.raises(R2MError, match=r"expected exactly one .* found neither"):
        open_weights(tmp_path)
    write_shards(tmp_path, state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(R2MError, match=r"found model\.safetensors, model\.safetensors\.index\.json"):
        open_weights(tmp_path)


def test_shard_or_tensor_missing(tmp_path, state):
    shard_of = write_shards(tmp_path, state)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shard_of | {"more": shard_of["scalar"]}}))
    with pytest.raises(
        R2MError, match=rf"index\.json: the shard {shard_of['scalar']} lacks the tensor 'more'"
    ):
        open_weights(tmp_path)
    index.write_text(json.dumps({"weight_map": shard_of | {"more": "gone.safetensors"}}))
    with pytest.raises(R2MError, match=r"tensor 'more' is in the shard gone\.safetensors, which is missing"):
        open_weights(tmp_path)


def test_tensors_that_the_index_omits(tmp_path, state):
    shard_of = write_shards(tmp_path, state)
    shard = shard_of.pop("scalar")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shard_of}))
    with open_weights(tmp_path / "model.safetensors.index.json") as weights:
        assert "scalar" not in weights.entries
        assert weights.notes == [f"1 tensors of {shard} are not in the index and left out"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {}}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": "../x"}}',
        '{"weight_map": {"a": "x", "a": "y"}}',
        '{"weight_map": {}, "metadata": 3}',
    ],
)
def test_bad_index(tmp_path, content):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content)
    with pytest.raises(R2MError, match=r"index\.json: "):
        open_weights(path)


# Damage


def file_of(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"123", "truncated: 3 bytes"),
        (file_of({"a": tensor()}, bytes(3)), r"truncated: 72 bytes, the header promises 77"),
        (file_of({"a": tensor()}, bytes(9)), "78 bytes, the header promises 77"),
        (file_of({"a": tensor()})[:40], "40 bytes, but its header alone would have 61"),
        (b"\xff" * 64, "64 bytes, but its header alone would have 18,4"),
        (file_of(b"\xff\xfe"), "no valid JSON"),
        (file_of(b"[" * 100_000), "no valid JSON"),
        (file_of(b"[]"), "expected a JSON object, got list"),
        (file_of(b'{"a": 1, "b": 2, "a": 3}'), "'a' stands there twice"),
        (file_of({"__metadata__": {"a": 1}}), "__metadata__ is not a mapping of texts"),
        (file_of({"a": 3}), "tensor 'a': expected dtype, shape"),
        (file_of({"a": tensor(shape=(-2, -1))}, bytes(8)), r"tensor 'a': shape \[-2, -1\]"),
        (file_of({"a": tensor(shape=(2.0,))}, bytes(8)), r"tensor 'a': shape \[2.0\]"),
        (file_of({"a": tensor(shape=(True, 2))}, bytes(8)), "tensor 'a': shape"),
        (file_of({"a": tensor(offsets=(0, 4, 8))}, bytes(8)), "tensor 'a': shape"),
        (file_of({"a": tensor(shape=(3,))}, bytes(8)), r"'a': F32 of shape \[3\] does not fit the bytes"),
        (file_of({"a": tensor(offsets=(8, 0))}, bytes(8)), "'a': F32 .* does not fit"),
        (file_of({"a": tensor(shape=(0, 2**63), offsets=(0, 0))}), "'a': F32 .* does not fit"),
        (file_of({"a": tensor(offsets=(4, 12))}, bytes(12)), "'a' begins at byte 4, expected 0"),
        (file_of({"a": tensor(), "b": tensor()}, bytes(8)), "'b' begins at byte 0, expected 8"),
        (
            file_of({"a": tensor(), "b": tensor(offsets=(9, 17))}, bytes(17)),
            "'b' begins at byte 9, expected 8",
        ),
    ],
)
def test_corrupt_files(tmp_path, content, message):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(R2MError, match=rf"w\.safetensors: corrupt or not a safetensors file \(.*{message}"):
        open_weights(path)


def test_types_that_torch_or_we_do_not_know(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(file_of({"layer.a": tensor("F8_E4M3", (8,))}, bytes(8)))
    with pytest.raises(R2MError, match=r"w\.safetensors: tensor 'layer\.a' has the dtype F8_E4M3; expected"):
        open_weights(path)


def test_no_tensors(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(file_of({}))
    with pytest.raises(R2MError, match=r"w\.safetensors: holds no tensors"):
        open_weights(path)


WHOLE = save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([True, False])}, metadata={"k": "v"})
HEADER_END = 8 + int.from_bytes(WHOLE[:8], "little")


def read_or_refused(path, content):
    """Write `content` to `path` and return its tensors, or None if an R2MError names it."""
    path.write_bytes(content)
    try:
        with open_weights(path) as weights:
            return {name: weights.tensor(name) for name in weights.entries}
    except R2MError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    return None


def test_every_truncation(tmp_path):
    for size in range(len(WHOLE)):
        (tmp_path / "w.safetensors").write_bytes(WHOLE[:size])
        with pytest.raises(R2MError, match=r"w\.safetensors: corrupt"):
            open_weights(tmp_path / "w.safetensors")


@settings(deadline=None, max_examples=300)
@given(position=st.integers(0, HEADER_END - 1), value=st.integers(0, 255))
def test_flipped_header_bytes(tmp_path_factory, position, value):
    damaged = WHOLE[:position] + bytes([value]) + WHOLE[position + 1 :]
    state = read_or_refused(tmp_path_factory.getbasetemp() / "flipped.safetensors", damaged)
    if state is not None:
        assert sum(tensor.nbytes for tensor in state.values()) == len(WHOLE) - HEADER_END


@settings(deadline=None, max_examples=100)
@given(content=st.binary(max_size=200), fitting=st.booleans())
def test_arbitrary_headers(tmp_path_factory, content, fitting):
    content = file_of(content) if fitting else content
    assert read_or_refused(tmp_path_factory.getbasetemp() / "arbitrary.safetensors", content) is None


# Pickles


def test_legacy_format(tmp_path, state):
    torch.save(state, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    with open_weights(tmp_path / "w.pt") as weights:
        assert_same(weights, state)


def test_strides_and_shared_storage(tmp_path):
    whole = torch.arange(24.0).reshape(4, 6)
    state = {
        "whole": whole,
        "row": whole[1],
        "column": whole[:, 2],
        "turned": whole.T,
        "expanded": torch.tensor([1.5, 2.5])[:, None].expand(2, 3),
        "bf16": whole.bfloat16().T,
        "mask": (whole > 9).T,
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    torch.save(state, tmp_path / "w.pt")
    with open_weights(tmp_path / "w.pt") as weights:
        assert_same(weights, state)
        assert torch.equal(weights.read("turned", 5, 14), whole.T.reshape(-1)[5:14])
        weights.tensor("row").zero_()
        assert torch.equal(weights.tensor("whole"), whole)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (torch.ones(2, dtype=torch.complex64), "complex64"),
        (torch.ones(2).to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (torch.eye(3).to_sparse(), "sparse_coo"),
        (torch.ones(2, device="meta"), "meta"),
    ],
)
def test_refused_tensors(tmp_path, value, kind):
    torch.save({"a": torch.ones(2), "layer.b": value}, tmp_path / "w.pt")
    with pytest.raises(R2MError, match=rf"w\.pt: tensor 'layer\.b' is .*{kind}.*; expected"):
        open_weights(tmp_path / "w.pt")


class Touching:
    """Unpickled, it would make the file `path`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_never_run(tmp_path, zipped):
    trace = tmp_path / "trace"
    content = {"state_dict": {"a": torch.ones(2)}, "hook": Touching(str(trace))}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(R2MError, match=r"w\.pt: holds pickled Python objects .*nothing in the file was run"):
        open_weights(tmp_path / "w.pt")
    assert not trace.exists()
    torch.load(tmp_path / "w.pt", weights_only=False)["hook"].close()
    assert trace.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_pickles(tmp_path, zipped):
    path = tmp_path / "w.pt"
    torch.save({"a": torch.ones(2, 3)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for position in torch.randint(len(whole), (100,), generator=generator).tolist():
        for damaged in (whole[:position], whole[:position] + b"\x9c" + whole[position + 1 :]):
            refused += read_or_refused(path, damaged) is None
    assert refused > 100


# Names


def test_notes_tell_what_was_resolved(tmp_path, caplog):
    caplog.set_level("INFO")
    state = {"module.backbone.b": torch.ones(2), "module.backbone.a": torch.zeros(2)}
    torch.save({"state_dict": {"model": state}}, tmp_path / "w.pt")
    with open_weights(tmp_path / "w.pt") as weights:
        assert_same(weights, state)
        assert weights.notes == [
            "weights taken from its key 'state_dict'",
            "weights taken from its key 'model'",
        ]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'w.pt'}: {note}" for note in weights.notes
    ]


@pytest.mark.parametrize(
    "name", ["__metadata__", "", "a\0b", pytest.param("\ud800", id="lone surrogate"), 3, ("a", "b")]
)
def test_names_that_no_file_can_hold(tmp_path, name):
    torch.save({"a": torch.ones(2), name: torch.ones(2)}, tmp_path / "w.pt")
    with pytest.raises(R2MError, match=rf"w\.pt: .*{re.escape(repr(name))}"):
        open_weights(tmp_path / "w.pt")
    if isinstance(name, str) and name != "__metadata__":
        (tmp_path / "w.safetensors").write_bytes(file_of({name: tensor()}, bytes(8)))
        with pytest.raises(R2MError, match=r"w\.safetensors: tensor .* cannot hold this name"):
            open_weights(tmp_path / "w.safetensors")
    with pytest.raises(R2MError):
        checkpoint.save(tmp_path / "out.safetensors", {name: torch.ones(2)}, {})
    assert not (tmp_path / "out.safetensors").exists()


def test_wrong_paths(tmp_path):
    for name in ("w.safetensors", "w.safetensors.index.json", "w.pt", "w.h5", "folder"):
        with pytest.raises(R2MError, match=rf"{name}: no such file"):
            open_weights(tmp_path / name)


def test_names_stay_as_they_are(tmp_path):
    save_file({"model.a/test": torch.ones(2), "model.a/val": torch.zeros(1)}, tmp_path / "of_any_name")
    with open_weights(tmp_path / "of_any_name") as weights:
        assert list(weights.entries) == ["model.a/test", "model.a/val"]
        assert weights.tensor("model.a/test").tolist() == [1, 1]
