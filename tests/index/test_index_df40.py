import os

import pytest

from index_trees import FRAMES, df40, ff_lists, indexed, put, reasons, row, video
from r2m.errors import R2MError
from r2m.index import methods
from r2m.index.methods import DF40, FACEFORENSICS


@pytest.fixture
def tree(tmp_path):
    return df40(tmp_path / "DF40")


def test_every_layout_of_df40(tree):
    frame, skipped = indexed(tree)
    assert not skipped
    assert len(frame) == 12 + 12 + 3 + 4 + 3 + 3 + 1 + 2 + 2 + 2 + 6 + 6
    by_method = frame.groupby(["method", "domain"])["video"].nunique().to_dict()
    assert by_method == {
        ("simswap", "ff"): 4,
        ("mraa", "ff"): 4,
        ("simswap", "cdf"): 1,
        ("stylegan3", "ff"): 2,
        ("stylegan3", "cdf"): 2,
        ("sd2_1", "ff"): 1,
        ("stargan", "stargan"): 0,
        ("real", "stargan"): 0,
        ("starganv2", "starganv2"): 0,
        ("real", "starganv2"): 0,
        ("whichisreal", "whichisreal"): 0,
        ("real", "whichisreal"): 0,
        ("deepfacelab", "deepfacelab"): 1,
        ("real", "deepfacelab"): 1,
        ("heygen", "heygen"): 1,
        ("real", "heygen"): 1,
    }
    assert set(frame["dataset"]) == {"DF40"}
    assert (frame["label"] == (frame["method"] != "real")).all()


def test_what_a_row_says(tree):
    frame, _ = indexed(tree)
    swap = row(frame, "simswap/ff/frames/000_003/012.png")
    assert swap["family"] == "FS"
    assert (swap["video"], swap["frame"], swap["media"]) == ("000_003", 12, "image")
    assert (swap["identity"], swap["identity2"]) == ("ff/000", "ff/003")
    assert swap["split_by"] == "identity"
    assert swap["size"] == len("simswap/ff/frames/000_003/012.png")
    celeb = row(frame, "simswap/cdf/frames/id0_id16_0003/000.png")
    assert (celeb["identity"], celeb["identity2"]) == ("cdf/id0", "cdf/id16")
    assert (celeb["split"], celeb["split_by"]) == ("test", "official")
    seed = row(frame, "StyleGAN3/cdf/Fake_from_Celeb-real/id0_0001/000.png")
    assert (seed["video"], seed["identity"]) == ("id0_0001", "cdf/id0")
    assert row(frame, "sd2.1/ff/000/Celeb-real_id13_0011_045.png")["frame"] == 45
    photograph = row(frame, "Whichisreal/Whichisreal/fake/1.jpeg")
    assert (photograph["label"], photograph["method"], photograph["split"]) == (1, "whichisreal", "test")
    assert photograph[["video", "frame", "identity"]].isna().all()
    assert photograph["split_by"] == "protocol"


def test_rows_are_sorted_and_pairs_are_on_one_side(tree):
    frame, _ = indexed(tree)
    order = frame.fillna({"video": "", "frame": -1})
    keys = ["domain", "label", "method", "video", "frame", "path"]
    assert order[keys].apply(tuple, axis=1).is_monotonic_increasing
    ff = frame[frame["domain"] == "ff"]
    first = ff.dropna(subset=["identity2"]).groupby("identity")["split"].agg(set)
    assert all(len(splits) == 1 for splits in first)
    assert first["ff/000"] == first["ff/003"]


def test_official_lists_beside_the_tree_are_found(tree):
    ff_lists(tree / "splits", train=["000_003"], val=["001_870"], test=["005_006"])
    frame, skipped = indexed(tree)
    swaps = frame[(frame["method"] == "simswap") & (frame["domain"] == "ff")]
    assert swaps.set_index("video")["split"].to_dict() == {
        "000_003": "train",
        "003_000": "train",
        "001_870": "val",
        "870_001": "val",
    }
    assert set(swaps["split_by"]) == {"official"}
    assert not skipped


def test_a_pair_that_official_lists_tear_is_left_out(tree, tmp_path):
    ff_lists(tmp_path / "lists", train=["000_001"], val=["003_870"], test=["005_006"])
    frame, skipped = indexed(tree, splits=[tmp_path / "lists"])
    assert "simswap/ff/frames/000_003/000.png" not in set(frame["path"])
    torn = [item for item in skipped if item.reason == "its two people are in different splits"]
    assert torn[0].key == "ff/000 train, ff/003 val"
    assert torn[0].files == len(FRAMES)
    assert row(frame, "StyleGAN3/ff/000/seed0001.png")["split"] == "train"


def test_train_and_test_trees_of_one_method(tmp_path):
    video(tmp_path, "DF40/train/simswap/ff/frames/000_003")
    video(tmp_path, "DF40/test/simswap/ff/frames/100_103")
    video(tmp_path, "DF40/test/simswap/cdf/frames/id0_id1_0000")
    frame, _ = indexed(tmp_path)
    splits = frame.drop_duplicates("video").set_index("video")["split"].to_dict()
    assert splits["000_003"] in ("train", "val")
    assert splits["100_103"] == splits["id0_id1_0000"] == "test"
    assert set(frame["split_by"]) == {"official"}


def test_a_single_method(tmp_path):
    video(tmp_path, "blendface/ff/frames/000_003")
    frame, _ = indexed(tmp_path / "blendface")
    assert set(frame["method"]) == {"blendface"}
    assert frame["path"][0] == "ff/frames/000_003/000.png"


def test_video_files_and_frames_of_the_same_video(tmp_path):
    put(tmp_path, "simswap/ff/videos/000_003.mp4", "simswap/ff/videos/001_870.AVI")
    video(tmp_path, "simswap/ff/frames/000_003")
    frame, skipped = indexed(tmp_path)
    media = frame.groupby("video")["media"].agg(set).to_dict()
    assert media == {"000_003": {"image"}, "001_870": {"video"}}
    assert reasons(skipped) == {"its frames are there": 1}
    assert frame.loc[frame["media"] == "video", "frame"].isna().all()


def test_faults_are_counted(tree):
    (tree / "simswap/ff/frames/005_006").mkdir()
    put(tree, "simswap/ff/frames/000_003/._000.png", ".cache/simswap/x.png")
    put(tree, "mobileswap/ff/frames.zip", "simswap/ff/landmarks/000_003/000.npy", "notes/readme.png")
    os.symlink(tree / "nowhere.png", tree / "simswap/ff/frames/000_003/013.png")
    put(tree, "wav2lip/frames/000_003/000.png")
    frame, skipped = indexed(tree)
    assert not frame["path"].str.contains(r"\._|cache|013", regex=True).any()
    assert reasons(skipped) == {
        "an empty folder; expected images or videos": 0,
        "an archive: unpack it": 1,
        "neither image nor video": 1,
        "the file cannot be read (No such file or directory)": 1,
        "belongs to no method of DF40": 1,
        "no domain; expected METHOD/ff or METHOD/cdf": 1,
    }
    assert any(item.file.endswith("/ff/frames/005_006") for item in skipped)


def test_an_unknown_method_is_an_error_with_the_nearest(tree):
    video(tree, "simswp/ff/frames/000_003")
    with pytest.raises(R2MError, match=r"unknown method 'simswp'; did you mean 'simswap'\?.*--family"):
        indexed(tree)


def test_a_method_of_ones_own(tree):
    video(tree, "My-Swap/ff/frames/000_003")
    frame, _ = indexed(tree, families={"My-Swap": "FS"})
    own = frame[frame["method"] == "my_swap"]
    assert len(own) == 3
    assert set(own["family"]) == {"FS"}


def test_two_folders_of_one_method_are_an_error(tree):
    put(tree, "starganv2/fake/c.jpg")
    with pytest.raises(R2MError, match=r"StarGAN2 and .*starganv2: both are folders of 'starganv2'"):
        indexed(tree)


def test_links_are_followed_without_circles_and_shared_reals_are_one_row(tmp_path):
    root = tmp_path / "DF40"
    video(root, "simswap/ff/frames/000_003")
    video(root, "simswap/ff/real/000")
    video(root, "blendface/ff/frames/000_003")
    os.symlink(root / "simswap/ff/real", root / "blendface/ff/real")
    os.symlink(root, root / "simswap/ff/frames/circle")
    frame, skipped = indexed(root)
    assert not skipped
    reals = frame[frame["label"] == 0]
    assert len(reals) == 3
    assert (reals["domain"] == "ff").all()


def test_links_to_single_files_are_one_row(tmp_path):
    put(
        tmp_path,
        "a_stargan/real/000012.jpg",
        "stargan/fake/000012.jpg",
        "styleclip/fake/1.jpg",
        "stargan/real/1.jpg",
    )
    (tmp_path / "styleclip/real").mkdir()
    os.symlink(tmp_path / "stargan/real/1.jpg", tmp_path / "styleclip/real/1.jpg")
    frame, _ = indexed(tmp_path)
    assert frame["path"].str.endswith("real/1.jpg").sum() == 1


def test_names_in_any_script(tmp_path):
    video(tmp_path, "数据/simswap/ff/frames/тест_ψ")
    frame, _ = indexed(tmp_path / "数据")
    assert set(frame["video"]) == {"тест_ψ"}
    assert set(frame["identity"]) == {"ff/тест_ψ"}


def test_there_are_forty_methods_of_four_families():
    families = [method.family for method in DF40]
    assert {family: families.count(family) for family in families} == {"FS": 10, "FR": 13, "EFS": 12, "FE": 5}
    assert sum(method.is_test_only for method in DF40) == 9
    assert len({method.name for method in DF40}) == 40


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("StarGAN2", "starganv2"),
        ("starganv2", "starganv2"),
        ("whichfaceisreal", "whichisreal"),
        ("Whichisreal", "whichisreal"),
        ("sd2.1", "sd2_1"),
        ("sd2_1", "sd2_1"),
        ("SD-2.1", "sd2_1"),
        ("one_shot_free", "one_shot_free"),
        ("MRAA", "mraa"),
        ("DiT", "dit"),
        ("StyleGAN-XL", "styleganxl"),
        ("MidJourney", "midjourney"),
        ("Collaborative_Diffusion", "collabdiff"),
        ("FaceSwap", "faceswap"),
    ],
)
def test_folder_names(folder, name):
    assert methods.get(folder).name == name


def test_faceforensics_methods_are_kept_apart():
    assert methods.get("FaceSwap", FACEFORENSICS).name == "ff_faceswap"
    assert methods.get("FF-FH", FACEFORENSICS).name == "ff_faceshifter"
    with pytest.raises(R2MError, match="unknown method 'NeuralTexture'; did you mean 'ff_neuraltextures'"):
        methods.get("NeuralTexture", FACEFORENSICS)
