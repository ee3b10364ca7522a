"""`r2m demo`: what is said of drawn photographs and videos, by its server and in a browser."""

import re
import threading
import tomllib
from base64 import b64decode
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

import r2m
from chromium import browser, headless_page
from demo_scorers import DrawnOptions
from detector_samples import save_whole
from drawn_videos import disc_detector, two_faces, write_video
from r2m.cli import demo as command
from r2m.cli import r2m as group
from r2m.demo import scoring
from r2m.demo.app import PAGE, App, Limits
from r2m.demo.pictures import SIDE, around
from r2m.demo.scoring import FileScorer
from r2m.demo.server import address, listening, server_of
from r2m.demo.worker import Worker
from r2m.detection.detecting import seen_and_scored
from r2m.detection.explanations import most_fake, write_explanations
from r2m.detection.finding import FaceFinder
from r2m.errors import R2MError

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[2]
LIMITS = Limits(megabytes=10, seconds=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, base_files):
    """A detector, and files: a photograph and a video of two faces, and one that is damaged."""
    folder = tmp_path_factory.mktemp("demo")
    save_whole(base_files["convnet"], folder / "model.safetensors")
    (folder / "yunet.onnx").write_bytes(b"discs")
    cv2.imwrite(str(folder / "a.png"), two_faces(1)[0])
    write_video(folder / "b.mp4", two_faces(12))
    (folder / "c.jpg").write_bytes(b"no image")
    (folder / "d.mp4").write_text("ffconcat version 1.0\nfile file.mp4\n")
    return folder


@pytest.fixture(scope="module")
def worker(folder):
    worker = Worker(DrawnOptions(folder / "model.safetensors", None, folder, "cpu").load)
    yield worker
    worker.stop()


def test_answers_are_those_of_the_command(folder, worker):
    detector = r2m.load(folder / "model.safetensors", device="cpu")
    with disc_detector(folder):
        photograph, video, damaged = r2m.detect(
            [folder / name for name in ("a.png", "b.mp4", "c.jpg")], detector, faces=folder, every=True
        )
    app = App(worker, LIMITS, "m", "127.0.0.1")
    with TestClient(app, base_url="http://localhost") as client:
        told = [
            client.post("/detect", params={"name": path.name}, content=path.read_bytes()).json()
            for path in sorted(folder.glob("[a-d].*"))
        ]
    assert told[2]["reason"] == damaged.reason
    assert told[3]["reason"], "a playlist that names itself"
    for answer, found in zip(told, (photograph, video), strict=False):
        assert answer["decision"] == found.decision
        assert answer["probability"] == pytest.approx(found.probability, abs=1e-5)
        assert [face["probability"] for face in answer["faces"]] == pytest.approx(
            [found.mean(number) for number in found.numbers], abs=1e-5
        )
        assert answer["picture"]["image"].startswith("data:image/jpeg;base64,")
        assert (answer["picture"]["width"], answer["picture"]["height"]) == (256, 128)
    assert [tuple(face["box"]) for face in told[0]["faces"]] == [face.box for face in photograph.faces]
    shown = told[1]["picture"]["seconds"]
    for face in told[1]["faces"]:
        own = video.of(face["number"])
        assert face["curve"] == [[one.seconds, pytest.approx(one.probability, abs=1e-5)] for one in own]
        assert tuple(face["box"]) in {one.box for one in own if one.seconds == shown}


def test_maps_are_those_of_the_command(folder, tmp_path):
    detector = r2m.load(folder / "model.safetensors", device="cpu")
    with disc_detector(folder) as network:
        scorer = FileScorer(folder / "model.safetensors", None, folder, "cpu")
        finder = FaceFinder(detector.config, network, every=True, frames=32)
        for name in ("a.png", "b.mp4"):
            ((seen, found),) = seen_and_scored([folder / name], detector, finder)
            overlays = write_explanations(seen, found, detector, finder, tmp_path / name)
            plain, explained = scorer(folder / name, False), scorer(folder / name, True)
            assert [face.image for face in plain.faces] == [None, None]
            without = [face.model_copy(update={"image": None}) for face in explained.faces]
            assert explained.model_copy(update={"faces": without}) == plain
            # Of a video, the command writes each person's own frame, and the page shows one.
            shown = [face for face in most_fake(seen, found) if face.seconds == explained.picture.seconds]
            assert shown
            for face in shown:
                whole = cv2.imread(str(overlays[face.number]))
                expected, _ = around(whole, face.matrix, detector.config.image_size)
                content = b64decode(
                    explained.faces[face.number].image.removeprefix("data:image/jpeg;base64,")
                )
                image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
                assert image.shape == expected.shape
                assert max(image.shape) == SIDE
                assert np.abs(image.astype(int) - expected).mean() < 8
            on_it = {face.number for face in seen.faces if face.seconds == explained.picture.seconds}
            assert {face.number for face in explained.faces if face.image} == on_it


@given(
    st.floats(0, 6.28), st.floats(0.05, 8), st.floats(0, 200), st.floats(0, 120), st.integers(16, 64)
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_part_around_a_face_is_where_its_crop_was_cut(angle, scale, x, y, size):
    """Pixels of a part tell where they were on the picture; both transforms lead them to one place."""
    rows, columns = np.mgrid[:120, :200]
    picture = np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.column_stack([linear, [size / 2, size / 2] - linear @ [x, y]])
    part, moved = around(picture, matrix, size)
    assert max(part.shape) == SIDE
    places = np.argwhere(np.ones(part.shape[:2]))[:: SIDE // 4, ::-1]  # x, y
    found = part[places[:, 1], places[:, 0], :2] @ matrix[:, :2].T + matrix[:, 2]
    expected = places @ moved[:, :2].T + moved[:, 2]
    # Levels are whole numbers, and at the edges nothing lies beyond the last pixel.
    assert np.abs(found - expected).max() <= 1.5 * scale
    is_crop = (expected > 0).all(axis=1) & (expected < size - 1).all(axis=1)
    assert is_crop.any() or not (0 < x < 199 and 0 < y < 119)


def test_backbones_without_maps_are_told(folder, monkeypatch):
    def refuse(picture, faces, detector):
        raise R2MError("no explanations of a Flatten")
        yield

    with disc_detector(folder):
        scorer = FileScorer(folder / "model.safetensors", None, folder, "cpu")
        monkeypatch.setattr(scoring, "maps", refuse)
        answer = scorer(folder / "a.png", True)
    assert answer.unexplained == "no explanations of a Flatten"
    assert answer.decision
    assert [face.image for face in answer.faces] == [None, None]


def test_mistakes_are_told_at_once(folder, tmp_path, monkeypatch):
    def run(*arguments):
        return CliRunner().invoke(group, ["demo", *map(str, arguments)], catch_exceptions=False)

    model = folder / "model.safetensors"
    with pytest.raises(R2MError, match=r"gone: no such file"):
        run("--model", "gone")
    with pytest.raises(R2MError, match=r"yunet\.onnx: no such file"):
        run("--model", model, "--faces", tmp_path, "--port", 0)
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(R2MError, match=rf"--port {port}: cannot be bound \(Address already in use\)"):
            run("--model", model, "--port", port)
    with pytest.raises(R2MError, match=r"--host nowhere\.invalid --port 1: cannot be bound"):
        run("--model", model, "--host", "nowhere.invalid", "--port", 1)
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(R2MError, match=r'starlette is not installed; expected pip install .* "\.\[demo\]"'):
        run("--model", model)


def test_the_page_is_in_the_wheel():
    with (ROOT / "pyproject.toml").open("rb") as file:
        patterns = tomllib.load(file)["tool"]["setuptools"]["package-data"]["r2m"]
    packed = {path for pattern in patterns for path in PAGE.parents[1].glob(pattern)}
    assert set(PAGE.iterdir()) <= packed


@pytest.mark.slow
@pytest.mark.skipif(browser() is None, reason="needs Chromium or Chrome")
def test_in_a_browser(folder, tmp_path):
    worker = Worker(DrawnOptions(folder / "model.safetensors", None, folder, "cpu").load)
    with listening("127.0.0.1", 0) as bound:
        server = server_of(worker, LIMITS, "some/model.safetensors", "127.0.0.1")
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            with headless_page(tmp_path / "profile") as page:
                page.open(address(bound))
                page.press("Tab")
                assert page.value("document.activeElement.id") == "files", "reached by the keyboard"
                page.choose("#files", [folder / name for name in ("a.png", "b.mp4", "c.jpg")])
                page.wait_for(
                    "document.querySelectorAll('article').length == 3"
                    " && !document.querySelector('[aria-busy]')"
                    " && [...document.images].every((image) => image.complete)"
                )
                read = "[...document.querySelectorAll('article')].map((one) => ({"
                read += "name: one.querySelector('h2').innerText, text: one.innerText,"
                read += "decision: one.querySelector('strong').innerText,"
                read += "number: one.querySelector('.number').innerText,"
                read += "boxes: one.querySelectorAll('.boxes .over').length,"
                read += "shown: one.querySelector('img').naturalWidth,"
                read += "points: [...one.querySelectorAll('polyline')].map((line) => line.points.length),"
                read += "}))"
                results = {one["name"]: one for one in page.value(read)}
                state = page.value("document.getElementById('status').innerText")
                width = page.value("document.documentElement.scrollWidth - innerWidth")

                # Files that were scored are explained afterwards, and further ones at once.
                maps = "[...document.querySelectorAll('article')].map((one) => "
                maps += (
                    "[...one.querySelectorAll('.maps img')].filter((map) => map.checkVisibility()).length)"
                )
                unexplained = page.value(maps)
                page.value("document.getElementById('explain').click()")
                page.wait_for(
                    f"JSON.stringify({maps}) == '[0,2,2]' && !document.querySelector('[aria-busy]')"
                )
                page.choose("#files", [folder / "a.png"])
                page.wait_for(f"JSON.stringify({maps}) == '[2,0,2,2]'")
                page.wait_for("[...document.images].every((image) => image.complete)")
                sides = page.value(
                    "[...document.querySelectorAll('.maps img')].map((map) => map.naturalWidth)"
                )
                page.value("document.getElementById('explain').click()")
                hidden = page.value(maps)
        finally:
            server.should_exit = True
            thread.join(60)
            worker.stop()
    assert not thread.is_alive()
    assert list(results) == ["c.jpg", "b.mp4", "a.png"], "the last one is on top"
    for name in ("a.png", "b.mp4"):
        assert results[name]["decision"] in ("real", "fake")
        assert re.fullmatch(r"[<>]? ?[01]\.\d{3}", results[name]["number"])
        assert (results[name]["boxes"], results[name]["shown"]) == (2, 256)
    assert results["a.png"]["points"] == []
    assert results["b.mp4"]["points"] == [12, 12]
    assert "cannot be read" in results["c.jpg"]["text"]
    assert results["c.jpg"]["decision"] == ""
    assert state.startswith("c.jpg: cannot be read")
    assert width <= 0
    assert unexplained == [0, 0, 0]
    assert len(sides) == 6
    assert all(0.9 * SIDE < side <= SIDE for side in sides)
    assert hidden == [0, 0, 0, 0]
