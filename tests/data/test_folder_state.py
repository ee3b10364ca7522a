import os
import shutil

import pytest

from r2m.data import folder_state
from r2m.data.folder_state import ImageFolders
from r2m.errors import R2MError


@pytest.fixture
def folder(tmp_path):
    for i in range(6):
        path = tmp_path / "images" / f"p{i // 2}" / f"{i}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content %d" % i)
    return tmp_path / "images"


@pytest.fixture
def start(tmp_path, folder):
    """Return a function that takes the digest at a new start; with `run=True` contents are read then."""

    def digest(run=False):
        folders = ImageFolders(tmp_path / "records")
        found = folders.digest([str(folder)])
        if run:
            folders.read_contents()
        return found

    return digest


def replace(path, content):
    """Give `path` another content of the same size, and the times that it had."""
    stat = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def swap(folder):
    (folder / "p0/0.bmp").rename(folder / "x")
    (folder / "p0/1.bmp").rename(folder / "p0/0.bmp")
    (folder / "x").rename(folder / "p0/1.bmp")


def swap_folders(folder):
    (folder / "p0").rename(folder / "x")
    (folder / "p1").rename(folder / "p0")
    (folder / "x").rename(folder / "p1")


def link_elsewhere(folder):
    (folder / "p0/0.bmp").unlink()
    (folder / "p0/0.bmp").symlink_to(folder / "p0/1.bmp")


CHANGES = {
    "same size": lambda folder: (folder / "p0/0.bmp").write_bytes(b"CONTENT 0"),
    "same size and times": lambda folder: replace(folder / "p0/0.bmp", b"CONTENT 0"),
    "other size": lambda folder: (folder / "p0/0.bmp").write_bytes(b"more content"),
    "two files swapped": swap,
    "two folders swapped": swap_folders,
    "gone": lambda folder: (folder / "p0/0.bmp").unlink(),
    "come": lambda folder: (folder / "p0/9.png").write_bytes(b"content 9"),
    "renamed": lambda folder: (folder / "p0/0.bmp").rename(folder / "p0/9.bmp"),
    "a link to another": link_elsewhere,
    "a dangling link": lambda folder: (folder / "p0/9.bmp").symlink_to("nowhere"),
}


@pytest.mark.parametrize("was_read", [True, False], ids=["read", "not read"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_are_seen(folder, start, change, was_read):
    before = start(run=was_read)
    change(folder)
    changed = start()
    assert changed != before
    assert start(run=True) == changed, "told again, until something is made of it"
    assert start() == changed


def copy_anew(folder):
    shutil.copytree(folder, folder.with_name("copy"))
    shutil.rmtree(folder)
    folder.with_name("copy").rename(folder)


SAME = {
    "nothing": lambda folder: None,
    "touched": lambda folder: [path.touch() for path in folder.glob("*/*")],
    "copied": copy_anew,
    "written again": lambda folder: [path.write_bytes(path.read_bytes()) for path in folder.glob("*/*.bmp")],
    "no image": lambda folder: (folder / "notes.txt").write_text("text"),
    "hidden": lambda folder: (folder / ".hidden.bmp").write_bytes(b"x"),
    "other rights": lambda folder: (folder / "p0/0.bmp").chmod(0o600),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_the_same_contents_have_the_same_digest(folder, start, change):
    before = start(run=True)
    change(folder)
    assert start() == before
    assert start() == before


def test_a_change_that_is_taken_back(folder, start):
    before = start(run=True)
    path = folder / "p0/0.bmp"
    path.write_bytes(b"CONTENT 0")
    changed = start(run=True)
    path.write_bytes(b"content 0")
    assert start() == before
    path.write_bytes(b"CONTENT 0")
    assert start() == changed


def test_a_file_that_comes_back(folder, start):
    before = start(run=True)
    path = folder / "p0/0.bmp"
    path.unlink()
    assert start() != before
    path.write_bytes(b"CONTENT 0")
    assert start() != before
    path.write_bytes(b"content 0")
    assert start() == before


def test_a_file_that_cannot_be_read_for_a_while(folder, start, monkeypatch):
    before = start(run=True)
    (folder / "p0/0.bmp").touch()
    with monkeypatch.context() as patch:
        patch.setattr(folder_state, "_content", lambda path: None)
        assert start(run=True) != before
    (folder / "p0/0.bmp").touch()
    assert start() == before


def test_what_changes_during_a_run_is_seen_at_the_next_start(tmp_path, folder):
    folders = ImageFolders(tmp_path / "records")
    before = folders.digest([str(folder)])
    (folder / "p0/0.bmp").write_bytes(b"CONTENT 0")
    folders.read_contents()
    assert folders.digest([str(folder)]) == before
    assert ImageFolders(tmp_path / "records").digest([str(folder)]) != before


def test_nothing_is_read_twice_nor_listed_twice(tmp_path, folder, monkeypatch):
    read, listed = [], []
    content, find_media = folder_state._content, folder_state.find_media
    monkeypatch.setattr(folder_state, "_content", lambda path: (read.append(path), content(path))[1])
    monkeypatch.setattr(folder_state, "find_media", lambda path: (listed.append(path), find_media(path))[1])
    folders = ImageFolders(tmp_path / "records")
    assert folders.count(str(folder)) == 6
    first = folders.digest([str(folder), str(folder)])
    assert not read
    folders.read_contents()
    assert len(read) == 6
    assert len(listed) == 1
    (folder / "p0/0.bmp").touch()
    again = ImageFolders(tmp_path / "records")
    assert again.digest([str(folder), str(folder)]) == first
    again.read_contents()
    assert read[6:] == [str(folder / "p0/0.bmp")]


@pytest.mark.parametrize("text", ["", "{", "\0", "[]"])
def test_a_damaged_record_counts_for_none(tmp_path, folder, start, text):
    before = start(run=True)
    for path in (tmp_path / "records").iterdir():
        path.write_text(text)
    assert start() == before


def test_names_that_are_no_text(folder, start):
    (folder / os.fsdecode(b"\xff.bmp")).write_bytes(b"x")
    before = start(run=True)
    (folder / os.fsdecode(b"\xff.bmp")).write_bytes(b"y")
    assert start() != before


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", f"{folder}/inner")

    monkeypatch.setattr(folder_state, "find_media", refuse)
    with pytest.raises(R2MError, match=r"images/inner: cannot be listed \(Permission denied\)"):
        ImageFolders(tmp_path / "records").count(str(tmp_path / "images"))


def test_lost_outputs_are_counted_once(tmp_path):
    manifest, images = tmp_path / "set" / "manifest", tmp_path / "set" / "images"

    def lost():
        return ImageFolders(tmp_path / "records").times_lost(str(images), str(manifest))

    assert lost() == 0, "nothing was made yet"
    images.mkdir(parents=True)
    manifest.touch()
    assert lost() == 0
    images.rmdir()
    assert [lost(), lost()] == [1, 1]
    images.mkdir()
    assert lost() == 1
    images.rmdir()
    assert lost() == 2
