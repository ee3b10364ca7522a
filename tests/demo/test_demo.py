"""`r2m demo`: what is said of drawn photographs and videos, by its server and in a browser."""

import re
import signal
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

import r2m
from chromium import browser, headless_page
from demo_scorers import DrawnOptions
from detector_samples import save_whole
from drawn_videos import disc_detector, two_faces, write_video
from r2m.cli import demo as command
from r2m.cli import r2m as group
from r2m.demo.app import PAGE, Limits, create_app
from r2m.demo.server import address, listening, server_of
from r2m.demo.worker import Worker
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
    app = create_app(worker, LIMITS, "m", "127.0.0.1")
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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_ends_it(folder, number, status):
    options = ["--model", folder / "model.safetensors", "--faces", folder, "--port", 0, "--device", "cpu"]
    served = subprocess.Popen(
        [sys.executable, "-m", "r2m", "demo", *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert served.stdout is not None
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+ \(Ctrl-C ends it\)\n", served.stdout.readline())
        served.send_signal(number)
        _, told = served.communicate(timeout=60)
    finally:
        served.kill()
        served.wait()
    assert served.returncode == status
    assert "Traceback" not in told


def test_the_page_is_in_the_wheel():
    with (ROOT / "pyproject.toml").open("rb") as file:
        patterns = tomllib.load(file)["tool"]["setuptools"]["package-data"]["r2m"]
    packed = {path for pattern in patterns for path in PAGE.parents[1].glob(pattern)}
    assert set(PAGE.iterdir()) <= packed


@pytest.mark.slow
@pytest.mark.skipif(browser() is None, reason="needs Chromium or Chrome")
def test_in_a_browser(folder, worker, tmp_path):
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
        finally:
            server.should_exit = True
            thread.join(60)
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
