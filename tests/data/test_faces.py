from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from r2m import manifest
from r2m.data.faces import Settings, build_domain, read_landmarks
from r2m.data.options import FacesOptions
from r2m.errors import R2MError

Photographs = Callable[..., Path]
SETTINGS = Settings(FacesOptions(detector="none", crop_size=64, min_images=2), image_size=48, seed=0)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_domain_of_train_is_split_by_identity(photographs: Photographs, tmp_path: Path) -> None:
    out = tmp_path / "faces" / "a"
    build_domain("a", photographs("raw", 60, per_person=2), "train", "folder", None, SETTINGS, out)
    rows = manifest.read(out / "manifest.parquet")
    assert len(rows) == 60
    assert (rows.groupby("identity")["split"].agg(lambda splits: len(set(splits))) == 1).all()
    assert set(rows["split"]) == {"train", "val", "test"}
    assert all(Path(path).is_file() for path in rows["path"])
    landmarks = read_landmarks(out / "landmarks.parquet")
    assert list(landmarks.index) == list(rows["image_id"])
    assert all(Path(crop).is_file() for crop in landmarks["crop"])
    assert all(points.shape == (5, 2) for points in landmarks["landmarks"])
    assert pd.read_csv(out / "skipped.csv").empty


def test_result_does_not_depend_on_threads_or_on_a_rerun(photographs: Photographs, tmp_path: Path) -> None:
    raw, out = photographs("raw", 24), tmp_path / "a"
    made = []
    for threads in (1, 2):
        settings = Settings(SETTINGS.options, 48, 0, threads=threads)
        build_domain("a", raw, "train", "file", None, settings, out)
        made.append(snapshot(out))
    assert made[0] == made[1]


def test_an_image_is_encoded_alike_whatever_stands_beside_it(
    photographs: Photographs, tmp_path: Path
) -> None:
    raw = photographs("raw", 20)
    build_domain("a", raw, "test", "file", None, SETTINGS, tmp_path / "all")
    build_domain("a", raw, "test", "file", 5, SETTINGS, tmp_path / "few")
    everything, few = snapshot(tmp_path / "all"), snapshot(tmp_path / "few")
    images = [name for name in few if name.endswith(".jpg")]
    assert len(images) == 5
    assert all(everything[name] == few[name] for name in images)


def test_test_domain_is_all_test_and_the_limit_is_even(photographs: Photographs, tmp_path: Path) -> None:
    build_domain("b", photographs("raw", 40, 10), "test", "folder", 12, SETTINGS, tmp_path / "b")
    rows = manifest.read(tmp_path / "b" / "manifest.parquet")
    assert set(rows["split"]) == {"test"}
    assert (rows["identity"].value_counts() == 3).all()


def test_unusable_files_are_listed_with_reasons(photographs: Photographs, tmp_path: Path) -> None:
    raw = photographs("raw", 20)
    whole = (raw / "001.png").read_bytes()
    (raw / "100.jpg").write_bytes(b"not an image")
    (raw / "101.png").write_bytes(whole[: len(whole) // 2])
    (raw / "001.bmp").write_bytes(whole)
    build_domain("a", raw, "test", "file", None, SETTINGS, tmp_path / "a")
    skipped = pd.read_csv(tmp_path / "a" / "skipped.csv").set_index("path")["reason"]
    names = {Path(path).name: reason for path, reason in skipped.items()}
    assert set(names) == {"100.jpg", "101.png", "001.png"}
    assert "cannot be read" in names["100.jpg"]
    assert "truncated" in names["101.png"]
    assert "001.bmp" in names["001.png"]
    assert len(manifest.read(tmp_path / "a" / "manifest.parquet")) == 20


def test_bad_input_is_an_error_and_leaves_nothing(photographs: Photographs, tmp_path: Path) -> None:
    out = tmp_path / "out" / "a"
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = [
        (tmp_path / "absent", "file", "no such folder"),
        (empty, "file", "holds no image"),
        (photographs("raw", 4), "cluster", r"domains\.a\.identity"),
        (photographs("raw", 4), "file", "at least 2"),
        (photographs("raw", 4), "folder", "at least 2"),
    ]
    for images, identity, message in cases:
        with pytest.raises(R2MError, match=message):
            build_domain("a", images, "train", identity, None, SETTINGS, out)
    assert not list(out.parent.glob("*")) if out.parent.exists() else True


def test_missing_model_is_named(photographs: Photographs, tmp_path: Path) -> None:
    settings = Settings(FacesOptions(), 48, 0, detector=tmp_path / "yunet.onnx")
    with pytest.raises(R2MError, match=r"yunet\.onnx: no such face detector"):
        build_domain("a", photographs("raw", 4), "test", "file", None, settings, tmp_path / "a")


def test_rerun_replaces_the_folder(photographs: Photographs, tmp_path: Path) -> None:
    out = tmp_path / "a"
    build_domain("a", photographs("raw", 20), "test", "file", None, SETTINGS, out)
    build_domain("a", photographs("fewer", 10), "test", "file", None, SETTINGS, out)
    assert len(list((out / "images").iterdir())) == 10
    assert np.all([path.name[0] != "." for path in tmp_path.iterdir()])


def test_a_damaged_file_does_not_take_its_namesake_along(photographs: Photographs, tmp_path: Path) -> None:
    raw = photographs("raw", 20)
    (raw / "001.jpg").write_bytes(b"not an image")
    build_domain("a", raw, "test", "file", None, SETTINGS, tmp_path / "a")
    skipped = pd.read_csv(tmp_path / "a" / "skipped.csv")
    assert [Path(path).name for path in skipped["path"]] == ["001.jpg"]
    assert len(manifest.read(tmp_path / "a" / "manifest.parquet")) == 20


def test_an_image_that_opencv_refuses_ends_nothing(
    photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resize of the third image fails as OpenCV does."""
    calls = iter(range(100))
    resize = cv2.resize

    def failing(*arguments: object, **options: object) -> object:
        if next(calls) == 4:
            return resize(np.zeros((0, 0, 3), np.uint8), (8, 8))
        return resize(*arguments, **options)

    raw = photographs("raw", 20)
    monkeypatch.setattr(cv2, "resize", failing)
    build_domain("a", raw, "test", "file", None, SETTINGS, tmp_path / "a")
    skipped = pd.read_csv(tmp_path / "a" / "skipped.csv")
    assert len(skipped) == 1
    assert skipped["reason"].iloc[0].startswith("cannot be aligned")
