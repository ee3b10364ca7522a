import errno
import json
import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from r2m.errors import R2MError
from r2m.models import writer as writer_module
from r2m.models.entries import DTYPES, Entry
from r2m.models.weights import open_weights
from r2m.models.writer import WeightsWriter
from r2m.version import __version__


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(0)
    tensors = {str(dtype): torch.randint(-9, 99, (5, 7), generator=generator).to(dtype) for dtype in DTYPES}
    return tensors | {"empty": torch.zeros(0, 4), "scalar": torch.tensor(3.5)}


def specs_of(state):
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()}


def write_all(path, state, metadata):
    with WeightsWriter(path, specs_of(state), metadata) as writer:
        for name, tensor in state.items():
            writer.write(name, 0, tensor)
        writer.finish()


@pytest.mark.parametrize("seed", range(3))
def test_pieces_in_any_order_by_many_threads(tmp_path, state, seed):
    path = tmp_path / "new" / "w.safetensors"
    pieces = [
        (name, start, tensor.reshape(-1)[start : start + 4])
        for name, tensor in state.items()
        for start in range(0, tensor.numel(), 4)
    ]
    random.Random(seed).shuffle(pieces)
    with WeightsWriter(path, specs_of(state), {"a": "b"}) as writer, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda piece: writer.write(*piece), pieces))
        writer.finish()
    loaded = load_file(path)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    assert os.listdir(path.parent) == [path.name]


def test_a_reader_s_entries_are_specs(tmp_path, state):
    write_all(tmp_path / "a.safetensors", state, {})
    with (
        open_weights(tmp_path / "a.safetensors") as weights,
        WeightsWriter(tmp_path / "b.safetensors", weights.entries, {}) as writer,
    ):
        for name, entry in weights.entries.items():
            assert writer.dtype(name) == entry.dtype
            writer.write(name, 0, weights.read(name))
        writer.finish()
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_metadata_known_at_the_end(tmp_path):
    path = tmp_path / "w.safetensors"
    specs = {"a": Entry(torch.float32, (2,))}
    with WeightsWriter(path, specs, {"digest": "0" * 64, "list": [1, 22]}) as writer:
        writer.write("a", 0, torch.tensor([1.0, 2.0]))
        writer.finish({"digest": "f" * 64, "list": [1]})
    with safe_open(path, "pt") as file:
        assert file.metadata() == {
            "digest": "f" * 64,
            "format": "pt",
            "list": "[1]",
            "r2m_version": __version__,
        }
        assert file.get_tensor("a").tolist() == [1, 2]
    length = int.from_bytes(path.read_bytes()[:8], "little")
    assert length % 8 == 0
    assert path.stat().st_size == 8 + length + 8


def test_more_metadata_than_reserved(tmp_path):
    with (
        pytest.raises(ValueError, match=r"a header of \d+ bytes, \d+ were reserved"),
        WeightsWriter(tmp_path / "w.safetensors", {}, {"digest": ""}) as writer,
    ):
        writer.finish({"digest": "f" * 64})
    assert os.listdir(tmp_path) == []


def test_unfinished_leaves_what_was_there(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"old")
    with WeightsWriter(path, {"a": (torch.float32, (2,))}, {}) as writer:
        writer.write("a", 0, torch.ones(2))
        assert len(os.listdir(tmp_path)) == 2
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["w.safetensors"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["body", "finish"])
def test_interruption_leaves_nothing(tmp_path, monkeypatch, error, place):
    def fail(*_):
        raise error

    def run():
        with WeightsWriter(tmp_path / "w.safetensors", {"a": (torch.float32, (2,))}, {}) as writer:
            writer.write("a", 0, torch.ones(2))
            if place == "body":
                raise error
            monkeypatch.setattr(os, "fsync", fail)
            writer.finish()

    with pytest.raises(error):
        run()
    assert os.listdir(tmp_path) == []


def test_elements_that_were_not_written(tmp_path):
    with WeightsWriter(tmp_path / "w.safetensors", {"b": (torch.float32, (3,))}, {}) as writer:
        writer.write("b", 1, torch.ones(2))
        with pytest.raises(ValueError, match=r"w\.safetensors: not all of 'b' was written"):
            writer.finish()
    assert os.listdir(tmp_path) == []


def test_wrong_pieces(tmp_path):
    with WeightsWriter(tmp_path / "w.safetensors", {"a": (torch.float32, (3,))}, {}) as writer:
        for start, piece in (
            (0, torch.ones(4)),
            (2, torch.ones(2)),
            (-1, torch.ones(2)),
            (0, torch.ones(3).half()),
        ):
            with pytest.raises(ValueError, match="a tensor of 3"):
                writer.write("a", start, piece)
        with pytest.raises(KeyError):
            writer.write("b", 0, torch.ones(3))


def test_a_finished_file_does_not_change(tmp_path):
    with WeightsWriter(tmp_path / "w.safetensors", {"a": (torch.float32, (1,))}, {}) as writer:
        writer.write("a", 0, torch.ones(1))
        writer.finish()
        with pytest.raises(ValueError, match="closed"):
            writer.write("a", 0, torch.zeros(1))
    assert load_file(tmp_path / "w.safetensors")["a"].tolist() == [1]


# Disks


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_found_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", full)
    writer = WeightsWriter(tmp_path / "w.safetensors", {"a": (torch.float32, (300, 10**6))}, {})
    with pytest.raises(R2MError, match=r"w\.safetensors: no space left: needs 1\.2 GB, [\d.]+ [GM]B free"):
        writer.__enter__()
    assert os.listdir(tmp_path) == []


def test_space_is_reserved(tmp_path):
    with WeightsWriter(tmp_path / "w.safetensors", {"a": (torch.uint8, (10**6,))}, {}):
        (temporary,) = tmp_path.iterdir()
        assert temporary.stat().st_size > 10**6
        assert temporary.stat().st_blocks * 512 >= 10**6


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_filesystems_that_cannot_reserve(tmp_path, monkeypatch, state, code):
    def refuse(*_):
        raise OSError(code, "")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    write_all(tmp_path / "w.safetensors", state, {})
    assert load_file(tmp_path / "w.safetensors").keys() == state.keys()


def test_systems_that_cannot_reserve(tmp_path, monkeypatch, state):
    monkeypatch.delattr(os, "posix_fallocate")
    write_all(tmp_path / "w.safetensors", state, {})
    assert load_file(tmp_path / "w.safetensors").keys() == state.keys()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "no space left: needs"),
        (errno.EDQUOT, "no space left"),
        (errno.EIO, "cannot be written"),
    ],
)
def test_errors_of_the_disk(tmp_path, monkeypatch, state, code, message):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(R2MError, match=rf"w\.safetensors: {message}"):
        write_all(tmp_path / "w.safetensors", state, {})
    assert os.listdir(tmp_path) == []


def test_an_error_of_early_syncing_is_not_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "FLUSH_BYTES", 4)
    calls = []

    def fail_once(_):
        calls.append(1)
        if len(calls) == 1:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail_once)
    with pytest.raises(R2MError, match=r"cannot be written \(Input/output error\)"):
        write_all(tmp_path / "w.safetensors", {"a": torch.ones(2)}, {})
    assert os.listdir(tmp_path) == []


def test_short_writes_are_continued(tmp_path, monkeypatch, state):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:3], offset))
    write_all(tmp_path / "w.safetensors", state, {})
    loaded = load_file(tmp_path / "w.safetensors")
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_the_file_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *names: (events.append("rename"), replace(*names)))
    write_all(tmp_path / "w.safetensors", {"a": torch.ones(2)}, {})
    assert events == ["sync", "rename", "sync"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(R2MError, match=r"w\.safetensors: cannot be written"):
        write_all(tmp_path / "file" / "w.safetensors", {}, {})


def test_layout(tmp_path):
    """Widest elements first, then by name; the header without padding but to a multiple of 8."""
    state = {
        "b": torch.ones(3).half(),
        "a": torch.ones(1).bool(),
        "d": torch.ones(2),
        "c": torch.ones(2).double(),
    }
    write_all(tmp_path / "w.safetensors", state, {"z": "1", "k": {"b": 1, "a": None}})
    content = (tmp_path / "w.safetensors").read_bytes()
    metadata = f'{{"format":"pt","k":"{{\\"a\\": null, \\"b\\": 1}}","r2m_version":"{__version__}","z":"1"}}'
    expected = f'{{"__metadata__":{metadata}' + "".join(
        f',"{name}":{{"dtype":"{dtype}","shape":[{count}],"data_offsets":[{begin},{end}]}}'
        for name, dtype, count, begin, end in (
            ("c", "F64", 2, 0, 16),
            ("d", "F32", 2, 16, 24),
            ("b", "F16", 3, 24, 30),
            ("a", "BOOL", 1, 30, 31),
        )
    )
    header = (expected + "}").encode()
    header += b" " * (-len(header) % 8)
    data = b"".join(state[name].view(torch.uint8).numpy().tobytes() for name in "cdba")
    assert content == len(header).to_bytes(8, "little") + header + data
    assert json.loads(header)["__metadata__"]["z"] == "1"
