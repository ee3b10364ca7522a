"""`r2m index` as a user calls it."""

import errno
import os
import sys

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from index_trees import df40, ff_lists, put, video
from r2m.cli import process
from r2m.cli.index import command
from r2m.cli.process import guarded
from r2m.errors import R2MError
from r2m.index import table


def invoke(*arguments, code=0):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if code == 0 and result.exception:
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def sets(tmp_path):
    tree = df40(tmp_path / "sets/DF40")
    for name in ("000", "003", "001", "870"):
        video(tree.parent, f"FaceForensics++/original_sequences/youtube/c23/frames/{name}")
    for name in ("Celeb-real/frames/id0_0000", "YouTube-real/frames/00170"):
        video(tree.parent, f"Celeb-DF-v2/{name}")
    ff_lists(tree.parent / "FaceForensics++", train=["000_003"], val=["001_870"], test=["005_006"])
    return tree.parent


def test_index_and_summary(sets, tmp_path):
    out = tmp_path / "data/df40.parquet"
    put(sets, "DF40/simswap/notes.txt")
    text = invoke(sets, "--out", out).output
    lines = text.splitlines()
    assert lines[0].split() == [
        "data",
        "set",
        "domain",
        "method",
        "family",
        "videos",
        "files",
        "train",
        "val",
        "test",
    ]
    assert any(line.split() == ["DF40", "ff", "simswap", "FS", "4", "12", "6", "6", "0"] for line in lines)
    assert any(
        line.split() == ["FaceForensics++", "ff", "real", "real", "4", "12", "6", "6", "0"] for line in lines
    )
    assert "neither image nor video" in text
    skipped = pd.read_csv(tmp_path / "data/df40.skipped.csv")
    assert list(skipped.columns) == ["file", "key", "files", "reason"]
    assert skipped["file"].str.endswith("notes.txt").sum() == 1
    assert table.metadata(out)["root"] == str(sets)


def test_made_anew_it_is_the_same(sets, tmp_path):
    out = tmp_path / "df40.parquet"
    invoke(sets, "--out", out)
    first = out.read_bytes()
    invoke(sets, "--out", out)
    assert out.read_bytes() == first


def test_params(sets, tmp_path):
    out = tmp_path / "df40.parquet"
    result = invoke(sets, "--out", out, "--params")
    sections = yaml.safe_load(result.stdout)
    assert sections["datasets"] == {"df40": {"index": out.as_posix()}}
    assert sections["domains"] == {
        "ff": {"dataset": "df40", "domain": "ff", "role": "train"},
        "cdf": {"dataset": "df40", "domain": "cdf", "role": "test"},
    }
    generators = sections["generators"]
    assert generators["simswap"] == {"family": "FS", "role": "train", "dataset": "df40", "method": "simswap"}
    roles = {name: generator["role"] for name, generator in generators.items()}
    unseen = {"stargan", "starganv2", "whichisreal", "deepfacelab", "heygen"}
    assert {name for name, role in roles.items() if role == "unseen"} == unseen
    assert "data set" in result.stderr


def test_fakes_without_reals_are_told(tmp_path):
    video(tmp_path, "DF40/simswap/cdf/frames/id0_id1_0000")
    result = invoke(tmp_path / "DF40", "--out", tmp_path / "x.parquet")
    assert "r2m: warning: cdf: 3 fakes and no real; index Celeb-DF-v2 with it" in result.stderr


def test_splits_without_files_are_told(tmp_path):
    root = tmp_path / "ff"
    for name in ("000", "001"):
        video(root, f"original_sequences/youtube/c23/frames/{name}")
    video(root, "manipulated_sequences/Deepfakes/c23/frames/000_003")
    video(root, "original_sequences/actors/c23/frames/01__walking")
    ff_lists(root, train=["000_003"], val=["001_870"], test=["005_006"])
    lines = invoke(root, "--out", tmp_path / "x.parquet").stderr.splitlines()
    warnings = [line.partition(";")[0] for line in lines if line.startswith("r2m: warning: ")]
    assert warnings == [
        "r2m: warning: ff: ff_deepfakes: no file in the split val",
        "r2m: warning: ff: no file in the split test",
    ]


def test_fakes_whose_reals_are_of_another_level(tmp_path):
    video(tmp_path, "ff/original_sequences/youtube/c23/frames/000")
    video(tmp_path, "ff/manipulated_sequences/Deepfakes/c40/frames/000_003")
    result = invoke(tmp_path / "ff", "--out", tmp_path / "x.parquet", "--compression", "c40")
    assert "ff: 3 fakes and no real; there are some of c23, left out by --compression\n" in result.stderr
    assert "of c23, left out by --compression c40" in result.stdout


def test_the_people_of_an_index_keep_their_split(tmp_path):
    root, out = tmp_path / "DF40", tmp_path / "df40.parquet"
    for k in range(0, 40, 2):
        video(root, f"simswap/ff/frames/{k:03}_{k + 1:03}", ["0.png"])
    invoke(root, "--out", out)
    before = table.slice_digest(table.slice_of(out, method="simswap"))
    for k in range(0, 40):
        video(root, f"MRAA/ff/frames/{k:03}_{(k + 5) % 40:03}", ["0.png"])
        video(root, f"lia/ff/frames/{k:03}_{(k + 5) % 40:03}", ["0.png"])
    invoke(root, "--out", out)
    assert table.slice_digest(table.slice_of(out, method="simswap")) == before


def test_bad_input_ends_with_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys):
    put(tmp_path, "DF40/simswp/ff/frames/000_003/0.png", "DF40/simswap/ff/frames/000_003/0.png")
    monkeypatch.setattr(
        sys, "argv", ["r2m", str(tmp_path / "DF40"), "--out", str(tmp_path / "out/x.parquet")]
    )
    # It would end the whole process of the tests, where another test has imported torch.
    monkeypatch.setattr(process, "leave", sys.exit)
    with pytest.raises(SystemExit) as end:
        guarded(command)
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("r2m: error: ")
    assert "did you mean 'simswap'" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--column", "path"), "expected NAME=THEIRS, got 'path'"),
        (("--column", "path=a", "--column", "path=b"), "'path' is given twice"),
        (("--family", "x=XX"), "x: expected one of FS, FR, EFS, FE, got 'XX'"),
    ],
)
def test_wrong_options(tmp_path, option, message):
    result = invoke(tmp_path, "--out", tmp_path / "x.parquet", *option, code=2)
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.csv", "'--out': expected a file that ends in .parquet"), ("x.parquet", "x.parquet is a folder")],
)
def test_out_that_cannot_be_an_index_is_refused_before_all(tmp_path, name, message):
    (tmp_path / name).mkdir()
    result = invoke(tmp_path / "nowhere", "--out", tmp_path / name, code=2)
    assert message in " ".join(result.output.replace("│", " ").split())


def test_a_file_that_is_no_index_is_in_the_way_of_out(tmp_path):
    out = tmp_path / "x.parquet"
    out.write_text("mine")
    with pytest.raises(R2MError, match=r"--out .*x.parquet: in the way; name another file"):
        invoke(tmp_path / "nowhere", "--out", out)
    assert out.read_text() == "mine"


def test_the_index_and_what_is_left_out_are_replaced_together(sets, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    invoke(sets, "--out", folder / "x.parquet")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before.keys() == {"x.parquet", "x.skipped.csv"}
    put(sets, "DF40/simswap/notes.txt", "DF40/simswap/ff/frames/005_006/000.png")

    def full(source, target):
        if str(target).endswith("x.skipped.csv"):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(R2MError, match=r"x.skipped.csv: cannot be written \(No space left"):
        invoke(sets, "--out", folder / "x.parquet")
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
