import json

import cv2
import pytest

from indexed_images import picture
from r2m import files
from r2m.errors import R2MError
from r2m.validate import stages
from r2m.validate.stages import validate


@pytest.fixture
def stage(drawn, tmp_path):
    def run(**options):
        drawn.write()
        given = {"root": None, "contents": True, "allow_leakage": False, "name": "drawn", "threads": 1}
        validate(index=drawn.index, cache=drawn.cache, out=tmp_path / "out", **given | options)
        return json.loads((tmp_path / "out/report.json").read_text())

    return run


def test_a_good_index_leaves_its_report(stage, tmp_path, caplog):
    assert stage()["severity"] is None
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.json", "report.html"}
    assert caplog.text == ""


def test_an_error_names_index_check_count_and_example_and_leaves_nothing(drawn, stage, tmp_path):
    for frame in range(2):
        (drawn.root / f"original/000/{frame:03}.png").unlink()
    drawn.add("more/a.png", picture(900), split="test", identity="003")
    with pytest.raises(R2MError) as error:
        stage()
    message = str(error.value)
    assert message.startswith(
        f"datasets.drawn: {drawn.index}: missing: files that are not there: 2 files,"
        " such as original/000/000.png (domain ff,"
    )
    assert "There are errors of people_across_splits, too." in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


def test_an_error_leaves_its_page_beside_the_cache_until_it_is_mended(drawn, stage):
    drawn.add("more/a.png", picture(900), split="test", identity="003")
    (drawn.root / "swap/ff/frames/200_201/000.png").unlink()
    with pytest.raises(R2MError) as error:
        stage(root=drawn.root, tested=["ff"], contents=False, allow_leakage=True)
    page = drawn.cache.with_name(f"{drawn.cache.name}.report.html")
    assert f"All is in {page}; `r2m validate {drawn.index} --root" in str(error.value)
    command = f"--root {drawn.root} --names-only --allow-leakage --tested ff`"
    assert command in str(error.value)
    assert "<html" in page.read_text()
    assert json.loads(page.with_suffix(".json").read_text())["severity"] == "error"
    drawn.add("swap/ff/frames/200_201/000.png", picture(901), split="test", label=1)
    stage(tested=["ff"])
    assert not page.exists()
    assert not page.with_suffix(".json").exists()


def test_a_leak_stops_unless_it_is_allowed(drawn, stage, caplog):
    drawn.add("more/a.png", picture(900), split="test", identity="003")
    with pytest.raises(
        R2MError, match=r"people_across_splits: people in several splits: 1 person.*person 003"
    ):
        stage()
    assert stage(allow_leakage=True)["severity"] == "warning"
    assert "drawn: People in several splits: 1 person" in caplog.text


def test_of_a_domain_that_is_only_tested_on_the_split_test_counts(drawn, stage):
    drawn.add("more/a.png", picture(900), split="test", identity="003")
    report = stage(tested=["ff"])
    assert report["severity"] is None
    assert {row["split"] for row in report["counts"]["domains"]} == {"test"}


def test_warnings_do_not_stop(drawn, stage, caplog):
    drawn.add("more/wide.png", cv2.resize(picture(900), (96, 64)), identity="somebody")
    assert stage()["severity"] == "warning"
    assert "Images that are not about square: 1 file" in caplog.text


def test_another_root_and_one_that_is_gone(drawn, stage, tmp_path):
    drawn.root.rename(tmp_path / "moved")
    with pytest.raises(R2MError, match=r"images: no such folder \(the index names this root\)"):
        stage()
    with pytest.raises(R2MError, match=r"nowhere: no such folder \(given as --root\)"):
        stage(root=tmp_path / "nowhere")
    assert stage(root=tmp_path / "moved")["root"] == str(tmp_path / "moved")


def test_a_report_that_cannot_be_written_leaves_no_half(stage, tmp_path, monkeypatch):
    def refuse(files, replaced):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "publish_together", refuse)
    with pytest.raises(OSError, match="No space left"):
        stage()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_cache_that_cannot_be_written_stops_before_any_file_is_read(drawn, stage, monkeypatch):
    monkeypatch.setattr(stages, "run", None)
    drawn.cache.mkdir()
    with pytest.raises(R2MError, match=r"drawn\.contents\.parquet: cannot be written \(a folder is there\)"):
        stage()
