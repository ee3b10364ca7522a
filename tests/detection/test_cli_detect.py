"""`r2m detect`."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import r2m
from r2m.cli import r2m as group
from r2m.detection import explanations
from r2m.errors import R2MError
from r2m.evaluate.evaluation import SCORE_COLUMNS
from r2m.evaluate.scores import write
from r2m.models import checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")


def run(*arguments):
    return CliRunner().invoke(group, ["detect", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def given(model, faces):
    return ["--model", model, "--faces", faces, "--device", "cpu", "--threads", 1]


def test_lines_for_a_terminal(media, given):
    result = run(media, *given)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert [line.split()[0].rsplit("/", 1)[1] for line in lines] == [
        *("a.png", "b.mp4", "c.png", "d.jpg", "e.png")
    ]
    assert lines[2].endswith("–       no face found with a score of 0.6 or more")
    assert "2 of 5 files are not scored" in result.stderr
    assert run(media / "a.png", *given).exit_code == 0


def test_a_table(media, given, tmp_path):
    out = tmp_path / "found.csv"
    assert run(media, *given, "--every", "--frames", 4, "--out", out).exit_code == 1
    table = pd.read_csv(out)
    counts = table.groupby("path", sort=False)["level"].value_counts()
    assert counts[str(media / "b.mp4")].to_dict() == {"frame": 8, "track": 2, "video": 1}
    assert counts[str(media / "a.png")].to_dict() == {"face": 2}
    with pytest.raises(R2MError, match=r"found\.csv: exists; --force replaces it"):
        run(media, *given, "--out", out)
    with pytest.raises(R2MError, match=r"b\.mp4: is one of the inputs"):
        run(media, *given, "--out", media / "b.mp4", "--force")
    with pytest.raises(R2MError, match=r"found\.txt: a table of unknown sort"):
        run(media, *given, "--out", tmp_path / "found.txt")


def test_what_fakes_are_most_like(media, given, specialists, base_files, tmp_path):
    out = tmp_path / "found.csv"
    asked = ["--specialists", specialists, "--base", base_files["convnet"]]
    assert run(media, *given, *asked, "--every", "--out", out).exit_code == 1
    table = pd.read_csv(out)
    called = table["decision"].isin(["fake", "unsure"])
    assert called.any()
    assert (table["closest"].isin(["swap", "up"]) == called).all()
    assert (table["closest_probability"].notna() == called).all()
    lines = run(media, *given, *asked, "--every").stdout.splitlines()
    assert any("  like swap 0." in line or "  like up 0." in line for line in lines)
    one = ["--specialists", specialists / "up/seed2/model.safetensors", "--base", base_files["convnet"]]
    assert run(media, *given, *one, "--every", "--out", out, "--force").exit_code == 1
    assert set(pd.read_csv(out)["closest"].dropna()) == {"up"}
    with pytest.raises(R2MError, match="no specialists; expected"):
        run(media, *given, "--specialists", media)


def test_unlike_the_photographs_of_val(model, given, tmp_path):
    folder = tmp_path / "crops"
    folder.mkdir()
    for number in range(25):
        crop = np.random.default_rng(number).integers(0, 256, (32, 32, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:02d}.png"), crop)
    found = r2m.detect(folder, r2m.load(model, device="cpu"), faces=None)
    logits = np.array([one.faces[0].logit for one in found])

    def compared(logits, *paths, **metadata):
        scores = pd.DataFrame(dict.fromkeys(SCORE_COLUMNS, "real"), index=range(len(logits)))
        scores = scores.assign(label=0, split="val", logit=logits)
        described = {"model": "r2m", "kind": "merge"} | metadata
        write(scores, described, tmp_path / "scores.parquet")
        return run(*paths, *given, "--aligned", "--compare", tmp_path / "scores.parquet")

    with pytest.raises(
        R2MError, match=r"scores of 'r2m', but the detector's metadata have neither 'variant'"
    ):
        compared(logits, folder)
    tensors, metadata = checkpoint.load(model)
    named = tmp_path / "named.safetensors"
    checkpoint.save(named, tensors, metadata | {"variant": "r2m"})
    given = [named if one == model else one for one in given]
    alike = compared(np.repeat(logits, 2), folder)
    assert alike.exit_code == 0
    assert "r2m: 25 files do not differ from the real photographs of val (Kolmogorov" in alike.stderr
    other = compared(logits - 9 * logits.std(), folder)
    assert other.exit_code == 0, "a warning is no failure"
    assert "r2m: warning: 25 files differ from the real photographs of val" in other.stderr
    assert "standard deviations higher" in other.stderr
    few = compared(logits, *sorted(folder.iterdir())[:5])
    assert "cannot be told: 5 are scored, and val has 25; expected 20 of both" in few.stderr
    with pytest.raises(R2MError, match=r"scores\.parquet: metadata 'r2m' lacks a 'model', or a 'kind'"):
        compared(logits, folder, kind="other")
    with pytest.raises(R2MError, match=r"not a readable Parquet file of scores"):
        run(folder, *given, "--aligned", "--compare", model)
    with pytest.raises(
        R2MError, match=r"--compare: nope\.parquet: cannot be read \(No such file or directory\)"
    ):
        run(folder, *given, "--aligned", "--compare", "nope.parquet")


def test_a_model_without_calibration_is_told_once(media, given, model, tmp_path):
    warning = (
        f"r2m: warning: {model}: no calibration and no operating points in it; decisions are made at"
        " probability 0.5 of scores that are not calibrated"
    )
    assert run(media, *given).stderr.count(warning) == 1
    tensors, metadata = checkpoint.load(model)
    config = json.loads(metadata["detector"]) | {"slope": 2.0}
    fitted = tmp_path / "fitted.safetensors"
    checkpoint.save(fitted, tensors, metadata | {"detector": config})
    assert run(media, *[fitted if one == model else one for one in given]).stderr.startswith("r2m: 2 of 5")


def test_a_specialist_without_its_base(media, specialists):
    with pytest.raises(R2MError, match=r"lacks .*, which training did not change; .*: --base FILE$"):
        run(media, "--model", specialists / "up/seed2/model.safetensors", "--aligned")


def test_outputs_that_cannot_be_written(media, given, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(R2MError, match=r"--out: .*t\.csv: cannot be written \(.*/file is no folder\)"):
        run(media, *given, "--out", tmp_path / "file/x/t.csv")
    with pytest.raises(R2MError, match=r"--explain: .*maps: cannot be written \(.*/file is no folder\)"):
        run(media, *given, "--explain", tmp_path / "file/maps")
    with pytest.raises(R2MError, match=r"--out: x+\.csv: cannot be written \(File name too long\)"):
        run(media, *given, "--out", f"{'x' * 300}.csv")
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
        with pytest.raises(R2MError, match=r"--out: .*t\.csv: cannot be written \(no permission to write"):
            run(media, *given, "--out", tmp_path / "new/t.csv")

    def refused(path, image):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(explanations, "write_overlay", refused)
    with pytest.raises(
        R2MError, match=r"--explain: .*a\.png-face0\.png: cannot be written \(Permission denied"
    ):
        run(media, *given, "--explain", tmp_path / "maps")


def test_names_that_would_command_a_terminal(media, given, tmp_path):
    name = "a\x1b[2J\rr2m: all is real\n.png"
    (media / "a.png").rename(media / name)
    for path in (media, media / name):
        result = run(path, *given)
        assert not {"\x1b", "\r"} & set(result.output)
        assert r"a\x1b[2J\rr2m: all is real\n.png" in result.stdout
    with pytest.raises(R2MError, match=r"gone\\n\.jpg: no such file or folder"):
        run(media / "gone\n.jpg", *given)
    out = tmp_path / "made/found.csv"
    run(media / name, *given, "--out", out)
    assert pd.read_csv(out)["path"].tolist() == [str(media / name)]


# Files are found in no time, but for the last, which takes as long as the command lives.
SLOW = """
import sys, time
from pathlib import Path
seconds = float(sys.argv.pop())
from r2m.cli import main
from r2m.detection.finding import FaceFinder, Seen

def find(finder, path):
    if path.stem == "last":
        Path("begun").touch()
        time.sleep(seconds)
    return Seen(path, reason="none")

FaceFinder.__call__ = find
main()
"""


def begun(folder, seconds, *arguments):
    """Start the command on three files, the last of which takes so many seconds; return it then."""
    for name in ("a.png", "b.png", "last.png"):
        (folder / name).touch()
    command = [sys.executable, "-c", SLOW, "detect", "a.png", "b.png", "last.png", *map(str, arguments)]
    process = subprocess.Popen(
        [*command, "--batch-size", "1", "--device", "cpu", "--aligned", str(seconds)],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: [signal.signal(one, signal.SIG_DFL) for one in (signal.SIGINT, signal.SIGTERM)],
    )
    deadline = time.monotonic() + 240
    while not (folder / "begun").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    assert (folder / "begun").exists(), process.stderr.read()
    time.sleep(0.3)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_the_table_holds_what_was_done(model, tmp_path, number):
    process = begun(tmp_path, 2, "--model", model, "--threads", 1, "--out", "made/found.csv")
    try:
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    expected = rf"r2m: ended by {number.name}: ([12]) of 3 files are done; their table is made/found\.csv"
    done = re.fullmatch(expected, told.splitlines()[-1])
    assert done, told
    assert pd.read_csv(tmp_path / "made/found.csv")["path"].tolist() == ["a.png", "b.png"][: int(done[1])]
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["found.csv"]


def test_a_second_signal_ends_it_at_once(model, tmp_path):
    process = begun(tmp_path, 600, "--model", model, "--threads", 1)
    try:
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None, "the file that is being looked at is waited for"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGTERM


def test_mistakes_are_told_at_once(tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "r2m", "detect", "gone.jpg", "--model", "x"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "r2m: error: gone.jpg: no such file or folder" in done.stderr
    assert " torch\n" not in done.stderr


def test_explanations_are_written(media, given, tmp_path):
    maps = tmp_path / "maps"
    assert run(media, *given, "--every", "--frames", 4, "--explain", maps).exit_code == 1
    written = [f"{name}-face{number}.png" for name in ("a.png", "b.mp4", "e.png") for number in (0, 1)]
    assert sorted(path.name for path in maps.iterdir()) == written
    assert cv2.imread(str(maps / "a.png-face0.png")).shape == cv2.imread(str(media / "a.png")).shape
    with pytest.raises(R2MError, match=r"a\.png-face0\.png: exists; --force replaces it"):
        run(media, *given, "--explain", maps)
    (maps / "a.png-face0.png").write_bytes(b"old")
    assert run(media, *given, "--explain", maps, "--force").exit_code == 1
    assert cv2.imread(str(maps / "a.png-face0.png")) is not None
    with pytest.raises(R2MError, match=r"media/maps: lies in .*media, one of the inputs"):
        run(media, *given, "--explain", media / "maps")
    with pytest.raises(R2MError, match=r"a\.png: is no folder"):
        run(media / "e.png", *given, "--explain", media / "a.png")
