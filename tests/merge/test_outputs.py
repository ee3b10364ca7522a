"""What a merge leaves on the disk: all of its outputs, or nothing."""

import os
import re
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from r2m import files as r2m_files
from r2m.errors import R2MError
from r2m.merge import engine, recipe
from r2m.merge.engine import Settings, merge_files

KEYS = [f"blocks.{i}.mlp.weight" for i in range(3)]


@pytest.fixture
def paths(tmp_path):
    generator = torch.Generator().manual_seed(0)
    base = {key: torch.randn(6, 8, generator=generator) for key in KEYS}
    found = {}
    for name in ("base", "a", "b", "c"):
        moves = {} if name == "base" else {key: 0.01 * torch.randn(6, 8, generator=generator) for key in KEYS}
        found[name] = tmp_path / f"{name}.safetensors"
        save_file({key: one + moves.get(key, 0.0) for key, one in base.items()}, found[name])
    return found


def asked(paths, method="r2m", **fields):
    specialists = {name: path for name, path in paths.items() if name != "base"}
    out = paths["base"].parent / "m.safetensors"
    content = {"method": method, "base": paths["base"], "specialists": specialists, "out": out}
    return recipe.build({**content, **fields}, "test")


def left(paths):
    return {path.name for path in paths["base"].parent.iterdir()} - {path.name for path in paths.values()}


def meanwhile(monkeypatch, action):
    """Do something in the middle of a merge."""
    original = engine.merge_weights

    def changed(*given, **options):
        outcome = original(*given, **options)
        action()
        return outcome

    monkeypatch.setattr(engine, "merge_weights", changed)


@pytest.mark.parametrize("name", ["a", "base"])
def test_a_file_that_is_rewritten_meanwhile(tmp_path, paths, monkeypatch, name):
    def rewrite():
        content = paths[name].read_bytes()
        with open(paths[name], "r+b") as file:
            file.write(content)
        os.utime(paths[name])

    os.utime(paths[name], ns=(1, 1))
    meanwhile(monkeypatch, rewrite)
    for method in ("r2m", "weight_averaging"):
        with pytest.raises(R2MError, match=rf"{name}\.safetensors: was written to while it was merged"):
            merge_files(asked(paths, method), Settings())
        os.utime(paths[name], ns=(1, 1))
    cached = asked(paths, gram_cache=tmp_path / "grams.safetensors")
    with pytest.raises(R2MError, match="was written to"):
        merge_files(cached, Settings())
    assert left(paths) == set()


def test_a_file_that_grows_meanwhile(paths, monkeypatch):
    def grow():
        before = paths["a"].stat().st_mtime_ns
        with open(paths["a"], "ab") as file:
            file.write(b"more")
        os.utime(paths["a"], ns=(before, before))

    meanwhile(monkeypatch, grow)
    with pytest.raises(R2MError, match=r"a\.safetensors: was written to"):
        merge_files(asked(paths), Settings())


def test_files_that_are_replaced_or_removed_whole_do_no_harm(paths, monkeypatch):
    expected = asked(paths, "ties")
    merge_files(expected, Settings())
    before = load_file(expected.out)

    def swap():
        save_file({key: torch.zeros(6, 8) for key in KEYS}, paths["a"].with_suffix(".new"))
        os.replace(paths["a"].with_suffix(".new"), paths["a"])
        paths["b"].unlink()

    meanwhile(monkeypatch, swap)
    merge_files(expected, Settings(force=True))
    assert all(torch.equal(one, before[key]) for key, one in load_file(expected.out).items())


@pytest.mark.parametrize("name", ["m.safetensors", "m.json"])
def test_outputs_that_appear_meanwhile_are_not_replaced(tmp_path, paths, monkeypatch, name):
    meanwhile(monkeypatch, lambda: (tmp_path / name).write_text("other's"))
    with pytest.raises(R2MError, match=rf"{re.escape(name)}: exists; --force replaces it"):
        merge_files(asked(paths), Settings())
    assert (tmp_path / name).read_text() == "other's"
    assert left(paths) == {name}
    merge_files(asked(paths), Settings(force=True))
    assert left(paths) == {"m.safetensors", "m.json"}
    assert (tmp_path / name).read_bytes() != b"other's"


def test_of_several_merges_to_one_output_one_succeeds(paths, monkeypatch):
    barrier = threading.Barrier(3, timeout=30)
    original = engine.publish_together

    def together(files, replaced):
        barrier.wait()
        original(files, replaced)

    monkeypatch.setattr(engine, "publish_together", together)
    # As processes of their own, which have names of their own for temporary files.
    monkeypatch.setattr(r2m_files.os, "getpid", threading.get_ident)
    monkeypatch.setattr(r2m_files, "_runs", lambda _: True)
    errors = []

    def run(method):
        try:
            merge_files(asked(paths, method), Settings())
        except R2MError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=run, args=(one,)) for one in ("ties", "weight_averaging", "consensus")]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(errors) == 2
    assert all("exists; --force replaces it" in one for one in errors)
    assert left(paths) == {"m.safetensors", "m.json"}


def test_a_report_that_cannot_be_written(tmp_path, paths, monkeypatch):
    long = tmp_path / ("r" * 245 + ".json")
    with pytest.raises(R2MError, match=r"rrr\.json: cannot be written \(File name too long\)"):
        merge_files(asked(paths, report=long), Settings())
    assert left(paths) == set()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine.Path, "write_text", full)
    with pytest.raises(R2MError, match=r"m\.json: cannot be written \(No space left on device\)"):
        merge_files(asked(paths, gram_cache=tmp_path / "grams.safetensors"), Settings())
    assert left(paths) == set()


def test_a_report_that_cannot_be_renamed(paths, monkeypatch):
    asked_for = asked(paths)
    merge_files(asked_for, Settings())
    before = asked_for.out.read_bytes(), asked_for.report_path.read_bytes()
    replace = os.replace

    def refuse(source, target):
        if target == asked_for.out and "old" not in str(source):
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(r2m_files.os, "replace", refuse)
    with pytest.raises(R2MError, match=r"m\.safetensors: cannot be written \(Permission denied\)"):
        merge_files(asked(paths, "ties"), Settings(force=True))
    assert before == (asked_for.out.read_bytes(), asked_for.report_path.read_bytes())
    assert left(paths) == {"m.safetensors", "m.json"}
