"""Video files in a user's folders, through `build_domain` and `build_generator`."""

import itertools
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from drawn_videos import with_number, write_video
from r2m import manifest
from r2m.data.faces import Settings, build_domain, read_landmarks
from r2m.data.options import DomainOptions, FacesOptions
from r2m.errors import R2MError
from r2m.forge.generate import build_generator, read_reals
from r2m.forge.options import GeneratorOptions
from r2m.forge.user_fakes import user_rows
from r2m.video import folder as video_folder
from r2m.video.folder import read_videos
from r2m.video.stages import faces

SETTINGS = Settings(FacesOptions(detector="none", crop_size=64, min_images=2), image_size=48, seed=0)
PEOPLE = 16


def draw(path: Path, seed: int, frames: int = 16, tint: int = 0) -> Path:
    stream = np.random.default_rng([seed, tint])
    picture = cv2.GaussianBlur(stream.integers(0, 255, (64, 64, 3)).astype(np.uint8), (0, 0), 3)
    return write_video(path, [with_number(picture.copy(), i) for i in range(frames)])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real videos 000 to 015 of FaceForensics++ as they are downloaded."""
    root = tmp_path_factory.mktemp("ff")
    for i in range(PEOPLE):
        draw(root / f"original_sequences/youtube/c23/videos/{i:03}.mp4", i)
    return root


@pytest.fixture(scope="module")
def domain(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("faces") / "ff"
    raw = tree / "original_sequences"
    build_domain("ff", raw, "train", "file", None, SETTINGS, out, frames_per_video=4, read_videos=read_videos)
    return out


def rows_of(folder: Path) -> pd.DataFrame:
    return manifest.read(folder / "manifest.parquet")


def reasons(folder: Path) -> dict[str, str]:
    skipped = pd.read_csv(folder / "skipped.csv")
    assert skipped["path"].is_unique
    return {Path(path).name: reason for path, reason in zip(skipped["path"], skipped["reason"], strict=True)}


def test_a_domain_of_videos(domain: Path) -> None:
    rows = rows_of(domain)
    assert len(rows) == 4 * PEOPLE
    assert rows["image_id"][0] == "ff/youtube/c23/videos/000/000002"
    assert set(rows["video"].value_counts()) == {4}
    assert rows.groupby("identity")["video"].nunique().eq(1).all()
    assert rows.groupby("video")["split"].nunique().eq(1).all()
    assert set(rows["split"]) == {"train", "val", "test"}
    assert all(Path(path).is_file() for path in rows["path"])
    landmarks = read_landmarks(domain / "landmarks.parquet")
    assert list(landmarks.index) == list(rows["image_id"])
    assert all(Path(crop).is_file() for crop in landmarks["crop"])
    assert [path.name for path in domain.parent.iterdir()] == ["ff"]


def test_fakes_are_paired_with_frames_of_their_own_video(domain: Path, tmp_path: Path) -> None:
    reals = rows_of(domain)
    people = {split: sorted(set(rows["identity"])) for split, rows in reals.groupby("split")}
    pairs = [(a[-10:-7], b[-10:-7]) for names in people.values() for a, b in itertools.pairwise(names)]
    for target, source in pairs:
        draw(tmp_path / f"Deepfakes/c23/videos/{target}_{source}.mp4", int(target), tint=1)
    mixed = f"{people['train'][0][-10:-7]}_{people['test'][0][-10:-7]}.mp4"
    draw(tmp_path / f"Deepfakes/c23/videos/{mixed}", 0, tint=1)
    options = GeneratorOptions(family="FS", images=str(tmp_path / "Deepfakes"), frames_per_video=4)
    rows, skipped = user_rows("deepfakes", options, read_reals([domain]), SETTINGS, tmp_path / "out")
    assert len(rows) == 4 * len(pairs)
    ((path, reason),) = skipped
    assert path.endswith(mixed)
    assert "different splits" in reason
    assert set(rows["sampling"]) == {"up to 4 of each video, evenly"}
    of_id = reals.set_index("image_id")
    for row in rows.itertuples():
        real = of_id.loc[row.source_image]
        assert Path(real["video"]).name == Path(row.video).name[:3]
        assert Path(row.source_image).name == Path(row.image_id).name
        assert (real["identity"], real["split"]) == (row.identity, row.split)
    assert [child.name for child in tmp_path.glob(".*")] == []


def test_a_generator_of_videos_with_reals_of_its_own(domain: Path, tmp_path: Path) -> None:
    for i in range(12):
        draw(tmp_path / f"real/id{i}_0000.mp4", 100 + i)
        draw(tmp_path / f"fake/id{i}_id{(i + 1) % 12}_0000.mp4", 100 + i, tint=1)
    shutil.copy(tmp_path / "real/id3_0000.mp4", tmp_path / "fake/id3_id4_0001.mp4")
    options = GeneratorOptions(
        family="FS", role="unseen", images=str(tmp_path / "fake"), reals=str(tmp_path / "real")
    )
    build_generator("celeb", options, [domain], SETTINGS, tmp_path / "celeb")
    rows = rows_of(tmp_path / "celeb")
    assert rows.groupby("label").size().to_dict() == {0: 96, 1: 96}
    fakes = rows[rows["label"] == 1]
    paired = rows.set_index("image_id").loc[fakes["source_image"]]
    assert list(paired["identity"]) == list(fakes["identity"])
    assert set(rows["split"]) == {"test"}
    assert reasons(tmp_path / "celeb") == {
        "id3_id4_0001.mp4": "byte-identical to a real video: celeb/real/id3_0000/000015"
    }


def test_videos_stand_beside_stills(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for i in range(6):
        draw(raw / f"p{i}.mp4", i)
        picture = cv2.GaussianBlur(
            np.random.default_rng(50 + i).integers(0, 255, (64, 64, 3)).astype(np.uint8), (0, 0), 2
        )
        cv2.imwrite(str(raw / f"s{i}.png"), picture)
    (raw / "clip").mkdir()
    cv2.imwrite(str(raw / "clip/000001.png"), picture[::-1])
    draw(raw / "clip.mp4", 20)
    (raw / "broken.avi").write_bytes(b"no video")
    (raw / "p1.avi").write_bytes(b"no video")
    shutil.copy(raw / "p2.mp4", raw / "p2.mov")
    (raw / "notes.txt").write_text("x")
    out = tmp_path / "a"
    build_domain("a", raw, "test", "file", None, SETTINGS, out, frames_per_video=3, read_videos=read_videos)
    rows = rows_of(out)
    assert len(rows) == 6 * 3 + 7
    assert rows["video"].notna().sum() == 18
    assert rows["identity"].nunique() == 13
    assert reasons(out) == {
        "clip.mp4": "a video named like a folder of images",
        "broken.avi": "cannot be read: no whole video that FFmpeg knows",
        "p1.avi": "cannot be read: no whole video that FFmpeg knows",
        "p2.mp4": "named like another video but for the suffix: p2.mov",
        "notes.txt": "no suffix of an image: .txt, 1 files in all",
    }


def test_the_limit_is_of_images(tree: Path, tmp_path: Path) -> None:
    options = DomainOptions(images={"folder": "x"}, role="test", identity="file", limit=30)
    faces(
        domain="a",
        images=tree / "original_sequences",
        options=options,
        faces=SETTINGS.options,
        image_size=48,
        seed=0,
        detector=None,
        embedder=None,
        out=tmp_path / "a",
        threads=1,
    )
    rows = rows_of(tmp_path / "a")
    assert len(rows) == 3 * 8
    assert rows["video"].nunique() == 3


def test_identities_by_folder(tmp_path: Path) -> None:
    for i in range(4):
        draw(tmp_path / f"raw/anna/{i}.mp4", i)
        draw(tmp_path / f"raw/videos/id{i}_0000.mp4", 10 + i)
    build_domain(
        *("a", tmp_path / "raw", "test", "folder", None, SETTINGS, tmp_path / "a"),
        frames_per_video=2,
        read_videos=read_videos,
    )
    assert set(rows_of(tmp_path / "a")["identity"]) == {f"anna/{i}" for i in range(4)} | {
        f"id{i}" for i in range(4)
    }


def test_a_video_called_like_a_container_of_videos(tmp_path: Path) -> None:
    for i, name in enumerate(("fake.mp4", "video.mp4", "test.mp4")):
        draw(tmp_path / "raw" / name, i)
    build_domain(
        *("a", tmp_path / "raw", "test", "file", None, SETTINGS, tmp_path / "a"),
        frames_per_video=2,
        read_videos=read_videos,
    )
    assert rows_of(tmp_path / "a")["identity"].nunique() == 3


def test_without_a_reader_videos_are_listed(tree: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for i in range(8):
        picture = cv2.GaussianBlur(
            np.random.default_rng(i).integers(0, 255, (64, 64, 3)).astype(np.uint8), (0, 0), 2
        )
        raw.mkdir(exist_ok=True)
        cv2.imwrite(str(raw / f"{i}.png"), picture)
    shutil.copy(tree / "original_sequences/youtube/c23/videos/000.mp4", raw / "a.mp4")
    build_domain("a", raw, "test", "file", None, SETTINGS, tmp_path / "a")
    assert reasons(tmp_path / "a") == {"a.mp4": "a video"}
    assert len(rows_of(tmp_path / "a")) == 8


def test_a_failed_build_keeps_the_videos_that_are_done(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, out = tree / "original_sequences", tmp_path / "a"
    strict = Settings(FacesOptions(detector="none", crop_size=64, min_images=500), image_size=48, seed=0)
    with pytest.raises(R2MError, match="at least 500"):
        build_domain("a", raw, "test", "file", None, strict, out, frames_per_video=2, read_videos=read_videos)
    assert [path.name for path in tmp_path.iterdir()] == [".a.videos"]
    assert len(list((tmp_path / ".a.videos").iterdir())) == PEOPLE
    monkeypatch.setattr("r2m.video.extract.Video", None)
    build_domain("a", raw, "test", "file", None, SETTINGS, out, frames_per_video=2, read_videos=read_videos)
    assert len(rows_of(out)) == 2 * PEOPLE
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_of_broken_videos_is_an_error(domain: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.mp4").write_bytes(b"no video")
    with pytest.raises(R2MError, match="0 usable images"):
        build_domain(
            "a", tmp_path / "raw", "test", "file", None, SETTINGS, tmp_path / "a", read_videos=read_videos
        )
    options = GeneratorOptions(family="FS", images=str(tmp_path / "raw"))
    with pytest.raises(R2MError, match=r"no usable image; first: .*a\.mp4: cannot be read"):
        build_generator("g", options, [domain], SETTINGS, tmp_path / "g")


def test_the_count_is_told(tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = sorted((tree / "original_sequences/youtube/c23/videos").iterdir())[:2]
    with caplog.at_level("INFO", logger=video_folder.__name__):
        read_videos(
            *(files[0].parent, [Path(file.name) for file in files], "a", SETTINGS, 2),
            *(tmp_path / "images", None, tmp_path / "state"),
        )
    assert "a: 4 images of 2 videos, up to 2 of each video, evenly" in caplog.text
