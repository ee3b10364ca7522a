import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from dataset_samples import Video, alone, draw, reals, swapped, synthesized, write_index
from r2m import manifest
from r2m.data.faces import Settings, read_landmarks
from r2m.data.images import read_image
from r2m.data.options import FacesOptions
from r2m.datasets import stages
from r2m.datasets.options import DatasetOptions
from r2m.datasets.slices import read_index
from r2m.errors import R2MError
from r2m.forge.generate import build_generator
from r2m.forge.options import GeneratorOptions
from r2m.params import parse
from r2m.report.figures.contact_sheet import draw_contact_sheet
from r2m.seeding import rng
from r2m.train.sampling.samplers import PairSampler
from r2m.video.extract import VideoFaces

VIDEOS = [*reals(), *swapped("simswap"), *synthesized("ddim"), *alone("heygen")]
PARAMS = parse(
    {
        "datasets": {"df40": {"index": "df40.parquet", "root": "df40", "frames": 2}},
        "domains": {
            "ff": {"dataset": "df40", "role": "train"},
            "cdf": {"dataset": "df40", "role": "test"},
        },
        "generators": {
            "simswap": {"family": "FS", "dataset": "df40"},
            "ddim": {"family": "EFS", "dataset": "df40"},
            "heygen": {"family": "FR", "dataset": "df40", "role": "unseen"},
        },
        "faces": {"detector": "none", "crop_size": 48, "min_images": 2},
        "backbone": {"image_size": 32},
        "merge": {"methods": {"weight_averaging": {}}},
    }
)
COMMON = {
    "root": Path("df40"),
    "faces": PARAMS.faces,
    "image_size": 32,
    "seed": 0,
    "detector": None,
    "embedder": None,
    "state": Path("state"),
    "threads": 1,
}


@dataclass(frozen=True)
class Sets:
    """Image sets that the stages write below the folder that the test runs in."""

    options: DatasetOptions = PARAMS.datasets["df40"]

    def reals(self, domain: str) -> pd.DataFrame:
        (part,) = PARAMS.parts_of(domain)
        out = Path("results/faces", domain)
        stages.reals(domain=domain, options=self.options, part=part, out=out, **COMMON)
        return manifest.read(out / "manifest.parquet")

    def fakes(self, generator: str, is_trained: bool | None = None) -> pd.DataFrame:
        options = PARAMS.generators[generator]
        is_trained = options.role == "train" if is_trained is None else is_trained
        out = Path("results/forged", generator)
        stages.fakes(
            generator=generator,
            family=options.family,
            is_trained=is_trained,
            options=self.options,
            parts=PARAMS.parts_of(generator, as_trained=is_trained),
            domains={name: Path(f"results/faces/{name}/manifest.parquet") for name in PARAMS.domains},
            out=out,
            **COMMON,
        )
        return manifest.read(out / "manifest.parquet")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    draw(folder / "df40", write_index(folder / "df40.parquet", folder / "gone", VIDEOS))
    return folder


@pytest.fixture
def sets(tree, tmp_path, monkeypatch):
    """The stages in a folder with the data set in it."""
    (tmp_path / "df40").symlink_to(tree / "df40")
    shutil.copyfile(tree / "df40.parquet", tmp_path / "df40.parquet")
    monkeypatch.chdir(tmp_path)
    return Sets()


@pytest.fixture
def known(sets):
    """The same with the reals of both domains."""
    sets.reals("ff")
    sets.reals("cdf")
    return sets


def listed(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def test_crops_are_read_where_they_lie(sets):
    rows = sets.reals("ff")
    assert rows["path"].iloc[0] == "df40/FaceForensics++/frames/000/007.png"
    assert rows["image_id"].iloc[0] == "ff/FaceForensics++/frames/000/007"
    assert all(Path(path).is_file() for path in rows["path"])
    assert listed("results/faces/ff") == [
        *(
            "crops/elsewhere.csv",
            "images/elsewhere.csv",
            "landmarks.parquet",
            "manifest.parquet",
            "skipped.csv",
        )
    ]
    noted = pd.read_csv("results/faces/ff/images/elsewhere.csv")
    assert noted["path"].tolist() == sorted(rows["path"])
    assert set(noted["bytes"]) == {1000}


def test_reals_keep_splits_people_and_the_policy(sets):
    rows = sets.reals("ff")
    assert Counter(rows["split"]) == {"train": 8, "val": 4, "test": 8}
    assert set(rows.loc[rows["split"] == "val", "identity"]) == {"004", "005"}
    assert set(rows["frame"]) == {"7", "21"}, "the middles of two halves of four frames"
    assert set(rows["sampling"]) == {"up to 2 of each video, evenly"}
    assert set(rows["generator"]) == {"real"}
    test = sets.reals("cdf")
    assert set(test["split"]) == {"test"}
    assert set(test["domain"]) == {"cdf"}


def test_all_frames(sets):
    rows = Sets(sets.options.model_copy(update={"frames": None})).reals("ff")
    assert Counter(rows["video"])["000"] == 4
    assert rows["sampling"].isna().all()


def test_a_test_domain_without_a_test_split_is_tested_whole(sets):
    videos = [Video(v.folder, v.name, v.method, v.family, v.domain, "train", v.people) for v in reals()]
    write_index(Path("df40.parquet"), Path("df40"), videos)
    assert set(sets.reals("cdf")["split"]) == {"test"}


def test_too_few_images_of_a_split_leave_nothing_behind(sets):
    write_index(Path("df40.parquet"), Path("df40"), [one for one in VIDEOS if one.split != "val"])
    with pytest.raises(R2MError, match=r"domains\.ff: 0 usable images in the split 'val'"):
        sets.reals("ff")
    assert not Path("results/faces/ff").exists()


def test_fakes_of_a_trained_generator(known):
    rows = known.fakes("simswap")
    counts = rows.groupby("domain")["split"].value_counts().to_dict()
    assert counts == {("ff", "train"): 8, ("ff", "val"): 4, ("ff", "test"): 8, ("cdf", "test"): 8}
    assert set(rows["family"]) == {"FS"}
    sources = dict(zip(rows["image_id"], rows["source_image"], strict=True))
    assert sources["simswap/DF40/simswap/ff/frames/000_001/007"] == "ff/FaceForensics++/frames/000/007"
    assert rows["source_image"].notna().all()
    people = dict(zip(rows["video"], rows["identity"], strict=True))
    assert people["000_001"] == "000"
    assert people["id0_id1_0000"] == "id0"
    assert listed("results/forged/simswap") == ["images/elsewhere.csv", "manifest.parquet", "skipped.csv"]


def test_fakes_of_an_unseen_generator_are_tested_only(known):
    rows = known.fakes("simswap", is_trained=False)
    assert rows.groupby("domain")["split"].value_counts().to_dict() == {("ff", "test"): 8, ("cdf", "test"): 8}


def test_own_reals_come_with_their_generator(known):
    rows = known.fakes("heygen")
    assert set(rows["domain"]) == {"heygen"}
    assert Counter(rows["label"]) == {0: 6, 1: 6}
    assert set(rows["split"]) == {"test"}
    assert set(rows["identity"]) == {"heygen/a", "heygen/b", "heygen/c"}
    fakes = rows[rows["label"] == 1].set_index("image_id")
    assert fakes.loc["heygen/DF40/heygen/fake/a/007", "source_image"] == "heygen/DF40/heygen/real/a/007"
    assert set(fakes["family"]) == {"FR"}
    assert set(rows.loc[rows["label"] == 0, "family"]) == {"real"}


def test_reals_that_methods_share_are_counted_once(known):
    """A manifest of all sets is checked for images that stand in it twice."""
    sets = [manifest.read(f"results/faces/{name}/manifest.parquet") for name in PARAMS.domains]
    sets += [known.fakes("simswap"), known.fakes("ddim")]
    rows = manifest.concat(sets)
    real = rows[rows["label"] == 0]
    assert len(real) == 2 * len(reals())
    assert real["path"].is_unique
    fakes = rows[(rows["label"] == 1) & (rows["split"] == "train")].reset_index(drop=True)
    trained = real[real["split"] == "train"].reset_index(drop=True)
    assert Counter(fakes["generator"]) == {"simswap": 8, "ddim": 8}
    for _, batch in PairSampler(fakes, trained, 4, 0, "joint").batches(0, 4):
        assert Counter(batch["label"]) == {0: 4, 1: 4}, "one real a fake, whatever number of methods share it"
        assert batch["source_image"][:4].tolist() == batch["image_id"][4:].tolist()


def test_encoded_crops_are_as_all_other_images(sets):
    rows = Sets(sets.options.model_copy(update={"encode": "jpeg"})).reals("ff")
    assert rows["path"].iloc[0] == "results/faces/ff/images/FaceForensics++/frames/000/007.jpg"
    assert cv2.imread(rows["path"].iloc[0]).shape == (32, 32, 3)
    assert rows["digest"].iloc[0] == read_image(Path("df40/FaceForensics++/frames/000/007.png"))[1]
    crops = read_landmarks(Path("results/faces/ff/landmarks.parquet"))["crop"]
    assert cv2.imread(crops.iloc[0]).shape == (48, 48, 3)
    assert not [name for name in listed("results/faces/ff") if "elsewhere" in name]


def test_a_file_that_is_gone_is_a_row_of_the_skipped_where_it_is_read(sets):
    rows = Video("FaceForensics++/frames", "000", split="train", people=("000",)).rows([99])
    write_index(Path("df40.parquet"), Path("df40"), VIDEOS, rows)
    taken = Sets(sets.options.model_copy(update={"encode": "jpeg", "frames": None})).reals("ff")
    skipped = pd.read_csv("results/faces/ff/skipped.csv")
    assert skipped["path"].tolist() == ["df40/FaceForensics++/frames/000/099.png"]
    assert len(taken) == 40


def test_a_contact_sheet_of_crops_of_other_sizes(known):
    rows = known.fakes("simswap")
    real = manifest.read("results/faces/ff/manifest.parquet").iloc[:1]
    image = cv2.imread(real["path"].iloc[0])
    cv2.imwrite("large.png", cv2.resize(image, (64, 64)))
    fakes = rows[rows["source_image"] == real["image_id"].iloc[0]]
    figure = draw_contact_sheet(fakes, real.assign(path="large.png"), "x", rng(0), n=1)
    assert len(figure.axes) == 3


@pytest.mark.parametrize("encode", ["none", "jpeg"])
def test_built_in_forgeries_of_such_reals(sets, encode):
    """They are of the size of the reals in place, and no more encoded than these."""
    own = Sets(sets.options.model_copy(update={"encode": encode}))
    own.reals("ff")
    settings = Settings(FacesOptions(detector="none", crop_size=48), 32, 0)
    options = GeneratorOptions(family="FS", forge="swap")
    build_generator("swap", options, [Path("results/faces/ff")], settings, Path("results/forged/swap"))
    rows = manifest.read("results/forged/swap/manifest.parquet")
    assert len(rows) == 20
    assert {Path(path).suffix for path in rows["path"]} == {".png" if encode == "none" else ".jpg"}
    assert set(rows["sampling"]) == {"up to 2 of each video, evenly"}
    fake, real = (
        cv2.imread(path).astype(int)
        for path in (rows["path"].iloc[0], "df40/FaceForensics++/frames/000/007.png")
    )
    assert fake.shape == real.shape
    if encode == "none":
        assert (fake[0] == real[0]).all(), "above the face it is the real, bit by bit"


def test_faces_of_videos(sets, monkeypatch):
    """A face that is followed is a video of its own; two files of one name are told apart."""
    rows = [
        {**row, "media": "video", "frame": None, "path": path}
        for path, video in (("clips/a.mp4", "a"), ("clips/a.avi", "a2"), ("clips/b.mp4", "b"))
        for row in Video("clips", video, domain="cdf", people=(video,)).rows([0])
    ]
    write_index(Path("df40.parquet"), Path("df40"), [one for one in VIDEOS if one.domain != "cdf"], rows)
    asked = {}

    def extract(videos, settings, options, prefix, images, crops, state):
        asked["names"] = [(one.path.as_posix(), one.name) for one in videos]
        asked["options"] = options
        found = []
        for one in videos[:2]:
            for track in (0, 1):
                file = f"{one.name}/track{track}/3.png"
                (images / file).parent.mkdir(parents=True)
                cv2.imwrite(str(images / file), np.zeros((48, 48, 3), np.uint8))
                found.append(
                    {
                        "image_id": f"{prefix}/{file.removesuffix('.png')}",
                        "file": file,
                        "video": f"{one.name}/track{track}",
                        "frame": 3,
                        "track": track,
                        "digest": "d",
                        "landmarks": np.zeros((5, 2), np.float32),
                        "embedding": np.ones(4, np.float32),
                    }
                )
        return VideoFaces(pd.DataFrame(found), [("df40/clips/b.mp4", "no face")])

    monkeypatch.setattr(stages, "extract_videos", extract)
    taken = Sets(sets.options.model_copy(update={"faces": "all"})).reals("cdf")
    assert asked["names"] == [
        ("df40/clips/a.mp4", "clips/a.mp4"),
        ("df40/clips/a.avi", "clips/a.avi"),
        ("df40/clips/b.mp4", "clips/b"),
    ]
    assert (asked["options"].frames, asked["options"].faces) == (2, "all")
    assert set(taken["video"]) == {"a/track0", "a/track1", "a2/track0", "a2/track1"}
    assert dict(zip(taken["video"], taken["identity"], strict=True))["a2/track1"] == "a2"
    assert set(taken["frame"]) == {"3"}
    assert all(Path(path).is_file() for path in taken["path"])
    assert pd.read_csv("results/faces/cdf/skipped.csv")["reason"].tolist() == ["no face"]
    crops = read_landmarks(Path("results/faces/cdf/landmarks.parquet"))["crop"]
    assert sorted(crops) == sorted(taken["path"])


def test_people_of_a_test_domain_that_an_experiment_trains_on(known):
    rows = manifest.read("results/faces/cdf/manifest.parquet")
    rows["split"] = rows["split"].mask(rows["identity"].isin(["id0", "id1"]), "train")
    manifest.write(rows, "results/faces/cdf/manifest.parquet")
    fakes = known.fakes("simswap")
    splits = fakes[fakes["domain"] == "cdf"].drop_duplicates("video").set_index("video")["split"].to_dict()
    assert splits == {"id0_id1_0000": "train", "id2_id3_0000": "test"}
    skipped = pd.read_csv("results/forged/simswap/skipped.csv")
    assert skipped["reason"].str.startswith("people of different splits").all()
    assert len(skipped) == 4


def test_a_digest_by_rows_is_that_by_what_is_known_of_the_index(sets):
    """The workflow compares both, and would make the image set again and again."""
    known, options = read_index("df40.parquet"), sets.options.as_taken()
    for name in PARAMS.dataset_of:
        parts = PARAMS.parts_of(name)
        stages.slice_digest(options=options, parts=parts, digest=Path("digest"))
        assert Path("digest").read_text() == f"{known.digest(parts, options)}\n"


def test_image_sets_of_no_data_set(sets):
    stages.no_slices(names=["celeba", "swap"], out=Path("slices"))
    assert {path.name: path.read_text() for path in Path("slices").iterdir()} == {
        "celeba": "none\n",
        "swap": "none\n",
    }


def test_validation_notes_the_rows_that_its_report_is_of(sets):
    arguments = {"contents": False, "allow_leakage": False, "cache": Path("cache"), "name": "df40"}
    places = {"index": Path("df40.parquet"), "root": Path("df40"), "out": Path("report")}
    stages.validate(**arguments, **places, trained=["ff"], threads=1)
    assert listed("report") == ["index.txt", "report.html", "report.json"]
    assert Path("report/index.txt").read_text() == f"{read_index('df40.parquet').state()}\n"
