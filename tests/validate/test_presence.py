import os

import pyarrow as pa
import pytest

from r2m.errors import R2MError
from r2m.validate import presence
from r2m.validate.presence import are_present, split_paths


def test_paths_are_split():
    folders, names = split_paths(pa.chunked_array([["a/b/c.png", "d.png"], ["a/b/x y.png", "ü/é.png"]]))
    assert list(folders) == ["a/b", "", "a/b", "ü"]
    assert names.to_pylist() == ["c.png", "d.png", "x y.png", "é.png"]


def test_files_links_and_folders(tmp_path):
    (tmp_path / "a/folder.png").mkdir(parents=True)
    (tmp_path / "a/file.png").write_bytes(b"x")
    (tmp_path / "top.png").write_bytes(b"x")
    (tmp_path / "a/link.png").symlink_to("file.png")
    (tmp_path / "a/dangling.png").symlink_to("nowhere.png")
    (tmp_path / "linked").symlink_to("a")
    expected = {
        "top.png": True,
        "a/file.png": True,
        "gone/file.png": False,
        "a/link.png": True,
        "top.png/file.png": False,
        "a/dangling.png": False,
        "a/folder.png": False,
        "linked/file.png": True,
        None: False,
        "a/gone.png": False,
    }
    found = are_present(tmp_path, pa.chunked_array([list(expected)], pa.string()), 2)
    assert found.tolist() == list(expected.values())


def test_many_folders_and_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(presence, "FOLDERS", 2)
    paths = [f"{i % 7}/{i}.png" for i in range(50)]
    for path in paths[::3]:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"")
    found = are_present(tmp_path, pa.chunked_array([paths]), 3)
    assert found.tolist() == [i % 3 == 0 for i in range(50)]


def test_no_paths(tmp_path):
    assert are_present(tmp_path, pa.chunked_array([[None, None]], pa.string()), 1).tolist() == [False, False]


def test_each_folder_is_listed_once_and_no_file_is_asked_for(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    for i in range(5):
        (tmp_path / f"a/{i}.png").write_bytes(b"")
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(folder) or scandir(folder))
    monkeypatch.setattr(os, "stat", None)
    assert are_present(tmp_path, pa.chunked_array([[f"a/{i}.png" for i in range(9)]]), 1).sum() == 5
    assert listed == [os.path.join(tmp_path, "a")]


def test_a_folder_that_may_not_be_listed(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(R2MError, match=r"/a: cannot be listed \(Permission denied\)"):
        are_present(tmp_path, pa.chunked_array([["a/b.png"]]), 1)
