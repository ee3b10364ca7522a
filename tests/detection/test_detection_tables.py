"""Detections as tables and as lines."""

import errno
import json
import signal
from pathlib import Path

import pandas as pd
import pytest
from scipy.special import expit

from r2m.cli.process import Ended
from r2m.detection.detecting import Detection, ScoredFace
from r2m.detection.lines import curve, lines_of
from r2m.detection.tables import COLUMNS, TABLES, open_table, rows_of, table_type
from r2m.errors import R2MError
from r2m.models.decision import Decision


def face(number: int, seconds: float | None, logit: float) -> ScoredFace:
    return ScoredFace(number, (1, 2, 3, 4), seconds, logit, float(expit(logit)))


PHOTO = Detection(Path("a.jpg"), Decision(), [face(0, None, 2.0)])
VIDEO = Detection(
    Path("b.mp4"),
    Decision(),
    [face(0, 0.0, -3.0), face(0, 1.5, -1.0), face(1, 0.0, 1.0)],
)
NONE = Detection(Path("c.jpg"), Decision(), reason="no face, none")


def written(path: Path) -> pd.DataFrame:
    match path.suffix:
        case ".csv":
            return pd.read_csv(path)
        case ".jsonl":
            return pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])
        case ".json":
            return pd.DataFrame(json.loads(path.read_text()), columns=COLUMNS)
    return pd.read_parquet(path)


@pytest.mark.parametrize("suffix", TABLES)
def test_tables_hold_all_rows(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    with open_table(path) as table:
        for detection in (PHOTO, VIDEO, NONE):
            for row in rows_of(detection):
                table.write(row)
    frame = written(path)
    assert tuple(frame) == COLUMNS
    assert frame["level"].tolist() == ["face", *["frame"] * 3, "track", "track", "video", "file"]
    assert frame["decision"].fillna("").tolist() == [
        "fake",
        "real",
        "real",
        *["fake", "real", "fake"],
        "fake",
        "",
    ]
    assert frame.loc[0, ["left", "top", "width", "height"]].tolist() == [1, 2, 3, 4]
    assert frame.loc[4, "probability"] == pytest.approx(frame.loc[1:2, "probability"].mean())
    assert frame.loc[6, "probability"] == pytest.approx(frame.loc[5, "probability"])
    assert frame.loc[7, "reason"] == "no face, none"
    assert frame.loc[7, ["face", "seconds", "left", "logit", "probability"]].isna().all()


@pytest.mark.parametrize("suffix", TABLES)
def test_an_empty_table_is_a_table(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    with open_table(path):
        pass
    assert written(path).empty


def interrupted(path: Path, error: BaseException) -> None:
    """Write a row, and then what happens."""
    with open_table(path) as table:
        table.write(next(rows_of(PHOTO)))
        raise error


@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), Ended(signal.SIGTERM)], ids=["Ctrl-C", "SIGTERM"])
def test_what_was_done_before_a_signal_is_kept(tmp_path, suffix, error):
    path = tmp_path / f"t{suffix}"
    with pytest.raises(type(error)):
        interrupted(path, error)
    assert written(path)["path"].tolist() == ["a.jpg"]


def test_where_nothing_was_done_nothing_is_written(tmp_path):
    (tmp_path / "t.csv").write_text("old")
    with pytest.raises(Ended), open_table(tmp_path / "t.csv"):
        raise Ended(signal.SIGTERM)
    assert (tmp_path / "t.csv").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("suffix", TABLES)
def test_an_error_leaves_nothing(tmp_path, suffix):
    with pytest.raises(OSError, match="full"):
        interrupted(tmp_path / f"t{suffix}", OSError("the disk is full"))
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_no_text_is_escaped(tmp_path):
    odd = Detection(Path("\udcff.jpg"), 0.5, reason="x")
    for suffix in TABLES:
        with open_table(tmp_path / f"t{suffix}") as table:
            table.write(next(rows_of(odd)))
        assert written(tmp_path / f"t{suffix}")["path"].tolist() == ["\\udcff.jpg"]


@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize("name", ["a\nb.jpg", "a\rb.jpg", "a\x1b[2Jb.jpg", 'a",b.jpg'])
def test_names_are_kept_whole_in_tables_and_escaped_in_lines(tmp_path, suffix, name):
    odd = Detection(Path(name), Decision(), reason=f"cannot be read: {name}")
    with open_table(tmp_path / f"t{suffix}") as table:
        for _ in range(2):
            table.write(next(rows_of(odd)))
    assert written(tmp_path / f"t{suffix}")["path"].tolist() == [name] * 2
    (line,) = lines_of(odd, 8)
    assert line.isprintable()
    assert line.startswith(name.encode("unicode_escape").decode().replace('\\"', '"'))


def test_a_table_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    opened = open_table(tmp_path / "file/t.csv", "--out")
    with pytest.raises(R2MError, match=r"--out: .*file: cannot be written \(.+\)"), opened:
        pass

    def full(table):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TABLES[".csv"], "close", full)
    opened = open_table(tmp_path / "t.csv", "--out")
    with (
        pytest.raises(R2MError, match=r"--out: .*t\.csv: cannot be written \(No space left"),
        opened as table,
    ):
        table.write(next(rows_of(PHOTO)))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_unknown_suffix():
    with pytest.raises(R2MError, match=r"t\.xlsx: .* ends in \.csv, \.jsonl, \.json, \.parquet"):
        table_type(Path("t.xlsx"))


def test_lines():
    assert list(lines_of(PHOTO, 6)) == ["a.jpg   fake    0.881"]
    assert list(lines_of(VIDEO, 6)) == [
        "b.mp4   real    0.158  face 0  ▁▃",
        "        fake    0.731  face 1  ▆",
    ]
    assert list(lines_of(NONE, 6)) == ["c.jpg   –       no face, none"]
    assert curve([0.0, 0.5, 1.0]) == "▁▅█"
