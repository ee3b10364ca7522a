"""Plain folders and tables of the user's own."""

import re

import pandas as pd
import pytest

from index_trees import indexed, put, reasons, row, video
from r2m.errors import R2MError


def test_a_plain_folder(tmp_path):
    root = tmp_path / "Мои данные"
    video(root, "real/clip_a")
    video(root, "fake/simswap/000_003")
    video(root, "fake/FE/my-editor/clip_b")
    put(root, "fake/pixart/x.png", "fake/pixart/y.png", "real/x.png", "fake/Deepfakes/c.webm", "real/d.MKV")
    frame, skipped = indexed(root)
    assert not skipped
    families = frame.groupby("method")["family"].first().to_dict()
    assert families == {
        "real": "real",
        "simswap": "FS",
        "my_editor": "FE",
        "pixart": "EFS",
        "ff_deepfakes": "FS",
    }
    assert set(frame["dataset"]) == {"Мои данные"}
    (domain,) = set(frame["domain"])
    assert re.fullmatch("[a-z0-9_]+", domain)
    assert row(frame, "real/clip_a/012.png")["video"] == "clip_a"
    assert row(frame, "fake/Deepfakes/c.webm")["media"] == "video"
    x = frame[frame["path"].str.endswith("x.png")]
    assert x["split"].nunique() == x["identity"].nunique() == 1


def test_split_folders_are_official(tmp_path):
    for split in ("train", "valid", "test"):
        video(tmp_path, f"mine/{split}/0_real/v_{split}")
        video(tmp_path, f"mine/{split}/1_fake/simswap/v_{split}")
    frame, _ = indexed(tmp_path / "mine")
    assert frame.groupby("video")["split"].first().to_dict() == {
        "v_train": "train",
        "v_valid": "val",
        "v_test": "test",
    }
    assert set(frame["split_by"]) == {"official"}


def test_fakes_need_a_method_with_a_family(tmp_path):
    root = tmp_path / "mine"
    put(root, "real/a.png", "fake/newgan/a.png")
    with pytest.raises(R2MError, match=r"newgan: unknown method 'newgan'.*--family newgan=FS"):
        indexed(root)
    frame, _ = indexed(root, families={"newgan": "EFS"})
    assert set(frame["family"]) == {"EFS", "real"}
    put(root, "fake/b.png")
    with pytest.raises(R2MError, match="fake: of which method are these fakes"):
        indexed(root, families={"newgan": "EFS"})


def test_a_table_with_other_columns(tmp_path):
    put(tmp_path, *(f"x/{name}/{frame}.png" for name in ("a", "b") for frame in range(3)), "x/c.mp4")
    frame = pd.DataFrame(
        {
            "file": [f"x\\a\\{k}.png" for k in range(3)]
            + [f"x/b/{k}.png" for k in range(3)]
            + ["x/c.mp4", "x/gone.png"],
            "target": ["real"] * 3 + ["fake"] * 5,
            "method": [""] * 3 + ["simswap"] * 5,
            "video": ["a"] * 3 + ["b"] * 3 + ["", "b"],
            "who": ["ann"] * 3 + ["bob"] * 5,
            "split": ["train"] * 3 + ["validation"] * 3 + ["test"] * 2,
        }
    )
    columns = {"path": "file", "label": "target", "identity": "who"}
    tables = {
        ".csv": lambda path: frame.to_csv(path, index=False),
        ".parquet": lambda path: frame.to_parquet(path),
    }
    for suffix, write in tables.items():
        path = tmp_path / f"Mine{suffix}"
        write(path)
        rows, skipped = indexed(path, columns=columns)
        assert reasons(skipped) == {"listed, and not there": 1}
        assert skipped[0].file == "x/gone.png"
        assert rows.groupby("split")["path"].agg(len).to_dict() == {"train": 3, "val": 3, "test": 1}
        first = row(rows, "x/a/2.png")
        assert (first["method"], first["domain"], first["identity"], first["frame"]) == (
            "real",
            "mine",
            "mine/ann",
            2,
        )
        movie = row(rows, "x/c.mp4")
        assert (movie["media"], movie["video"], movie["method"]) == ("video", "c", "simswap")


def test_a_table_with_everything(tmp_path):
    put(tmp_path, "data/one.png", "data/masks/one.png")
    row_of = {
        "path": "one.png",
        "label": 1,
        "method": "My GAN",
        "family": "efs",
        "domain": "FF",
        "dataset": "Set",
        "video": "v",
        "frame": 77.0,
        "identity": "000",
        "identity2": "003",
        "split": "test",
        "compression": "raw",
        "mask": "masks/one.png",
    }
    path = tmp_path / "t.parquet"
    pd.DataFrame([row_of]).to_parquet(path)
    rows, _ = indexed(path, root=tmp_path / "data")
    got = rows.iloc[0].to_dict()
    assert got == {
        **row_of,
        "method": "my_gan",
        "family": "EFS",
        "domain": "ff",
        "media": "image",
        "identity": "ff/000",
        "identity2": "ff/003",
        "split_by": "official",
        "compression": "c0",
        "size": len("data/one.png"),
        "frame": 77,
    }


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("file,label\na.png,0\n", {}, r"no column 'path'.*it has file, label: --column path=NAME"),
        ("path\na.png\n", {}, "no column 'label'; expected path, and label or method"),
        ("path,label\na.png,0\n", {"path": "fle"}, "--column path=fle: no column 'fle'"),
        (
            "path,label\na.png,0\n",
            {"pth": "path"},
            "--column pth=path: no column of the index; did you mean 'path'",
        ),
        ("path,label\na.png,2\n", {}, "row 2: column 'label': expected 0, 1, real or fake, got '2'"),
        ("path,label\na.png,1\n", {}, "row 2: column 'method': a fake of which method"),
        ("path,method\na.png,swp\n", {}, "row 2: unknown method 'swp'"),
        (
            "path,method,family\na.png,own,XX\n",
            {},
            "column 'family': expected one of FS, FR, EFS, FE, got 'XX'",
        ),
        ("path,label,split\na.png,0,x\n", {}, "column 'split': expected train, val or test, got 'x'"),
        ("path,label,compression\na.png,0,x\n", {}, "column 'compression': expected c0, c23 or c40, got 'x'"),
        ("path,label,video,frame\na.png,0,v,x\n", {}, "column 'frame': expected a number, got 'x'"),
        ("path,label\nb.png,0\n", {}, "none of its 1 files is there, such as 'b.png'; expected --root DIR"),
        ("path,label\n", {}, "holds no row"),
    ],
)
def test_wrong_tables(tmp_path, text, columns, message):
    put(tmp_path, "a.png")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(R2MError, match=message):
        indexed(tmp_path / "t.csv", columns=columns)


def test_photographs_of_a_table_keep_their_people(tmp_path):
    put(tmp_path, *(f"all/{k:03}.jpg" for k in range(60)))
    lines = (f"all/{k:03}.jpg,0,person{k // 2}" for k in range(60))
    (tmp_path / "t.csv").write_text("\n".join(["path,label,identity", *lines]))
    rows, _ = indexed(tmp_path / "t.csv")
    identities = dict(zip(rows["path"], rows["identity"], strict=True))
    assert identities == {f"all/{k:03}.jpg": f"t/person{k // 2}" for k in range(60)}
    assert set(rows["split"]) == {"train", "val", "test"}
    assert not rows[["identity", "split"]].drop_duplicates()["identity"].duplicated().any()


def test_photographs_of_a_table_keep_their_split(tmp_path):
    put(tmp_path, "all/a.jpg", "all/b.jpg", "all/c.jpg")
    (tmp_path / "t.csv").write_text(
        "path,label,split\nall/a.jpg,0,train\nall/b.jpg,0,val\nall/c.jpg,0,test\n"
    )
    rows, _ = indexed(tmp_path / "t.csv")
    assert list(rows["split"]) == ["train", "val", "test"]


def test_photographs_without_splits_are_split_by_name(tmp_path):
    put(
        tmp_path,
        *(f"mine/real/{k:03}.jpg" for k in range(60)),
        *(f"mine/fake/stargan/{k:03}.jpg" for k in range(60)),
    )
    frame, _ = indexed(tmp_path / "mine")
    frame["name"] = frame["path"].str[-7:]
    assert set(frame["split"]) == {"train", "val", "test"}
    for column in ("name", "identity"):
        assert not frame[[column, "split"]].drop_duplicates()[column].duplicated().any()


def test_a_root_that_is_not_above_the_files(tmp_path):
    put(tmp_path, "mine/real/a.png", "mine/fake/simswap/b.png")
    (tmp_path / "other").mkdir()
    with pytest.raises(R2MError, match=r"--root .*other: expected a folder above all files"):
        indexed(tmp_path / "mine", root=tmp_path / "other")
    with pytest.raises(R2MError, match=r"--root .*nowhere: no such folder"):
        indexed(tmp_path / "mine", root=tmp_path / "nowhere")
    frame, _ = indexed(tmp_path / "mine", root=tmp_path)
    assert "mine/real/a.png" in set(frame["path"])


def test_a_table_finds_no_other_files_than_its_own(tmp_path):
    put(tmp_path, "run1/real/a.png", "run1/b.png", "real/a.png")
    (tmp_path / "t.csv").write_text("path,label,mask\nrun2/real/a.png,0,\nrun1/b.png,0,no.png\n")
    rows, skipped = indexed(tmp_path / "t.csv")
    assert list(rows["path"]) == ["run1/b.png"]
    assert reasons(skipped) == {"listed, and not there": 1, "masks that are not there": 1}
    (tmp_path / "t.csv").write_text("path,label\nD:\\x\\run1\\real\\a.png,0\nD:\\x\\run1\\b.png,0\n")
    rows, _ = indexed(tmp_path / "t.csv")
    assert sorted(rows["path"]) == ["run1/b.png", "run1/real/a.png"]
