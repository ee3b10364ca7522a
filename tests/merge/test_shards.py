"""Merged weights in shards with an index, as Hugging Face's libraries write and read them."""

import json
import os
import re
import socket

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from r2m import files as r2m_files
from r2m.cli import r2m as group
from r2m.errors import R2MError
from r2m.merge import recipe
from r2m.merge.engine import Settings, merge_files
from r2m.models.shards import present, split
from r2m.models.weights import open_weights

# Six tensors of 192 bytes, one of 1024, and an integer.
SHAPES = {**{f"blocks.{i}.mlp.weight": (6, 8) for i in range(6)}, "embed": (16, 16)}


@pytest.fixture
def folder(tmp_path):
    generator = torch.Generator().manual_seed(0)
    base = {key: torch.randn(shape, generator=generator) for key, shape in SHAPES.items()}
    for name in ("base", "a", "b"):
        moved = {key: one + 0.01 * torch.randn(one.shape, generator=generator) for key, one in base.items()}
        tensors = base if name == "base" else moved
        save_file({**tensors, "steps": torch.tensor([7])}, tmp_path / f"{name}.safetensors")
    return tmp_path


def asked(folder, size=None, **fields):
    content = {
        "method": "ties",
        "base": folder / "base.safetensors",
        "specialists": {name: folder / f"{name}.safetensors" for name in ("a", "b")},
        "out": folder / "m.safetensors",
        "shard_size": size,
    }
    return recipe.build({**content, **fields}, "test")


def made(folder):
    return sorted(path.name for path in folder.iterdir() if path.name[:1] not in "ab")


def names(count):
    shards = [f"m-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    return sorted([*shards, "m.safetensors.index.json", "m.json"])


def read_as_transformers(index):
    """Load what an index names, as transformers does: every file once, each of its tensors from there."""
    content = json.loads(index.read_text())
    tensors = {}
    for name in sorted(set(content["weight_map"].values())):
        with safe_open(index.with_name(name), "pt") as file:
            assert file.metadata()["format"] == "pt"
            held = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        assert set(held) == {key for key, where in content["weight_map"].items() if where == name}
        tensors |= held
    assert content["metadata"]["total_size"] == sum(one.nbytes for one in tensors.values())
    return tensors


def test_shards_hold_what_one_file_would(folder):
    single = merge_files(asked(folder), Settings())
    expected = load_file(folder / "m.safetensors")
    (folder / "m.safetensors").unlink()
    (folder / "m.json").unlink()
    report = merge_files(asked(folder, 400), Settings(threads=2))
    assert made(folder) == names(5)
    index = folder / "m.safetensors.index.json"
    tensors = read_as_transformers(index)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(one, expected[key]) for key, one in tensors.items())
    assert report["out"] == str(index)
    assert report["shards"] == names(5)[:5]
    assert {**report, "out": None, "shards": None} == {**single, "out": None, "shards": None}
    sizes = [sum(one.nbytes for one in load_file(folder / name).values()) for name in report["shards"]]
    assert sizes == [384, 384, 384, 1024, 8]


def test_r2m_reads_its_shards(folder):
    merge_files(asked(folder, "0.4KB"), Settings())
    index = folder / "m.safetensors.index.json"
    with open_weights(index) as weights:
        assert json.loads(weights.metadata["inputs"]).keys() == {"a", "b"}
        expected = {key: weights.tensor(key) for key in weights.entries}
    result = CliRunner().invoke(group, ["inspect", str(index)], catch_exceptions=False)
    assert "8 tensors, 545 entries" in result.output
    again = asked(folder, base=index, specialists={"a": index}, out=folder / "n.safetensors")
    merge_files(again, Settings(allow_other_base=True))
    merged = load_file(folder / "n.safetensors")
    assert all(torch.equal(one, expected[key]) for key, one in merged.items())


def test_where_one_file_is_enough_there_is_no_index(folder):
    report = merge_files(asked(folder, "1GB"), Settings())
    assert made(folder) == ["m.json", "m.safetensors"]
    assert report["out"] == str(folder / "m.safetensors")
    assert "shards" not in report


def test_the_same_bytes_each_time(folder):
    content = []
    for threads in (1, 2):
        merge_files(asked(folder, 400), Settings(threads=threads, force=True))
        content.append({name: (folder / name).read_bytes() for name in made(folder)})
    assert content[0] == content[1]


def test_force_replaces_sets_of_another_number(folder):
    sets = {400: names(5), 600: names(4), None: ["m.json", "m.safetensors"], 1100: names(3)}
    for size, expected in (*sets.items(), *sets.items()):
        if made(folder):
            with pytest.raises(R2MError, match=r"exists(, of the same name in shards)?; --force replaces it"):
                merge_files(asked(folder, size, report=folder / "mine.json"), Settings())
        merge_files(asked(folder, size), Settings(force=True))
        assert made(folder) == expected, size
        if size:
            assert read_as_transformers(folder / "m.safetensors.index.json").keys() == {*SHAPES, "steps"}


@pytest.mark.parametrize("size", [400, 1100])
@pytest.mark.parametrize("failing", range(4))
def test_a_set_that_cannot_be_published_leaves_the_old_one(folder, monkeypatch, size, failing):
    merge_files(asked(folder, 1100), Settings())
    before = {name: (folder / name).read_bytes() for name in made(folder)}
    replace, count = os.replace, []

    def refuse(source, target):
        if ".tmp" in str(source) and not str(source).endswith(".old"):
            count.append(target)
            if len(count) == failing + 1:
                raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(r2m_files.os, "replace", refuse)
    with pytest.raises(R2MError, match=r"cannot be written \(Permission denied\)"):
        merge_files(asked(folder, size, method="task_arithmetic"), Settings(force=True))
    monkeypatch.undo()
    assert before == {name: (folder / name).read_bytes() for name in made(folder)}


def test_an_interruption_leaves_the_old_set(folder, monkeypatch):
    merge_files(asked(folder, 400), Settings())
    before = {name: (folder / name).read_bytes() for name in made(folder)}

    def interrupted(files, replaced):
        assert not (folder / "m.safetensors.index.json").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(r2m_files, "publish_together", interrupted)
    for size in (None, 600):
        with pytest.raises(KeyboardInterrupt):
            merge_files(asked(folder, size, method="task_arithmetic"), Settings(force=True))
        assert before == {name: (folder / name).read_bytes() for name in made(folder)}


def test_what_a_killed_process_left_is_removed(folder):
    left = f"{socket.gethostname()}-{2**22 + 1}.tmp"  # no process has such a number
    for name in (f".m-00001-of-00009.{left}.safetensors", f".m.safetensors.index.{left}.json"):
        (folder / name).write_text("half")
    merge_files(asked(folder, 400), Settings())
    assert made(folder) == names(5)


def test_inputs_are_not_replaced(folder):
    merge_files(asked(folder, 400), Settings())
    with pytest.raises(R2MError, match=r"m\S*\.(safetensors|json): is one of the inputs"):
        merge_files(asked(folder, 600, base=folder / "m.safetensors.index.json"), Settings(force=True))
    with pytest.raises(R2MError, match=r"index\.json: stands for two outputs"):
        merge_files(asked(folder, 600, report=folder / "m.safetensors.index.json"), Settings(force=True))
    assert made(folder) == names(5)


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("500MB", 5 * 10**8), ("4GiB", 2**32), ("1.5 kb", 1500), (7, 7), ("12", 12)],
)
def test_sizes(text, size):
    assert recipe.bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "GB", "2XB", "-1", "0", "0.1", True, "2GBB", [2]])
def test_what_is_no_size(folder, text):
    with pytest.raises(R2MError, match="test: shard_size: expected a size"):
        asked(folder, text)


@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=30), most=st.integers(1, 60))
def test_no_shard_is_too_large_and_none_could_take_the_next(sizes, most):
    named = {f"t{index}": size for index, size in enumerate(sizes)}
    shards = split(named, most)
    assert [name for shard in shards for name in shard] == list(named)
    totals = [sum(named[name] for name in shard) for shard in shards]
    for total, shard in zip(totals, shards, strict=True):
        assert total <= most or len(shard) == 1 or sum(named[name] for name in shard[1:]) == 0
    for total, following in zip(totals, shards[1:], strict=False):
        assert total + named[following[0]] > most
    assert split(named, None) == [list(named)]


def test_only_files_of_the_name_belong_to_a_set(tmp_path):
    other = [
        "m2.safetensors",
        "m-1-of-2.safetensors",
        "xm-00001-of-00002.safetensors",
        "m-00001-of-00002.bin",
    ]
    own = ["m.safetensors.index.json", "m-00001-of-00002.safetensors", "m.safetensors"]
    for name in (*other, *own):
        (tmp_path / name).touch()
    assert [path.name for path in present(tmp_path / "m.safetensors")] == own
    assert present(tmp_path / "none" / "m.safetensors") == []


def test_shards_from_the_command_line(folder):
    call = ["merge", "--method", "ties", "--base", folder / "base.safetensors", "--shard-size", "600B"]
    call += [f"--specialist={name}={folder / f'{name}.safetensors'}" for name in ("a", "b")]
    result = CliRunner().invoke(group, [*map(str, call), "--out", str(folder / "m.safetensors")])
    assert result.exit_code == 0, result.output
    assert re.search(r"m\.safetensors\.index\.json: .* of 2; report in \S*m\.json", result.output)
    assert made(folder) == names(4)
