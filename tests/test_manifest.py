from pathlib import Path

import pandas as pd
import pytest

from r2m import manifest
from r2m.errors import R2MError


def table(**changes: object) -> pd.DataFrame:
    rows = {
        "image_id": ["f/1", "a/1"],
        "path": ["f/1.jpg", "a/1.jpg"],
        "label": [1, 0],
        "generator": ["f", "real"],
        "family": ["FS", "real"],
        "domain": "a",
        "identity": "x",
        "source_image": ["a/1", None],
        "video": None,
        "split": "test",
    }
    return pd.DataFrame(rows | changes)


def test_write_sorts_and_read_gives_the_same_types_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "manifest.parquet"
    manifest.write(table(), path)
    frame = manifest.read(path)
    assert list(frame["image_id"]) == ["a/1", "f/1"]
    assert tuple(frame.columns) == manifest.COLUMNS
    assert frame["label"].dtype == "int8"
    assert frame["source_image"].isna().tolist() == [True, False]
    assert frame[["frame", "sampling", "digest"]].isna().all(axis=None)
    assert [entry.name for entry in path.parent.iterdir()] == ["manifest.parquet"]


def test_frames_and_how_they_were_sampled(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    manifest.write(table(frame=["7", None], sampling="up to 8 of each video, evenly"), path)
    frame = manifest.read(path)
    assert frame["frame"].tolist()[1] == "7"
    assert frame["frame"].isna().tolist() == [True, False]
    assert set(frame["sampling"]) == {"up to 8 of each video, evenly"}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("image_id", "same"),
        ("path", "a\\b.jpg"),
        ("label", 2),
        ("label", [0, 0]),
        ("family", "XX"),
        ("split", "dev"),
        ("identity", None),
    ],
)
def test_wrong_value_is_named_with_its_column(column: str, value: object) -> None:
    with pytest.raises(R2MError, match=column):
        manifest.check(table(**{column: value}), "m.parquet")


def test_missing_column_and_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(R2MError, match="no column 'split'"):
        manifest.check(table().drop(columns="split"))
    with pytest.raises(R2MError, match=r"absent\.parquet"):
        manifest.read(tmp_path / "absent.parquet")


def test_concat_rejects_an_image_that_two_sets_claim() -> None:
    with pytest.raises(R2MError, match="image_id"):
        manifest.concat([table(), table()])
