import os

import cv2
import pytest

from indexed_images import picture, write_video
from r2m.errors import R2MError
from r2m.validate.registry import CHECKS


def faults(results, *severities):
    return {
        result.check.name: result.count
        for result in results
        if not severities or result.severity in severities
    }


def finding(results, name):
    return next(result.finding for result in results if result.check.name == name)


def missing(drawn):
    for frame in range(2):
        (drawn.root / f"swap/ff/frames/000_003/{frame:03}.png").unlink()
    (drawn.root / "original/000/001.png").unlink()


def folder_gone(drawn):
    (drawn.root / "original/000").rename(drawn.root / "moved")


def empty(drawn):
    (drawn.root / "original/000/000.png").write_bytes(b"")
    drawn.row("original/000/000.png")["size"] = 0


def truncated(drawn):
    path = drawn.root / "original/000/000.png"
    path.write_bytes(path.read_bytes()[:900])
    drawn.row("original/000/000.png")["size"] = 900


def blank(drawn):
    cv2.imwrite(str(drawn.root / "original/000/000.png"), picture(0) * 0)
    drawn.row("original/000/000.png")["size"] = (drawn.root / "original/000/000.png").stat().st_size


def mislabelled(drawn):
    drawn.add("whichisreal_Fake/a.png", picture(900), label=0, identity="a")


def real_labelled_fake(drawn):
    drawn.add("simswap/real/a.png", picture(900), label=1, identity="a")


def method_labelled_real(drawn):
    drawn.add("SimSwap/frames/000/a.png", picture(900), label=0, identity="a")


def labels_of_copies(drawn):
    drawn.add("swap/x.png", picture(0), label=1, identity="x")


def person_across_splits(drawn):
    drawn.add("more/000/5.png", picture(900), split="test", identity="000", video="000b")


def second_person_across_splits(drawn):
    pair = {"identity": "new", "identity2": "003", "video": "new_003"}
    drawn.add("swap/new_003/5.png", picture(900), label=1, split="test", **pair)


def video_across_splits(drawn):
    for frame, split in enumerate(("train", "test")):
        drawn.add(f"clips/v/{frame}.png", picture(900 + frame), video="v", split=split)


def copy_across_splits(drawn):
    drawn.add("more/copy.png", picture(0), split="test", identity="somebody")


def near_across_splits(drawn):
    drawn.add("more/copy.png", cv2.GaussianBlur(picture(0), (3, 3), 0), split="test", identity="somebody")


def near_across_labels(drawn):
    drawn.add("more/copy.png", cv2.GaussianBlur(picture(0), (3, 3), 0), label=1, identity="somebody")


def near_duplicate(drawn):
    drawn.add("more/copy.png", cv2.GaussianBlur(picture(0), (3, 3), 0), identity="somebody")


def duplicate(drawn):
    drawn.add("more/copy.png", picture(0), identity="000")


def frozen(drawn):
    drawn.add("original/000/007.png", picture(0), video="000", identity="000")


def shared_real(drawn):
    row = {"domain": "celeb", "split": "train", "identity": "somebody"}
    drawn.add("celeb/real/copy.png", picture(0), **row)
    for split in ("val", "test"):
        drawn.add(
            f"celeb/real/{split}.png", picture(len(split) + 900), **row | {"split": split, "identity": split}
        )


def repeated_row(drawn):
    drawn.rows.append(dict(drawn.row("original/000/000.png")))


def other_format(drawn):
    for i in range(4):
        fake = {"label": 1, "method": "jpegs", "identity": f"f{i}"}
        drawn.add(f"jpegs/{i}.jpg", picture(900 + i), **fake)


def other_size(drawn):
    for i in range(4):
        fake = {"label": 1, "method": "large", "identity": f"f{i}"}
        drawn.add(f"large/{i}.png", picture(900 + i, 96), **fake)


def changed(drawn):
    drawn.write()
    cv2.imwrite(str(drawn.root / "original/000/000.png"), picture(900))


def alone(drawn):
    lonely = {"label": 1, "domain": "lonely", "method": "lonely", "split": "test"}
    drawn.add("lonely/a.png", picture(900), **lonely, identity="a")


def without_val(drawn):
    drawn.rows[:] = [row for row in drawn.rows if row["split"] != "val"]


def uneven(drawn):
    for frame in range(2, 9):
        drawn.add(f"original/000/{frame:03}.png", picture(900 + frame), video="000", identity="000")


def oblong(drawn):
    drawn.add("more/wide.png", cv2.resize(picture(900), (96, 64)), identity="somebody")


def mask_gone(drawn):
    drawn.row("swap/ff/frames/000_003/000.png")["mask"] = "masks/000_003/000.png"


def nobody_known(drawn):
    drawn.add("more/a.png", picture(900))


# What is wrong → what is found, and how often; without contents, where that differs.
FAULTS = {
    missing: ({"missing": 3}, None),
    folder_gone: ({"missing": 2}, None),
    empty: ({"empty": 1}, None),
    truncated: ({"unreadable": 1}, {}),
    blank: ({"blank": 1}, {}),
    mislabelled: ({"mislabelled": 1}, None),
    method_labelled_real: ({"mislabelled": 1}, None),
    real_labelled_fake: ({"mislabelled": 1}, None),
    labels_of_copies: ({"labels_of_copies": 1}, {}),
    person_across_splits: ({"people_across_splits": 1}, None),
    second_person_across_splits: ({"people_across_splits": 1}, None),
    video_across_splits: ({"videos_across_splits": 1, "unknown_people": 2}, None),
    copy_across_splits: ({"copies_across_splits": 1}, {}),
    near_across_splits: ({"near_across_splits": 2}, {}),
    near_across_labels: ({"near_across_labels": 2}, {}),
    near_duplicate: ({"near_duplicates": 2}, {}),
    duplicate: ({"duplicates": 1}, {}),
    frozen: ({"frozen_frames": 1}, {}),
    shared_real: ({"shared_reals": 1}, {}),
    repeated_row: ({"repeated_rows": 1}, None),
    other_format: ({"format_tells": 1}, None),
    other_size: ({"size_tells": 1}, {}),
    changed: ({"size_changed": 1}, {}),
    alone: ({"one_class": 1}, None),
    without_val: ({"empty_splits": 1}, None),
    uneven: ({"uneven_frames": 1}, None),
    oblong: ({"oblong": 1}, {}),
    mask_gone: ({"missing_masks": 1}, None),
    nobody_known: ({"unknown_people": 1}, None),
}


def test_nothing_is_wrong_with_the_drawn_images(drawn, checked):
    assert faults(checked(drawn)) == {}
    assert faults(checked(drawn, contents=False)) == {}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_is_found_by_its_check(drawn, checked, fault):
    with_contents, names_only = FAULTS[fault]
    fault(drawn)
    results = checked(drawn)
    assert faults(results) == with_contents
    for result in results:
        assert len(result.finding.examples) or len(result.finding.where)
        if "files" in result.finding.where:
            assert result.finding.where["files"].sum() == result.count
    assert faults(checked(drawn, contents=False)) == (with_contents if names_only is None else names_only)


def test_every_check_has_a_fault():
    found = {name for with_contents, _ in FAULTS.values() for name in with_contents}
    assert found == {check.name for check in CHECKS}


def test_leaks_are_errors_unless_allowed(drawn, checked):
    for fault in (person_across_splits, video_across_splits, copy_across_splits):
        fault(drawn)
    leaks = {check.name for check in CHECKS if check.is_leak}
    assert faults(checked(drawn), "error").keys() == leaks
    allowed = checked(drawn, allow_leakage=True)
    assert faults(allowed, "error") == {}
    assert faults(allowed, "warning").keys() == leaks


def test_a_leak_tells_the_person_and_both_files(drawn, checked):
    second_person_across_splits(drawn)
    found = finding(checked(drawn), "people_across_splits")
    example = found.examples.iloc[0]
    assert example["person"] == "003"
    assert (example["split"], example["other_split"]) == ("train", "test")
    assert example["other_path"] == "swap/new_003/5.png"
    assert found.where.to_dict("records") == [
        {"domain": "ff", "split_by": "official", "splits": "train+test", "people": 1}
    ]


def test_people_are_told_by_their_identity_in_whatever_domain(drawn, checked):
    real = {"domain": "cdf", "split": "test", "video": "000"}
    drawn.add("cdf/real/000/1.png", picture(900), **real, identity="cdf/000")
    assert faults(checked(drawn)) == {}
    drawn.add("cdf/real/000/2.png", picture(901), **real, identity="000")
    assert faults(checked(drawn))["people_across_splits"] == 1


def test_somebody_in_three_splits_counts_once(drawn, checked):
    for split in ("val", "test"):
        drawn.add(f"more/{split}.png", picture(len(split)), split=split, identity="000")
    found = finding(checked(drawn, contents=False), "people_across_splits")
    assert found.count == 1
    assert found.where["splits"].tolist() == ["train+val+test"]


def test_missing_files_tell_of_whole_videos(drawn, checked):
    missing(drawn)
    where = finding(checked(drawn), "missing").where.set_index("method")
    assert where.loc["swap", ["files", "whole videos"]].tolist() == [2, 1]
    assert where.loc["real", ["files", "whole videos"]].tolist() == [1, 0]


def test_unreadable_files_are_counted_by_reason(drawn, checked):
    truncated(drawn)
    for name in ("a", "b"):
        drawn.add(f"more/{name}.png", b"<html>", identity="x")
    where = finding(checked(drawn), "unreadable").where
    assert where["files"].sum() == 3
    examples = finding(checked(drawn), "unreadable").examples
    assert "a page of HTML" in examples.set_index("path").loc["more/a.png", "problem"]


def test_folders_that_all_files_share_say_nothing_of_labels(drawn, checked):
    for row in drawn.rows:
        row["path"] = f"ai_fakes/{row['path']}"
    (drawn.root / "ai_fakes").mkdir()
    for name in ("original", "swap"):
        os.rename(drawn.root / name, drawn.root / "ai_fakes" / name)
    assert faults(checked(drawn)) == {}


def test_names_of_data_sets_say_nothing_of_labels(drawn, checked):
    drawn.add("deepfakes_detection_datasets/DFDC/x/1.png", picture(900), label=0, identity="x")
    assert faults(checked(drawn)) == {}


def test_the_name_of_a_method_says_nothing_of_labels(drawn, checked):
    for label, path in ((1, "whichisreal/a.png"), (1, "real-esrgan/b.png"), (1, "whichisreal_Fake/c.png")):
        image = picture(900 + len(drawn.rows))
        drawn.add(path, image, label=label, method="real_or_not", identity=path)
    assert faults(checked(drawn)) == {}


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("DF40_train/simswap/ff/frames/000_003/0.png", 1),
        ("DF40_test/sd2.1/cdf/id0/0.png", 1),
        ("DF40/heygen/real/frames/a/0.png", 0),
        ("DF40/heygen/fake/frames/a/0.png", 1),
        ("DF40/whichisreal/real/0.png", 0),
        ("DF40/whichisreal/0.png", 0),
        ("DF40/CollabDiff/real/0.png", 0),
        ("DF40/MidJourney/train/nature/0.png", 0),
        ("real/simswap/0.png", 0),
        ("fake/simswap/0.png", 1),
        ("stylegan2/0_real/0.png", 0),
        ("stylegan2/0/0.png", 0),
        ("simswap/source/0.png", 0),
        ("photos/lia/0.png", 0),
        ("photos/simswapped-away/0.png", 0),
        ("FaceForensics++/original_sequences/youtube/c23/frames/000/0.png", 0),
        ("FaceForensics++/original_sequences/actors/c23/frames/01__walking/0.png", 0),
        ("FaceForensics++/manipulated_sequences/FaceSwap/c23/frames/000_003/0.png", 1),
        ("FaceForensics++/manipulated_sequences/NeuralTextures/c23/frames/000_003/0.png", 1),
        ("DFD/actors/01__walking/0.png", 0),
        ("DeeperForensics/source_videos/M004/0.png", 0),
        ("Celeb-DF-v2/Celeb-real/frames/id0_0000/0.png", 0),
        ("Celeb-DF-v2/YouTube-real/frames/00000/0.png", 0),
        ("Celeb-DF-v2/Celeb-synthesis/frames/id0_id1_0000/0.png", 1),
        ("UADFV/real/frames/0000/0.png", 0),
    ],
)
def test_folders_of_data_sets_are_at_odds_with_no_label(drawn, checked, path, label):
    drawn.add(path, picture(900), label=label, identity="a")
    assert "mislabelled" not in faults(checked(drawn, contents=False))


@pytest.mark.parametrize(
    "path", ["simswap/0.png", "sd2.1/cdf/0.png", "FaceSwap/c23/frames/000/0.png", "x/one_shot_free/ff/0.png"]
)
def test_a_real_in_the_folder_of_a_method_is_at_odds(drawn, checked, path):
    drawn.add(path, picture(900), identity="a")
    assert faults(checked(drawn, contents=False))["mislabelled"] == 1


def test_an_index_of_one_label_in_a_folder_of_the_other(drawn, checked):
    drawn.rows.clear()
    for i in range(3):
        drawn.add(f"fake/{i}.png", picture(900 + i), label=0, identity=str(i))
    assert faults(checked(drawn), "error") == {"mislabelled": 3}


def test_reals_of_many_sizes_tell_nothing(drawn, checked):
    drawn.rows.clear()
    for label in (0, 1):
        for i in range(8):
            image = picture(900 + i + 50 * label, 64 + 2 * i + label)
            row = {"label": label, "identity": f"{label}{i}", "split": "test"}
            drawn.add(f"{label}/{i}.png", image, **row)
    assert faults(checked(drawn)) == {}


def test_all_files_may_be_gone(drawn, validated):
    drawn.root.rename(drawn.folder / "moved")
    drawn.root.mkdir()
    for contents in (True, False):
        report = validated(drawn, contents)
        assert faults(report.found()) == {"missing": 24}
        assert '"count": 24' in report.as_json()
        for text in (report.as_text(), report.as_json()):
            assert "the root is probably wrong" in text


def test_the_root_may_be_right_where_a_file_is_there(drawn, validated):
    missing(drawn)
    assert "root is probably wrong" not in validated(drawn).as_text()


def test_splits_that_a_domain_lacks_are_told_where_it_is_trained_on(drawn, checked):
    for row in drawn.rows:
        row["split"] = "train"
    drawn.add("photos/a.png", picture(900), domain="photos", split="test", identity="a")
    found = finding(checked(drawn, contents=False), "empty_splits")
    assert found.where.to_dict("records") == [
        {"domain": "ff", "split": "val", "files of train": 24},
        {"domain": "ff", "split": "test", "files of train": 24},
    ]


def test_videos_are_compared_by_content_only(drawn, checked):
    frames = [picture(500 + i) for i in range(3)]
    for name, split in (("a", "train"), ("b", "test")):
        path = drawn.root / f"clips/{name}.mp4"
        write_video(path, frames)
        drawn.add(f"clips/{name}.mp4", media="video", video=name, split=split, identity=name)
    assert (drawn.root / "clips/a.mp4").read_bytes() == (drawn.root / "clips/b.mp4").read_bytes()
    assert faults(checked(drawn)) == {"copies_across_splits": 1}


def test_examples_are_few_and_spread(drawn, checked):
    for i in range(60):
        drawn.add(f"gone/{i // 10}/{i:02}.png", identity=f"g{i}")
    found = finding(checked(drawn, contents=False), "missing")
    assert found.count == 60
    assert len(found.examples) == 20
    assert len({path.split("/")[1] for path in found.examples["path"]}) == 6


def test_wrong_splits_and_empty_indexes_are_errors(drawn, checked):
    drawn.rows[0]["split"] = "dev"
    with pytest.raises(
        R2MError, match=r"drawn\.parquet: column 'split' holds 'dev'; expected train, val, test"
    ):
        checked(drawn)
    drawn.rows.clear()
    with pytest.raises(R2MError, match=r"drawn\.parquet: has no rows"):
        checked(drawn)
