"""Index files as DeepfakeBench and DF40 write them."""

import os

import pytest

from index_trees import FRAMES, df40, indexed, put, reasons, row, video, write_json
from r2m.errors import R2MError

PREFIX = "deepfakes_detection_datasets"
YOUTUBE = "FaceForensics++/original_sequences/youtube/c23/frames"


def entry(label, folder, frames=FRAMES, **more):
    return {"label": label, "frames": [f"{folder}/{frame}" for frame in frames], **more}


def of_video(label, listed):
    return {"a": {label: {"train": {"v": listed}}}}


def simswap(prefix=PREFIX, method="simswap"):
    """The index of one method on `ff`, with two reals."""
    fakes = f"{prefix}/DF40/{method}/ff/frames"
    reals = f"{prefix}/{YOUTUBE}"
    return {
        f"{method}_ff": {
            f"{method}_Real": {
                "train": {"000": entry(f"{method}_Real", f"{reals}/000")},
                "val": {"001": entry(f"{method}_Real", f"{reals}/001")},
                "test": {"005": entry(f"{method}_Real", f"{reals}/005")},
            },
            f"{method}_Fake": {
                "train": {"000_003": entry(f"{method}_Fake", f"{fakes}/000_003")},
                "val": {"001_870": entry(f"{method}_Fake", f"{fakes}/001_870")},
                "test": {},
            },
        }
    }


@pytest.fixture
def sets(tmp_path):
    tree = df40(tmp_path / "sets/DF40")
    for name in ("000", "001", "005"):
        video(tree.parent, f"{YOUTUBE}/{name}")
    return tree.parent


def test_an_index_of_one_method(sets, tmp_path):
    path = write_json(tmp_path / "simswap_ff.json", simswap())
    frame, skipped = indexed(path, root=sets)
    assert not skipped
    assert frame.drop_duplicates("video").set_index("video")["split"].to_dict() == {
        "000": "train",
        "001": "val",
        "005": "test",
        "000_003": "train",
        "001_870": "val",
    }
    assert set(frame["split_by"]) == {"official"}
    real = row(frame, f"{YOUTUBE}/000/012.png")
    assert (real["method"], real["domain"], real["dataset"]) == ("real", "ff", "FaceForensics++")
    assert (real["compression"], real["identity"], real["frame"]) == ("c23", "ff/000", 12)
    fake = row(frame, "DF40/simswap/ff/frames/000_003/000.png")
    assert (fake["method"], fake["family"], fake["domain"], fake["dataset"]) == (
        "simswap",
        "FS",
        "ff",
        "DF40",
    )


@pytest.mark.parametrize(
    "prefix",
    [
        f"./{PREFIX}",
        "/Youtu_Security/public/someone/deepfakes_detection_datasets",
        "",
        r"D:\data\sets",
    ],
)
def test_prefixes_of_other_machines(sets, tmp_path, prefix):
    content = simswap(prefix)
    for labels in content.values():
        for splits in labels.values():
            for videos in splits.values():
                for listed in videos.values():
                    if "\\" in prefix:
                        listed["frames"] = [file.replace("/", "\\") for file in listed["frames"]]
    frame, skipped = indexed(write_json(tmp_path / "x.json", content), root=sets)
    assert not skipped
    assert len(frame) == 15


def test_names_that_differ_from_the_disk(sets, tmp_path):
    folders = {
        "simswap_Fake": "x/df40/SimSwap/CDFv2/Frames/id0_id16_0003",
        "StyleGAN3_Fake": f"{PREFIX}/DF40/StyleGAN3/cdf/Celeb-real/id0_0001",
        "heygen_Fake": f"{PREFIX}/DF40/heygen/fake/frames/v1",
    }
    content = {
        "mixed": {label: {"test": {"v": entry(label, folder)}} for label, folder in folders.items()}
        | {
            "StyleGAN3_Fake": {
                "test": {
                    "v": entry("StyleGAN3_Fake", folders["StyleGAN3_Fake"]),
                    "y": entry("StyleGAN3_Fake", f"{PREFIX}/DF40/StyleGAN3/cdf/YouTube-real/00012"),
                }
            },
            "stargan_Fake": {"test": {"000012": entry("stargan_Fake", "DF40/stargan/fake", ["000012.jpg"])}},
            "whichisreal_Fake": {
                "test": {"1": entry("whichisreal_Fake", "DF40/whichfaceisreal/fake", ["1.jpeg"])}
            },
            "whichisreal_Real": {
                "test": {"2": entry("whichisreal_Real", "DF40/whichfaceisreal/real", ["2.jpeg"])}
            },
        }
    }
    frame, skipped = indexed(write_json(tmp_path / "mixed.json", content), root=sets)
    assert not skipped
    assert row(frame, "DF40/simswap/cdf/frames/id0_id16_0003/000.png")["domain"] == "cdf"
    assert row(frame, "DF40/StyleGAN3/cdf/Fake_from_Celeb-real/id0_0001/000.png")["identity"] == "cdf/id0"
    assert row(frame, "DF40/StyleGAN3/cdf/Fake_from_Youtube-real/00012/000.png")["video"] == "00012"
    assert row(frame, "DF40/heygen/heygen_new/fake/frames/v1/000.png")["domain"] == "heygen"
    photograph = row(frame, "DF40/stargan/fake/fake/000012.jpg")
    assert (photograph["method"], photograph["domain"]) == ("stargan", "stargan")
    assert photograph[["video"]].isna().all()
    fake = row(frame, "DF40/Whichisreal/Whichisreal/fake/1.jpeg")
    assert (fake["label"], fake["method"]) == (1, "whichisreal")
    real = row(frame, "DF40/Whichisreal/Whichisreal/real/2.jpeg")
    assert (real["label"], real["method"], real["domain"]) == (0, "real", "whichisreal")


def test_aggregates_count_nothing_twice(sets, tmp_path):
    single = simswap()
    paths = [write_json(tmp_path / "simswap_ff.json", single)]
    labels = single["simswap_ff"]
    for name, stem in (("FSAll_ff", "FSAll"), ("DF40_all", "DF40_train")):
        renamed = {}
        for label, splits in labels.items():
            new = label.replace("simswap", stem)
            renamed[new] = {
                split: {video: {**listed, "label": new} for video, listed in videos.items()}
                for split, videos in splits.items()
            }
        paths.append(write_json(tmp_path / f"{name}.json", {name: renamed}))
    frame, skipped = indexed(*paths, root=sets)
    alone, _ = indexed(paths[0], root=sets)
    assert not skipped
    assert frame.equals(alone)


def test_a_tree_and_its_index_are_one_and_the_index_gives_the_split(sets, tmp_path):
    path = write_json(tmp_path / "simswap_ff.json", simswap())
    frame, _ = indexed(sets, path, root=sets)
    assert not frame["path"].duplicated().any()
    assert row(frame, "DF40/simswap/ff/frames/000_003/000.png")["split"] == "train"
    assert row(frame, "DF40/simswap/ff/frames/003_000/000.png")["split_by"] == "identity"
    assert row(frame, "DF40/simswap/ff/frames/001_870/000.png")["split"] == "val"


def test_levels_masks_and_labels_of_faceforensics(tmp_path):
    root = tmp_path / "sets"
    folder = "FaceForensics++/manipulated_sequences/Deepfakes"
    for level in ("c23", "c40"):
        video(root, f"{folder}/{level}/frames/000_003")
    video(root, f"{folder}/c23/masks/000_003")
    masks = [f"{folder}/c23/masks/000_003/{frame}" for frame in FRAMES]
    fakes = {
        level: {"000_003": entry("FF-DF", f"{folder}/{level}/frames/000_003", masks=masks)}
        for level in ("c23", "c40")
    }
    content = {"FF-DF": {"FF-DF": {"train": fakes, "val": {"c23": {}}, "test": {"c23": {}, "c40": {}}}}}
    frame, _ = indexed(write_json(tmp_path / "FF-DF.json", content), root=root)
    assert set(frame["method"]) == {"ff_deepfakes"}
    assert frame["compression"].value_counts().to_dict() == {"c23": 3, "c40": 3}
    assert row(frame, f"{folder}/c40/frames/000_003/012.png")["mask"] == f"{folder}/c23/masks/000_003/012.png"


def test_a_video_in_all_splits_is_tested_on(tmp_path):
    root = tmp_path / "sets"
    folder = "FaceForensics++/manipulated_sequences/DeepFakeDetection/c23/frames/01_02__hug__ABCDEFGH"
    video(root, folder)
    splits = {
        split: {"c23": {"01_02__hug__ABCDEFGH": entry("DFD_fake", folder)}}
        for split in ("train", "val", "test")
    }
    frame, _ = indexed(
        write_json(tmp_path / "dfd.json", {"DeepFakeDetection": {"DFD_fake": splits}}), root=root
    )
    assert len(frame) == 3
    assert set(frame["split"]) == {"test"}
    assert set(frame["domain"]) == {"dfd"}


def test_a_val_that_is_a_copy_of_train_tells_nothing(tmp_path):
    root = tmp_path / "sets"
    videos = {}
    for number in range(40):
        folder = f"DFDC/train/dfdc_train_part_0/frames/v{number:02}"
        video(root, folder, ["0.png"])
        videos[f"v{number:02}"] = entry("DFDC_Fake", folder, ["0.png"])
    content = {"DFDC": {"DFDC_Fake": {"train": videos, "val": videos, "test": {}}}}
    frame, _ = indexed(write_json(tmp_path / "DFDC.json", content), root=root)
    assert set(frame["split"]) == {"train", "val"}
    assert set(frame["method"]) == {"dfdc_fake"}


def test_missing_files_are_counted_and_none_is_an_error(sets, tmp_path):
    content = simswap()
    (sets / "DF40/simswap/ff/frames/000_003/012.png").unlink()
    content["simswap_ff"]["simswap_Fake"]["test"] = {
        "990_991": entry("simswap_Fake", "DF40/simswap/ff/frames/990_991")
    }
    content["simswap_ff"]["simswap_Fake"]["test"]["x"] = {"label": "simswap_Fake", "frames": []}
    path = write_json(tmp_path / "simswap_ff.json", content)
    frame, skipped = indexed(path, root=sets)
    assert len(frame) == 14
    assert reasons(skipped) == {"listed, and not there": 4, "a video without frames": 0}
    one = next(item for item in skipped if item.files == 1)
    assert one.file.endswith("000_003/012.png")
    assert one.key == "simswap_ff.json: simswap_ff.simswap_Fake.train.000_003"
    (tmp_path / "empty").mkdir()
    with pytest.raises(R2MError, match=r"none of its 18 files is there, such as .*; looked below .*--root"):
        indexed(path, root=tmp_path / "empty")


def test_files_of_another_method_are_no_substitute(tmp_path):
    video(tmp_path, "blendface/ff/frames/000_003")
    content = {
        "simswap_ff": {
            "simswap_Fake": {"train": {"000_003": entry("simswap_Fake", "DF40/simswap/ff/frames/000_003")}}
        }
    }
    path = write_json(tmp_path / "x.json", content)
    with pytest.raises(R2MError, match="none of its 3 files is there"):
        indexed(path, root=tmp_path / "blendface")
    os.rename(tmp_path / "blendface", tmp_path / "simswap")
    frame, _ = indexed(path, root=tmp_path / "simswap")
    assert len(frame) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "no index of DeepfakeBench; expected .*got list"),
        ({"a": 1}, "no index of DeepfakeBench"),
        ({"a": {"b_Fake": {"c": {}}}}, "a.b_Fake: no index of DeepfakeBench"),
        (
            {"a": {"simswap_Fake": {"train": {"v": {"frames": 1}}}}},
            r"a.simswap_Fake.train.v: expected \{label, frames\}",
        ),
        ({"a": {"simswap_Fake": {"train": {"v": {"frames": [1]}}}}}, "v.frames: expected a list of paths"),
        (
            {"a": {"simswap_Fake": {"train": {"v": entry("simswap_Real", "x")}}}},
            "is at odds with 'simswap_Fake'",
        ),
        (
            {"a": {"simswp_Fake": {"train": {"v": entry("simswp_Fake", "x")}}}},
            "train.v: unknown method 'simswp'; did",
        ),
        (
            {"a": {"FSAll_Fake": {"train": {"v": entry("FSAll_Fake", "x")}}}},
            "no folder of .* is called after a method",
        ),
    ],
)
def test_a_json_that_is_no_index(tmp_path, content, message):
    path = write_json(tmp_path / "x.json", content)
    with pytest.raises(R2MError, match=message):
        indexed(path)
    path.write_text("{")
    with pytest.raises(R2MError, match="not valid JSON"):
        indexed(path)


def test_one_file_of_two_methods_is_an_error(tmp_path):
    put(tmp_path, "x/a.png")
    labels = ("simswap_Fake", "blendface_Fake")
    content = {"n": {label: {"test": {"a": entry(label, "x", ["a.png"])}} for label in labels}}
    with pytest.raises(R2MError, match=r"a.png: is 'blendface' here, and 'simswap' as a file of"):
        indexed(write_json(tmp_path / "n.json", content))
