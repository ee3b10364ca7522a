"""FaceForensics++, DeepFakeDetection, Celeb-DF, DFDC, its preview and UADFV, and several of them at once."""

import json

import pytest

from index_trees import df40, ff_lists, indexed, put, reasons, row, video, write_json
from r2m.errors import R2MError

PAIRS = ("000_003", "003_000", "001_870")
REALS = ("000", "003", "001", "870")


def faceforensics(root, level="c23"):
    for name in REALS:
        video(root, f"original_sequences/youtube/{level}/frames/{name}")
    for method in ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter"):
        for pair in PAIRS:
            video(root, f"manipulated_sequences/{method}/{level}/frames/{pair}")
    video(root, f"original_sequences/actors/{level}/frames/01__walking_outside")
    video(root, f"manipulated_sequences/DeepFakeDetection/{level}/frames/01_02__walking_outside__ABCDEFGH")
    return root


def test_faceforensics_with_its_lists(tmp_path):
    root = faceforensics(tmp_path / "FaceForensics++")
    ff_lists(root, train=["000_003"], val=["001_870"], test=["005_006"])
    frame, skipped = indexed(root)
    assert not skipped
    ff = frame[frame["domain"] == "ff"]
    assert set(ff["method"]) == {
        "real",
        *(f"ff_{name}" for name in ("deepfakes", "face2face", "faceswap", "neuraltextures", "faceshifter")),
    }
    assert ff.groupby("video")["split"].first().to_dict() == {
        "000": "train",
        "003": "train",
        "000_003": "train",
        "003_000": "train",
        "001": "val",
        "870": "val",
        "001_870": "val",
    }
    assert set(frame["compression"]) == {"c23"}
    dfd = frame[frame["domain"] == "dfd"]
    assert set(dfd["split"]) == {"test"}
    assert set(dfd["split_by"]) == {"protocol"}
    assert set(ff["split_by"]) == {"official"}
    assert set(dfd["method"]) == {"real", "deepfakedetection"}
    fake = dfd[dfd["label"] == 1].iloc[0]
    assert (fake["identity"], fake["identity2"]) == ("dfd/01", "dfd/02")


def test_masks_serve_every_level(tmp_path):
    root = tmp_path / "ff"
    for level in ("c23", "c40"):
        video(root, f"manipulated_sequences/Deepfakes/{level}/frames/000_003")
    video(root, "manipulated_sequences/Deepfakes/c23/masks/000_003", ["000.png", "012.png"])
    video(root, "manipulated_sequences/FaceSwap/masks/000_003", ["000.png"])
    video(root, "manipulated_sequences/FaceSwap/c23/frames/000_003")
    frame, skipped = indexed(root)
    masks = "manipulated_sequences/Deepfakes/c23/masks/000_003"
    for level in ("c23", "c40"):
        frames = f"manipulated_sequences/Deepfakes/{level}/frames/000_003"
        assert row(frame, f"{frames}/012.png")["mask"] == f"{masks}/012.png"
        assert row(frame, f"{frames}/012.png")["compression"] == level
        assert row(frame, f"{frames}/100.png")[["mask"]].isna().all()
    swap = row(frame, "manipulated_sequences/FaceSwap/c23/frames/000_003/000.png")
    assert swap["mask"] == "manipulated_sequences/FaceSwap/masks/000_003/000.png"
    assert reasons(skipped) == {"masks of other images": 3}
    assert not frame["path"].str.contains("masks").any()


def test_one_level_can_be_taken(tmp_path):
    root = faceforensics(faceforensics(tmp_path / "ff"), "c40")
    frame, skipped = indexed(root, compressions=["c40"])
    assert set(frame["compression"]) == {"c40"}
    assert reasons(skipped) == {"of c23, left out by --compression c40": len(frame)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compressions": ["c0"]}, "--compression c0: no file is of this level; there are c23"),
        (
            {"families": {"ff_deepfake": "FS"}},
            "--family ff_deepfake=FS: no file is of a method .*did you mean 'ff_deepfakes'",
        ),
        ({"columns": {"path": "file"}}, "--column path=file: expected a table, CSV or Parquet, among"),
    ],
)
def test_options_that_apply_to_nothing(tmp_path, options, message):
    root = faceforensics(tmp_path / "ff")
    with pytest.raises(R2MError, match=message):
        indexed(root, **options)


def test_videos_of_faceforensics_and_raw(tmp_path):
    put(tmp_path, "x/original_sequences/youtube/raw/videos/000.mp4")
    put(tmp_path, "x/manipulated_sequences/Deepfakes/raw/videos/000_003.mp4")
    frame, _ = indexed(tmp_path)
    assert set(frame["media"]) == {"video"}
    assert set(frame["compression"]) == {"c0"}
    assert sorted(frame["video"]) == ["000", "000_003"]


def test_faceshifter_alone_and_an_unknown_manipulation(tmp_path):
    video(tmp_path, "FaceShifter/c23/frames/000_003")
    frame, _ = indexed(tmp_path)
    assert set(frame["method"]) == {"ff_faceshifter"}
    video(tmp_path, "x/manipulated_sequences/DeepFake/c23/frames/000_003")
    with pytest.raises(R2MError, match="unknown method 'DeepFake'; did you mean 'ff_deepfakes'"):
        indexed(tmp_path / "x")


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": [["1"]]}, r"train.json: expected pairs of names such as .*got \['1'\]"),
        ({"train": [["000", "003"]], "test": [["003", "000"]]}, "'003' stands in train.json and test.json"),
    ],
)
def test_wrong_lists(tmp_path, lists, message):
    root = faceforensics(tmp_path / "ff")
    for split in ("train", "val", "test"):
        write_json(root / f"{split}.json", lists.get(split, []))
    with pytest.raises(R2MError, match=message):
        indexed(root)
    with pytest.raises(R2MError, match=r"--splits .*nowhere: no such folder"):
        indexed(root, splits=[tmp_path / "nowhere"])


def celeb_df(root):
    for name in ("id0_0000", "id1_0000", "id1_0001"):
        video(root, f"Celeb-real/frames/{name}")
    video(root, "YouTube-real/frames/00170")
    for name in ("id0_id1_0000", "id1_id0_0000"):
        video(root, f"Celeb-synthesis/frames/{name}")
    return root


def test_celeb_df_by_its_list(tmp_path):
    root = celeb_df(tmp_path / "Celeb-DF-v2")
    (root / "List_of_testing_videos.txt").write_text(
        "1 YouTube-real/00170.mp4\n1 Celeb-real/id1_0000.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n"
        "0 Celeb-synthesis/id7_id1_0000.mp4\n"
    )
    frame, skipped = indexed(root)
    splits = frame.groupby("video")["split"].first()
    tested = {"00170", "id1_0000", "id0_id1_0000"}
    assert set(splits[splits == "test"].index) == tested
    assert set(frame["split_by"]) == {"official"}
    assert row(frame, "YouTube-real/frames/00170/000.png")["label"] == 0
    assert row(frame, "Celeb-synthesis/frames/id0_id1_0000/000.png")["method"] == "celeb_synthesis"
    assert set(frame["domain"]) == {"cdf"}
    assert set(frame["dataset"]) == {"Celeb-DF-v2"}
    assert reasons(skipped) == {"videos of the list that are not there": 1}
    assert skipped[0].key == "celeb-synthesis/id7_id1_0000"


def test_celeb_df_v1_without_list_is_split_by_people(tmp_path):
    frame, _ = indexed(celeb_df(tmp_path / "Celeb-DF-v1"))
    assert set(frame["domain"]) == {"cdf_v1"}
    assert set(frame["split_by"]) == {"identity"}
    sides = frame.groupby("identity")["split"].nunique()
    assert (sides == 1).all()


@pytest.mark.parametrize(
    ("name", "listed", "dataset", "domain"),
    [
        ("Celeb-DF", 0, "Celeb-DF-v1", "cdf_v1"),
        ("Celeb-DF", 100, "Celeb-DF-v1", "cdf_v1"),
        ("Celeb-DF", 518, "Celeb-DF-v2", "cdf"),
        ("celeb", 100, "Celeb-DF-v1", "cdf_v1"),
        ("celeb", 0, "Celeb-DF-v2", "cdf"),
        ("Celeb-DF-v2", 100, "Celeb-DF-v2", "cdf"),
    ],
)
def test_the_version_of_celeb_df(tmp_path, name, listed, dataset, domain):
    root = celeb_df(tmp_path / name)
    if listed:
        lines = (f"1 YouTube-real/{number:05}.mp4" for number in range(listed))
        (root / "List_of_testing_videos.txt").write_text("\n".join(lines))
    frame, _ = indexed(root)
    assert set(frame["dataset"]) == {dataset}
    assert set(frame["domain"]) == {domain}


def test_the_list_of_celeb_df_in_a_folder_of_lists(tmp_path):
    celeb_df(tmp_path / "Celeb-DF-v2")
    ff = faceforensics(tmp_path / "ff")
    (ff / "splits").mkdir()
    (ff / "splits/List_of_testing_videos.txt").write_text("1 YouTube-real/00170.mp4\n")
    (ff / "splits/notes.txt").write_text("")
    frame, skipped = indexed(tmp_path, splits=[ff / "splits"])
    assert set(frame.loc[frame["video"] == "00170", "split"]) == {"test"}
    assert [(item.file, item.files) for item in skipped] == [(f"{ff}/splits/notes.txt", 1)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 YouTube-real/00170.mp4", "expected 1 for reals"),
        ("YouTube-real/00170.mp4", "line 1: expected `1 YouTube"),
    ],
)
def test_a_wrong_list_of_celeb_df(tmp_path, line, message):
    root = celeb_df(tmp_path / "Celeb-DF-v2")
    (root / "List_of_testing_videos.txt").write_text(line)
    with pytest.raises(R2MError, match=message):
        indexed(root)


def test_dfdc(tmp_path):
    root = tmp_path / "DFDC"
    part = root / "train/dfdc_train_part_0"
    write_json(
        part / "metadata.json",
        {
            "aaa.mp4": {"label": "FAKE", "split": "train", "original": "bbb.mp4"},
            "bbb.mp4": {"label": "REAL", "split": "train"},
        },
    )
    put(part, "aaa.mp4", "ccc.mp4")
    video(part, "frames/bbb")
    put(root, "test/x1.mp4")
    video(root, "test/frames/x2")
    (root / "test/labels.csv").write_text("filename,label\nx1.mp4,1\nx2.mp4,0\n")
    frame, skipped = indexed(root)
    fake, real = (frame[frame["video"] == name].iloc[0] for name in ("aaa", "bbb"))
    assert (fake["method"], fake["identity"]) == ("dfdc_fake", "dfdc/bbb")
    assert fake["split"] == real["split"] != "test"
    assert real["label"] == 0
    tested = frame[frame["split"] == "test"]
    assert tested.groupby("video")["label"].first().to_dict() == {"x1": 1, "x2": 0}
    assert reasons(skipped) == {"in no list of labels; expected it in metadata.json or labels.csv": 1}


def test_videos_that_lists_of_dfdc_have_and_that_are_not_there(tmp_path):
    root = tmp_path / "DFDC"
    for part in (0, 1):
        names = (f"{part}{letter}.mp4" for letter in "abc")
        entries = {name: {"label": "REAL", "split": "train"} for name in names}
        write_json(root / f"dfdc_train_part_{part}/metadata.json", entries)
    put(root, "dfdc_train_part_0/0a.mp4")
    _, skipped = indexed(root)
    assert [(item.file, item.key, item.files) for item in skipped] == [
        (f"{root}/dfdc_train_part_0/metadata.json", "0b", 2),
        (f"{root}/dfdc_train_part_1/metadata.json", "1a", 3),
    ]
    assert {item.reason for item in skipped} == {"videos of the list that are not there"}


def test_test_videos_of_dfdc_below_their_list(tmp_path):
    root = tmp_path / "dfdctest"
    put(root, "test_videos/x1.mp4")
    video(root, "test_videos/x2")
    (root / "labels.csv").write_text("filename,label\nx1.mp4,1\nx2.mp4,0\n")
    frame, skipped = indexed(root)
    assert not skipped
    assert frame.groupby("video")["label"].first().to_dict() == {"x1": 1, "x2": 0}


def test_the_reason_why_no_file_can_be_used_is_told(tmp_path):
    put(tmp_path, "dfdctest/test_videos/x9.mp4")
    (tmp_path / "dfdctest/labels.csv").write_text("filename,label\nx1.mp4,1\n")
    with pytest.raises(R2MError, match=r"can be used; left out, such as .*x9.mp4: in no list of labels"):
        indexed(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.json", "[]", "expected an object of videos, got list"),
        ("metadata.json", "{", "not valid JSON"),
        ("metadata.json", '{"a": ' + "[" * 100_000, "not valid JSON"),
        (
            "metadata.json",
            '{"a.mp4": {"label": "MAYBE"}}',
            "label: expected REAL or FAKE, got 'MAYBE'",
        ),
        ("labels.csv", "file,label\na,0\n", "no column 'filename'"),
        ("labels.csv", "filename,label\na.mp4,x\n", "line 2: label: expected 0 or 1, got 'x'"),
        ("other.txt", "", "expected metadata.json or labels.csv"),
    ],
)
def test_wrong_lists_of_dfdc(tmp_path, name, content, message):
    part = tmp_path / "dfdc_train_part_0"
    put(part, "a.mp4")
    (part / name).write_text(content)
    with pytest.raises(R2MError, match=message):
        indexed(tmp_path)


def test_dfdcp(tmp_path):
    root = tmp_path / "DFDCP"
    entries = {
        "method_A/001/001_002_A.mp4": {"label": "fake", "set": "test", "target_id": 1, "swapped_id": 2},
        "method_B/001/001_003_B.mp4": {"label": "fake", "set": "train", "target_id": 1, "swapped_id": 3},
        "original_videos/001/001_C.mp4": {"label": "real", "set": "train"},
        "original_videos/009/009_C.mp4": {"label": "real", "set": "train"},
    }
    write_json(root / "dataset.json", entries)
    video(root, "method_A/frames/001_002_A")
    put(root, "method_B/001/001_003_B.mp4", "original_videos/001/001_C.mp4", "method_A/x.mp4")
    frame, skipped = indexed(root)
    by_video = frame.drop_duplicates("video").set_index("video")
    assert by_video["method"].to_dict() == {"001_002_A": "dfdcp_a", "001_003_B": "dfdcp_b", "001_C": "real"}
    assert by_video.loc["001_002_A", "identity2"] == "dfdcp/2"
    assert by_video.loc["001_002_A", "split"] == "test"
    assert by_video.loc["001_C", "split"] in ("train", "val")
    assert reasons(skipped) == {
        "not in dataset.json; expected its label and set there": 1,
        "videos of the list that are not there": 1,
    }
    (root / "dataset.json").write_text(json.dumps({"method_A/x.mp4": {"label": "fake", "set": "dev"}}))
    with pytest.raises(R2MError, match="expected train, val or test, got 'dev'"):
        indexed(root)


def test_dfd_and_uadfv_are_tested_on_only(tmp_path):
    put(tmp_path, "DFD/DFD_original sequences/01__walking.mp4")
    put(tmp_path, "DFD/DFD_manipulated_sequences/DFD_manipulated_sequences/01_02__walking__ABCDEFGH.mp4")
    video(tmp_path, "UADFV/real/frames/0000")
    video(tmp_path, "UADFV/fake/frames/0000_fake")
    frame, skipped = indexed(tmp_path)
    assert not skipped
    assert set(frame["split"]) == {"test"}
    assert set(frame["split_by"]) == {"protocol"}
    assert frame.groupby("domain")["method"].agg(set).to_dict() == {
        "dfd": {"real", "deepfakedetection"},
        "uadfv": {"real", "fakeapp"},
    }
    assert set(frame.loc[frame["domain"] == "uadfv", "identity"]) == {"uadfv/0000"}


@pytest.mark.parametrize("top", ["DeepFakeDetection", "x/manipulated_sequences/DeepFakeDetection", "x"])
@pytest.mark.parametrize("layout", [None, "faceforensics"])
def test_folders_of_originals_are_no_fakes(tmp_path, top, layout):
    root = tmp_path / top
    put(root, "DeepFakeDetection_original_sequences/c23/videos/01__walking.mp4")
    put(tmp_path / top, "c23/videos/01_02__walking__ABCDEFGH.mp4")
    frame, _ = indexed(root, layout=layout)
    reals = frame[frame["path"].str.contains("original_sequences")]
    assert list(reals["label"]) == [0]
    assert list(reals["domain"]) == ["dfd"]
    assert list(reals["identity"]) == ["dfd/01"]


def test_originals_of_no_known_data_set_are_left_out(tmp_path):
    put(tmp_path, "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4")
    put(tmp_path, "manipulated_sequences/my_original_sequences/c23/videos/000.mp4")
    frame, skipped = indexed(tmp_path)
    assert list(frame["method"]) == ["ff_deepfakes"]
    assert [item.key for item in skipped] == ["my_original_sequences"]


def test_several_data_sets_at_once(tmp_path):
    tree = df40(tmp_path / "sets/DF40")
    ff = faceforensics(tmp_path / "sets/FaceForensics++")
    celeb = celeb_df(tmp_path / "sets/Celeb-DF-v2")
    ff_lists(ff, train=["000_003"], val=["001_870"], test=["005_006"])
    (celeb / "List_of_testing_videos.txt").write_text("1 Celeb-real/id0_0000.mp4\n")
    together, _ = indexed(tmp_path / "sets")
    apart, _ = indexed(tree, ff, celeb)
    assert together.equals(apart)
    domains = together[together["label"] == 0].groupby("domain")["dataset"].first().to_dict()
    assert domains["ff"] == "FaceForensics++"
    assert domains["cdf"] == "Celeb-DF-v2"
    swap = row(together, "DF40/simswap/ff/frames/001_870/000.png")
    assert (swap["split"], swap["split_by"]) == ("val", "official")
    assert set(together.loc[together["method"] == "ff_faceswap", "dataset"]) == {"FaceForensics++"}


def test_a_folder_with_another_metadata_is_not_dfdc(tmp_path):
    put(tmp_path, "mine/real/a.png", "mine/fake/simswap/b.png")
    (tmp_path / "mine/metadata.json").write_text("{}")
    frame, _ = indexed(tmp_path / "mine")
    assert set(frame["method"]) == {"real", "simswap"}


def test_nothing_to_recognize(tmp_path):
    put(tmp_path, "a/b.txt")
    with pytest.raises(R2MError, match=r"no data set is recognized; expected one of: .*df40 \(METHOD/"):
        indexed(tmp_path)
    with pytest.raises(R2MError, match="no such file or folder"):
        indexed(tmp_path / "x")
    with pytest.raises(R2MError, match="unknown layout 'df4'; did you mean 'df40'"):
        indexed(tmp_path, layout="df4")
    with pytest.raises(R2MError, match="no image and no video that can be used"):
        indexed(tmp_path, layout="df40")
