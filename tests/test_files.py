import errno
import os
import socket
import subprocess
import sys
import time

import pytest

from r2m import files
from r2m.files import atomic_path, publish_together, temporary_path, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_complete(tmp_path):
    target = tmp_path / "new" / "x.csv"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".csv"
        assert temporary.name.startswith(".")
        temporary.write_text("a")
        assert not target.exists()
    assert target.read_text() == "a"
    assert names(target.parent) == ["x.csv"]


def fail(target, folder):
    with atomic_path(target) as temporary:
        if folder:
            temporary.mkdir()
        (temporary / "a" if folder else temporary).write_text("new")
        raise ZeroDivisionError


@pytest.mark.parametrize("folder", [False, True])
def test_an_error_leaves_what_was_there(tmp_path, folder):
    target = tmp_path / "x"
    write_text(target, "old")
    with pytest.raises(ZeroDivisionError):
        fail(target, folder)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_a_folder_is_replaced_whole(tmp_path):
    for name in ("a", "b"):
        with atomic_path(tmp_path / "x") as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert names(tmp_path / "x") == ["b"]
    assert names(tmp_path) == ["x"]


def test_nothing_written(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x"):
        pass
    assert names(tmp_path) == []


@pytest.fixture
def dead_pid():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_killed_processes_left_is_removed(tmp_path, dead_pid):
    host = socket.gethostname()
    (tmp_path / f".x.{host}-{dead_pid}.tmp").mkdir()
    (tmp_path / f".x.{host}-{dead_pid}.tmp/half").write_text("half")
    kept = [
        f".x.{host}-{os.getppid()}.tmp",  # runs
        f".x.{host}-{dead_pid}.tmp.csv",  # of x.csv
        f".y.{host}-{dead_pid}.tmp",
        f".x.elsewhere-{dead_pid}.tmp",
        f".x.{dead_pid}.tmp",
    ]
    for name in kept:
        (tmp_path / name).write_text("half")
    with atomic_path(tmp_path / "x") as temporary:
        temporary.mkdir()
    assert names(tmp_path) == sorted([*kept, "x"])
    for name in kept[3:]:
        os.utime(tmp_path / name, times=(0, time.time() - files.OLD - 60))
    write_text(tmp_path / "x.csv", "a")
    (tmp_path / "x").rmdir()
    write_text(tmp_path / "x", "a")
    assert names(tmp_path) == sorted([kept[0], kept[2], "x", "x.csv"])


def test_errors_name_what_was_asked_for(tmp_path, monkeypatch):
    def refuse_to_open(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with pytest.raises(PermissionError) as error, atomic_path(tmp_path / "x.csv") as temporary:
        refuse_to_open(temporary)
    assert error.value.filename == str(tmp_path / "x.csv")
    with pytest.raises(PermissionError) as error, atomic_path(tmp_path / "x") as temporary:
        refuse_to_open(temporary / "images/a.png")
    assert error.value.filename == str(tmp_path / "x/images/a.png")
    with pytest.raises(PermissionError) as error, files.atomic_paths(tmp_path / "a", tmp_path / "b") as both:
        refuse_to_open(both[1])
    assert error.value.filename == str(tmp_path / "b")


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "x", "R²M → θ")
    write_text(tmp_path / "x", "λ")
    assert (tmp_path / "x").read_bytes() == "λ".encode()


def test_a_file_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("sync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("rename"), replace(*paths)))
    write_text(tmp_path / "x", "a")
    assert events == ["sync", "rename", "sync"]


def test_folders_that_cannot_be_synced(tmp_path, monkeypatch):
    fsync = os.fsync

    def refuse_folders(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(22, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    write_text(tmp_path / "x", "a")
    assert (tmp_path / "x").read_text() == "a"


def temporaries(folder, **texts):
    """Complete temporary files for paths of the folder, by path."""
    files = {}
    for name, text in texts.items():
        files[folder / name] = temporary_path(folder / name)
        files[folder / name].write_text(text)
    return files


def refuse(*_, **__):
    raise PermissionError(errno.EPERM, "no hard links here")


@pytest.mark.parametrize("links", [True, False])
def test_files_appear_together(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    publish_together(temporaries(tmp_path, a="1", b="2"), [])
    assert (tmp_path / "a").read_text() == "1"
    assert (tmp_path / "b").read_text() == "2"
    publish_together(temporaries(tmp_path, a="3", b="4", c="5"), [tmp_path / "a", tmp_path / "b"])
    assert (tmp_path / "a").read_text() == "3"
    assert names(tmp_path) == ["a", "b", "c"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_came_meanwhile_is_not_replaced(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    files = temporaries(tmp_path, a="1", b="2")
    (tmp_path / "b").write_text("other")
    # As if the other process came after the check.
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    with pytest.raises(FileExistsError) as error:
        publish_together(files, [])
    assert error.value.filename == str(tmp_path / "b")
    assert (tmp_path / "b").read_text() == "other"
    assert not (tmp_path / "a").exists()


def test_what_was_replaced_comes_back_after_an_error(tmp_path):
    files = temporaries(tmp_path, a="new", b="new")
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").mkdir()
    with pytest.raises(OSError, match="directory") as error:
        publish_together(files, list(files))
    assert error.value.filename == str(tmp_path / "b")
    assert (tmp_path / "a").read_text() == "old"
    assert {name for name in names(tmp_path) if name.endswith(".old")} == set()
