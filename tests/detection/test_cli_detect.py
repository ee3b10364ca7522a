"""`r2m detect`."""

import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import r2m
from r2m.cli import r2m as group
from r2m.errors import R2MError
from r2m.evaluate.evaluation import SCORE_COLUMNS
from r2m.evaluate.scores import write

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
