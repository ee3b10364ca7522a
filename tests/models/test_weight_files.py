"""Which file holds weights, and what is said of files that hold none."""

import gzip
import json
import pickle
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from r2m.errors import R2MError
from r2m.models.weight_files import Format, check, identify, locate
from r2m.models.weights import open_weights

STATE = {"a": torch.arange(3.0), "b": torch.ones(2)}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"


def names_in(path):
    with open_weights(path) as weights:
        return list(weights.entries)


def write(path, how):
    if how == Format.SAFETENSORS:
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=how == Format.ZIP)


@pytest.mark.parametrize(
    "name",
    ["w.safetensors", "w.pt", "epoch=3.ckpt", "best.pth.tar", "W.PT", "w.th", "w.pkl", "w.bin", "weights"],
)
@pytest.mark.parametrize("how", [Format.SAFETENSORS, Format.ZIP, Format.LEGACY])
def test_files_are_told_by_their_content(tmp_path, name, how):
    write(tmp_path / name, how)
    assert identify(tmp_path / name) == how
    assert names_in(tmp_path / name) == ["a", "b"]


def archive(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("notes/readme.txt", "nothing")


def tarball(path):
    (path.parent / "member").write_bytes(b"x")
    with tarfile.open(path, "w") as file:
        file.add(path.parent / "member", "tensors")


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.safetensors", b"", "corrupt: an empty file"),
        ("w.pt", b"", "corrupt: an empty file"),
        ("w.safetensors", LFS, "a pointer of Git LFS, .* `git lfs pull`"),
        ("w.pth", LFS, "a pointer of Git LFS"),
        ("w.pth", b"\n<!DOCTYPE html><html></html>", "a web page"),
        ("w.bin", b'<?xml version="1.0"?><Error/>', "a web page"),
        ("w.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
        ("w.gguf", b"GGUF" + bytes(99), "a GGUF file"),
        ("w.npy", b"\x93NUMPY" + bytes(99), "an array of NumPy"),
        ("w.onnx", b"\x08\x08\x12\x07pytorch", "an ONNX model"),
        ("w.pt.gz", gzip.compress(b"weights", mtime=0), "compressed by gzip; unpack it"),
        (
            "w.pkl",
            pickle.dumps({"a": np.ones(2)}),
            "holds pickled Python objects that torch.save has not written",
        ),
        ("config.json", b'{"a": 1}', "a text in JSON"),
        ("w.txt", b"no weights at all", "corrupt, or no file of weights; expected weights as .safetensors"),
        ("w.pt", b"PK\x03\x04 cut short", "corrupt: a damaged archive"),
        ("w.zip", archive, "a zip archive, but not one of torch.save: it holds notes/readme.txt"),
        ("w.tar", tarball, "a tar archive; unpack it, or, if torch.save wrote it before"),
        ("w.npz", lambda path: np.savez(path, a=np.ones(2)), "an archive of NumPy arrays"),
        (
            "w.pt",
            lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path)),
            r"a TorchScript archive, .*torch\.jit\.load\(FILE\)\.state_dict",
        ),
        (
            "w.pt",
            lambda path: torch.save({"model": STATE, "model_class": torch.nn.Linear}, path),
            r"pickled Python objects \(torch\.nn\.modules\.linear\.Linear first\); .*torch\.save\(model",
        ),
    ],
)
def test_what_holds_no_weights_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    with pytest.raises(R2MError, match=message) as caught:
        open_weights(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin", "config.json"], "model.safetensors"),
        (["pytorch_model.bin", "optimizer.pt", "training_args.bin", "rng_state.pth"], "pytorch_model.bin"),
        (["open_clip_model.safetensors", "open_clip_pytorch_model.bin"], "open_clip_model.safetensors"),
        (["model.fp16.safetensors", "config.json"], "model.fp16.safetensors"),
        (["detector.safetensors", "detector.pth"], "detector.safetensors"),
        (["last.ckpt", "log.txt", "scheduler.pt"], "last.ckpt"),
        (["model.safetensors", "last.ckpt"], "model.safetensors"),
        (["weights", ".hidden.pt"], "weights"),
    ],
)
def test_folders_with_a_clear_choice(tmp_path, files, chosen):
    for name in files:
        if name.endswith((".json", ".txt")):
            (tmp_path / name).write_text("{}")
        else:
            write(tmp_path / name, Format.SAFETENSORS if name.endswith(".safetensors") else Format.ZIP)
    path, notes = locate(tmp_path)
    assert path == tmp_path / chosen
    assert f"weights taken from the folder's {chosen}" in notes[0]
    assert names_in(tmp_path) == ["a", "b"]
    check(tmp_path)


def test_pickles_left_for_safetensors_are_noted(tmp_path):
    write(tmp_path / "model.safetensors", Format.SAFETENSORS)
    write(tmp_path / "pytorch_model.bin", Format.ZIP)
    assert locate(tmp_path)[1] == [
        "weights taken from the folder's model.safetensors, not from pytorch_model.bin"
    ]


@pytest.mark.parametrize(
    "files",
    [
        ["best.ckpt", "last.ckpt"],
        ["model.safetensors", "open_clip_model.safetensors"],
        ["a.safetensors", "b.safetensors"],
        ["a.safetensors", "b.pth"],
    ],
)
def test_folders_with_several_models(tmp_path, files):
    for name in files:
        write(tmp_path / name, Format.SAFETENSORS if name.endswith(".safetensors") else Format.ZIP)
    with pytest.raises(R2MError, match=f"found {files[0]}, {files[1]}; name the file"):
        locate(tmp_path)


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_shards_of_either_format(tmp_path, suffix):
    stem = "pytorch_model" if suffix == "bin" else "model"
    shards = {"a": f"{stem}-00001-of-00002.{suffix}", "b": f"{stem}-00002-of-00002.{suffix}"}
    for name, shard in shards.items():
        (torch.save if suffix == "bin" else save_file)({name: STATE[name]}, tmp_path / shard)
    index = tmp_path / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    for path in (tmp_path, index):
        with open_weights(path) as weights:
            assert all(torch.equal(weights.tensor(name), tensor) for name, tensor in STATE.items())
            assert {one.name for one in weights.files} == {index.name, *shards.values()}


def test_an_index_among_its_shards(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": index.name}}))
    with pytest.raises(R2MError, match="is an index itself"):
        open_weights(index)


def test_it_needs_no_torch():
    code = "import sys, r2m.models.weight_files; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
