"""Who is on the user's images, through `build_domain` and `build_generator`, on drawn videos and stills."""

import itertools
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2m import manifest
from r2m.data.faces import Settings, build_domain
from r2m.data.naming import ImageClass, shown
from r2m.data.options import FacesOptions
from r2m.errors import R2MError
from r2m.forge.generate import build_generator
from r2m.forge.identify import by_name, identify, objection, unambiguous
from r2m.forge.options import GeneratorOptions
from r2m.forge.user_fakes import columns

SHARES = {"train": 0.5, "val": 0.25, "test": 0.25}
OPTIONS = FacesOptions.model_validate({"detector": "none", "crop_size": 48, "min_images": 2, "split": SHARES})
SETTINGS = Settings(OPTIONS, image_size=32, seed=0)
VIDEOS = [f"{i:03d}" for i in range(24)]
FRAMES = (0, 37, 74)


def draw(path: Path, *seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 255, (48, 48, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def draw_videos(folder: Path, videos: list[str], seed: int, frames: tuple[int, ...] = FRAMES) -> Path:
    for i, video in enumerate(videos):
        for frame in frames:
            draw(folder / video / f"{frame:03d}.png", seed, i, frame)
    return folder


@pytest.fixture(scope="module")
def reals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reals")
    build_domain("ff", draw_videos(root / "raw", VIDEOS, 0), "train", "folder", None, SETTINGS, root / "ff")
    return root / "ff"


def forged(
    name: str, domain: Path, out: Path, trained: tuple[Path, ...] = (), **options: object
) -> tuple[pd.DataFrame, pd.DataFrame]:
    chosen = GeneratorOptions(family="FS", **options)
    build_generator(name, chosen, [domain], SETTINGS, out, [path / "manifest.parquet" for path in trained])
    return manifest.read(out / "manifest.parquet"), pd.read_csv(out / "skipped.csv")


def video_name(rows: pd.DataFrame) -> pd.Series:
    return rows["video"].str.rsplit("/", n=1).str[-1]


def splits_of(rows: pd.DataFrame, by: str) -> int:
    """Return in how many splits the rows of one value of the column `by` are at most."""
    return int(rows.groupby(by)["split"].nunique().max())


def test_the_log_tells_of_videos(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        images = draw_videos(tmp_path / "raw", VIDEOS[:5], 0)
        build_domain("d", images, "test", "folder", None, SETTINGS, tmp_path / "d")
    assert "d: 15 images are frames of 5 videos by their names" in caplog.text


def test_frames_name_their_video(reals: Path) -> None:
    rows = manifest.read(reals / "manifest.parquet")
    assert sorted(set(rows["video"])) == VIDEOS
    assert (rows["video"] == rows["identity"]).all()


def test_a_fake_video_belongs_to_the_person_of_its_own_video(reals: Path, tmp_path: Path) -> None:
    split_of = manifest.read(reals / "manifest.parquet").groupby("identity")["split"].first()
    pairs = [f"{target}_{source}" for target in VIDEOS for source in VIDEOS[::2] if target != source]
    images = draw_videos(tmp_path / "raw", pairs, 1, frames=(0, 37, 50))
    rows, skipped = forged("deepfakes", reals, tmp_path / "out", images=str(images))
    target, source = (video_name(rows).str.split("_").str[k] for k in (0, 1))
    assert (rows["identity"] == target).all()
    assert (rows["split"] == target.map(split_of)).all()
    assert (rows["split"] == source.map(split_of)).all(), "both people of a pair count"
    frame = rows["image_id"].str.rsplit("/", n=1).str[1]
    made_from = ("ff/" + target + "/" + frame).where(frame != "050")
    assert rows["source_image"].equals(made_from.astype("str"))
    assert len(skipped) == 3 * len(pairs) - len(rows) > 0
    assert skipped["reason"].str.contains("people of different splits are on it").all()


def test_an_unseen_generator_keeps_videos_of_test_people_alone(reals: Path, tmp_path: Path) -> None:
    images = draw_videos(tmp_path / "raw", [f"{v}_{v}" for v in VIDEOS] + ["900_901"], 1)
    rows, skipped = forged("g", reals, tmp_path / "out", images=str(images), role="unseen")
    real = manifest.read(reals / "manifest.parquet")
    tested = set(real.loc[real["split"] == "test", "identity"])
    assert {name.split("_")[0] for name in video_name(rows)} == tested | {"900"}
    assert skipped["reason"].str.contains("tested only").all()


def test_strangers_are_in_one_split_whatever_generator_shows_them(reals: Path, tmp_path: Path) -> None:
    made = []
    for name, videos, seed in (("one", range(500, 560), 1), ("two", range(530, 590), 2)):
        images = draw_videos(tmp_path / name / "raw", [f"{v}" for v in videos], seed)
        made.append(forged(name, reals, tmp_path / name / "out", images=str(images))[0])
    rows = pd.concat(made)
    assert splits_of(rows.assign(name=video_name(rows)), "name") == 1
    assert splits_of(rows, "identity") == 1
    assert rows["identity"].nunique() == 90


def test_reals_that_two_generators_bring_are_in_one_split(reals: Path, tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        own = draw_videos(tmp_path / name / "real", [f"{v}" for v in range(500, 540)], 3)
        images = draw_videos(
            tmp_path / name / "fake", [f"{v}" for v in range(500, 540)], len(name) + ord(name[0])
        )
        rows = forged(name, reals, tmp_path / name / "out", images=str(images), reals=str(own))[0]
        assert rows.loc[rows["label"] == 1, "source_image"].notna().all()
        made.append(rows)
    rows = pd.concat(made)
    assert splits_of(rows.assign(name=video_name(rows)), "name") == 1


@pytest.mark.parametrize("own_reals", [True, False])
def test_an_unseen_generator_shows_nobody_that_another_is_trained_on(
    reals: Path, tmp_path: Path, own_reals: bool
) -> None:
    videos = [f"{v}" for v in range(500, 560)]
    own = {"reals": str(draw_videos(tmp_path / "real", videos, 3))} if own_reals else {}
    one, two = (str(draw_videos(tmp_path / name, videos, seed)) for name, seed in (("one", 1), ("two", 2)))
    trained, _ = forged("one", reals, tmp_path / "a", images=one, **own)
    unseen, skipped = forged(
        "two", reals, tmp_path / "b", trained=(tmp_path / "a",), role="unseen", images=two, **own
    )
    assert len(unseen) > 0
    assert splits_of(pd.concat([trained, unseen]).assign(name=lambda rows: video_name(rows)), "name") == 1
    assert skipped["reason"].str.contains("tested only").all()


def test_the_second_on_a_trained_fake_is_unseen_by_nobody(reals: Path, tmp_path: Path) -> None:
    """Whom a trained fake shows second, and no video of her own, is not tested on by another generator."""
    one = draw_videos(tmp_path / "one", [f"{500 + i}_{600 + i}" for i in range(80)], 1)
    two = draw_videos(tmp_path / "two", [f"{600 + i}_{600 + i}" for i in range(80)], 2)
    trained, _ = forged("one", reals, tmp_path / "a", images=str(one))
    unseen, _ = forged("two", reals, tmp_path / "b", (tmp_path / "a",), role="unseen", images=str(two))
    second = set(video_name(trained[trained["split"] != "test"]).str.split("_").str[1])
    assert second
    assert not second & set(video_name(unseen).str.split("_").str[0])
    assert splits_of(pd.concat([trained, unseen]), "identity") == 1


def test_stills_of_an_unseen_generator_may_have_numbers_that_another_has(reals: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        for i in range(60):
            draw(tmp_path / name / f"{i:05d}.png", seed, i)
    trained, _ = forged("one", reals, tmp_path / "a", images=str(tmp_path / "one"))
    unseen, skipped = forged(
        "two", reals, tmp_path / "b", (tmp_path / "a",), role="unseen", images=str(tmp_path / "two")
    )
    assert len(unseen) == 60
    assert skipped.empty
    assert splits_of(pd.concat([trained, unseen]), "identity") == 1


def test_all_videos_of_a_person_by_name_are_of_the_one_whom_some_frames_show(
    reals: Path, tmp_path: Path
) -> None:
    """One frame of the first video copies a known real: the second video is of that person, too."""
    for i in range(40):
        for video in range(2):
            draw_videos(tmp_path / "real", [f"id{i}_{video:04d}"], 10 * i + video)
        if i < len(VIDEOS):
            shutil.copy(reals.parent / "raw" / VIDEOS[i] / "037.png", tmp_path / f"real/id{i}_0000/037.png")
    images = draw_videos(tmp_path / "fake", [f"id{i}_id{i}_0000" for i in range(40)], 7)
    rows, _ = forged("g", reals, tmp_path / "out", images=str(images), reals=str(tmp_path / "real"))
    person = video_name(rows).str.split("_").str[0]
    assert splits_of(rows.assign(person=person), "person") == 1
    assert rows.assign(person=person).groupby("person")["identity"].nunique().max() == 1


def test_the_second_person_is_where_her_own_video_is() -> None:
    """No name is known, but one frame of each video is a copy that tells who was filmed first."""
    splits = {f"person{i}": ("train", "val", "test")[i % 3] for i in range(24)}
    known = table([Path(f"{name}.png") for name in splits], list(splits), "real")
    known = known.assign(
        image_id=list(splits), identity=list(splits), split=list(splits.values()), named=True
    )
    pairs = [(t, s) for t in range(24) for s in range(24) if t != s]
    files = [Path(f"9{t:02d}_9{s:02d}/{frame}.png") for t, s in pairs for frame in range(2)]
    copies = [f"person{t}" if frame else f"{t} {s}" for t, s in pairs for frame in range(2)]
    rows = identify(table(files, copies, "fake"), known, "train", SETTINGS)
    target, source = (np.repeat([splits[f"person{pair[k]}"] for pair in pairs], 2) for k in (0, 1))
    assert (rows["split"] == target).all()
    assert (rows["objection"].isna() == (target == source)).all()


def table(files: list[Path], digests: list[str], image_class: ImageClass) -> pd.DataFrame:
    """Return images as `identify` takes them, without faces."""
    faces = pd.Series([np.empty(0, np.float32)] * len(files), dtype=object)
    described = pd.DataFrame({"file": files, "digest": digests, "embedding": faces})
    described["image_id"] = [f"g/{file}" for file in files]
    return described.assign(**columns(list(shown(files, image_class).values())))


def test_stills_called_after_a_pair_of_stills(tmp_path: Path) -> None:
    for i in range(24):
        draw(tmp_path / f"raw/{i:03d}.png", 0, i)
        for j in range(0, 24, 4):
            draw(tmp_path / f"fakes/{i:03d}_{j:03d}.png", 1, i, j)
    build_domain("d", tmp_path / "raw", "train", "file", None, SETTINGS, tmp_path / "d")
    rows, skipped = forged("g", tmp_path / "d", tmp_path / "out", images=str(tmp_path / "fakes"))
    split_of = manifest.read(tmp_path / "d/manifest.parquet").groupby("identity")["split"].first()
    names = rows["image_id"].str.split("/").str[1].str.split("_")
    assert (rows["source_image"] == "d/" + names.str[0]).all()
    assert (rows["split"] == names.str[0].map(split_of)).all()
    assert (rows["split"] == names.str[1].map(split_of)).all()
    assert skipped["reason"].str.contains("different splits").all()


def test_a_video_name_of_several_people_makes_no_frame_theirs(tmp_path: Path) -> None:
    for i in range(24):
        draw_videos(tmp_path / f"raw/per{i:02d}", ["000"], i, frames=(i, 100 + i))
    images = draw_videos(
        tmp_path / "fakes", ["000", "001", "002"] + [f"x{i}" for i in range(60)], 99, tuple(range(24))
    )
    build_domain("d", tmp_path / "raw", "train", "folder", None, SETTINGS, tmp_path / "d", frames=True)
    rows, _ = forged("g", tmp_path / "d", tmp_path / "out", images=str(images))
    assert splits_of(rows, "video") == 1


def test_what_is_left_out_is_told_when_too_little_is_left(
    reals: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [f"{target}_{source}" for target, source in itertools.pairwise(VIDEOS[:4])]
    images = draw_videos(tmp_path / "raw", pairs, 1)
    with caplog.at_level("INFO"), pytest.raises(R2MError, match="usable images in the split"):
        forged("g", reals, tmp_path / "out", images=str(images))
    assert "g: " in caplog.text


def test_own_reals_that_copy_the_domains_keep_its_people(reals: Path, tmp_path: Path) -> None:
    own = tmp_path / "real"
    shutil.copytree(reals.parent / "raw", own / "of_mine")
    images = draw_videos(tmp_path / "fake", VIDEOS, 4)
    rows = forged("g", reals, tmp_path / "out", images=str(images), reals=str(own))[0]
    known = manifest.read(reals / "manifest.parquet").groupby("identity")["split"].first()
    assert (rows["split"] == rows["identity"].map(known)).all()


def test_copies_of_reals_are_no_fakes(reals: Path, tmp_path: Path) -> None:
    images = draw_videos(tmp_path / "raw", VIDEOS, 5)
    shutil.copy(reals.parent / "raw/003/037.png", images / "003/037.png")
    rows, skipped = forged("g", reals, tmp_path / "out", images=str(images))
    assert list(skipped["reason"]) == ["byte-identical to a real photograph: ff/003/037"]
    assert "g/003/037" not in set(rows["image_id"])
    assert not (tmp_path / "out/images/003/037.jpg").exists()
    shutil.copytree(reals.parent / "raw", tmp_path / "copies")
    with pytest.raises(R2MError, match=r"no usable image.*byte-identical to a real photograph"):
        forged("g", reals, tmp_path / "none", images=str(tmp_path / "copies"))


def test_a_still_in_the_folder_of_a_known_person_is_of_that_person(tmp_path: Path) -> None:
    for i in range(24):
        draw(tmp_path / f"raw/person{i}/portrait{i}.png", 0, i)
        draw(tmp_path / f"fakes/person{i}/other{i}.png", 1, i)
    build_domain("d", tmp_path / "raw", "train", "folder", None, SETTINGS, tmp_path / "d")
    rows, _ = forged("g", tmp_path / "d", tmp_path / "out", images=str(tmp_path / "fakes"))
    known = manifest.read(tmp_path / "d/manifest.parquet").set_index("identity")["split"]
    assert list(rows["split"]) == list(known.loc[rows["identity"]])
    assert rows["source_image"].isna().all()


def test_copies_within_a_domain_are_one_person(tmp_path: Path) -> None:
    for i in range(24):
        draw(tmp_path / f"raw/{chr(97 + i)}/x.png", 0, i)
        (tmp_path / f"raw/{chr(97 + i)}_again").mkdir()
        shutil.copy(tmp_path / f"raw/{chr(97 + i)}/x.png", tmp_path / f"raw/{chr(97 + i)}_again/y.png")
    for identity in ("folder", "file"):
        build_domain("d", tmp_path / "raw", "train", identity, None, SETTINGS, tmp_path / identity)
        rows = manifest.read(tmp_path / identity / "manifest.parquet")
        assert splits_of(rows.assign(letter=rows["image_id"].str.split("/").str[1].str[0]), "letter") == 1
        assert rows["identity"].nunique() == 24


def test_two_compressions_of_a_video_are_one_person(tmp_path: Path) -> None:
    for k, level in enumerate(("c23", "c40")):
        draw_videos(tmp_path / "raw" / level / "frames", VIDEOS, k)
    build_domain("d", tmp_path / "raw", "train", "folder", None, SETTINGS, tmp_path / "d")
    rows = manifest.read(tmp_path / "d/manifest.parquet")
    assert sorted(set(rows["identity"])) == VIDEOS
    assert rows["video"].nunique() == 2 * len(VIDEOS)


def test_frames_of_forged_videos_name_their_video(reals: Path, tmp_path: Path) -> None:
    rows, _ = forged("sbi", reals, tmp_path / "out", forge="sbi")
    assert sorted(set(rows["video"])) == VIDEOS


@pytest.mark.parametrize("identity", ["file", "folder"])
def test_a_limited_choice_of_frames_is_still_of_videos(tmp_path: Path, identity: str) -> None:
    for i, video in enumerate(VIDEOS):
        draw_videos(tmp_path / "raw", [video], i, frames=(0, 10 * i + 5, 10 * i + 7))
    build_domain("d", tmp_path / "raw", "train", identity, 30, SETTINGS, tmp_path / "d")
    rows = manifest.read(tmp_path / "d/manifest.parquet")
    assert len(rows) == 30
    assert rows["video"].notna().all()
    assert splits_of(rows, "video") == 1


def test_the_users_word_on_frames(tmp_path: Path) -> None:
    images = draw_videos(tmp_path / "raw", VIDEOS, 0)
    build_domain("d", images, "train", "file", None, SETTINGS, tmp_path / "d", frames=False)
    rows = manifest.read(tmp_path / "d/manifest.parquet")
    assert rows["video"].isna().all()
    assert rows["identity"].nunique() == len(rows)
    build_domain("d", images, "train", "file", None, SETTINGS, tmp_path / "d")
    assert manifest.read(tmp_path / "d/manifest.parquet")["identity"].nunique() == len(VIDEOS)


@pytest.mark.parametrize(
    ("split", "others", "role", "expected"),
    [
        ("train", {}, "train", None),
        ("train", {"b": "train"}, "train", None),
        ("train", {"b": "test"}, "train", "people of different splits are on it: 'train' and 'test' (b)"),
        ("test", {"b": "test"}, "unseen", None),
        ("val", {}, "unseen", "tested only"),
        ("test", {"b": "val"}, "unseen", "different splits"),
    ],
)
def test_objections(split: str, others: dict[str, str], role: str, expected: str | None) -> None:
    text = objection(split, others, role)
    assert text is None if expected is None else expected in text


@given(st.lists(st.tuples(st.none() | st.sampled_from("abc"), st.integers(0, 2))))
def test_labels_of_several_values_are_ambiguous(pairs: list[tuple[str | None, int]]) -> None:
    labels = [label for label, _ in pairs]
    values = pd.Series([value for _, value in pairs], dtype=object)
    chosen = unambiguous(labels, np.arange(len(pairs)), values)
    for label in set(labels) - {None}:
        its = {value for other, value in pairs if other == label}
        assert chosen.get(label) == (labels.index(label) if len(its) == 1 else None)


def test_a_name_alone_pairs_nothing_across_folders() -> None:
    assert by_name(["b/587"], ["a/587"]).tolist() == [-1]
