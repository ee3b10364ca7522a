"""The page's server: whom it refuses, what it takes in, and that nothing is left of it."""

import asyncio
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Event

import anyio
import pytest
from starlette.testclient import TestClient

from demo_scorers import broken, obedient
from r2m.demo import app as demo
from r2m.demo.app import App, Limits
from r2m.demo.ending import Ending
from r2m.demo.guard import HEADERS, is_own
from r2m.demo.worker import Worker
from r2m.errors import R2MError

HOST = "127.0.0.1:7860"
OWN = f"http://{HOST}"
PATIENCE = 300


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """Where temporary folders are made; none may be left when a test ends."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def worker():
    worker = Worker(obedient)
    yield worker
    worker.stop()


@pytest.fixture
def app(worker):
    return App(worker, Limits(megabytes=0.1, seconds=PATIENCE), "m/model.safetensors", "127.0.0.1")


@pytest.fixture
def client(app):
    with TestClient(app, base_url=OWN) as client:
        yield client


def asked(client, content=b"", name="a.jpg", **headers):
    return client.post("/detect", params={"name": name}, content=content, headers=headers)


def reason(response, status=200):
    assert response.status_code == status, response.text
    return response.json()["reason"]


# Who may ask


def test_every_response_has_the_headers(client):
    responses = [
        *(client.get(path) for path in ("/", "/style.css", "/page.js", "/about", "/gone", "/../app.py")),
        client.get("/", headers={"Host": "evil.example"}),
        client.get("/detect"),
        asked(client),
        asked(client, name="a.txt"),
    ]
    assert [one.status_code for one in responses] == [200, 200, 200, 200, 404, 404, 403, 404, 200, 415]
    for response in responses:
        assert HEADERS.items() <= {name.title(): value for name, value in response.headers.items()}.items()


def test_what_the_page_is_told_first(client):
    told = client.get("/about").json()
    assert ".mp4" in told.pop("suffixes")
    expected = {"model": "m/model.safetensors", "real_below": 0.25, "fake_from": 0.75, "megabytes": 0.1}
    assert told == expected


@pytest.mark.parametrize(
    ("header", "bound", "own"),
    [
        ("127.0.0.1:7860", "127.0.0.1", True),
        ("localhost:9000", "127.0.0.1", True),
        ("LOCALHOST", "127.0.0.1", True),
        ("[::1]:7860", "127.0.0.1", True),
        ("evil.example:7860", "127.0.0.1", False),
        ("localhost.evil.example", "127.0.0.1", False),
        ("192.168.0.2:7860", "127.0.0.1", False),
        ("192.168.0.2:7860", "192.168.0.2", True),
        ("box.lan", "Box.lan", True),
        ("192.168.0.2:7860", "0.0.0.0", True),
        ("[fe80::1]", "::", True),
        ("evil.example", "0.0.0.0", False),
        ("", "127.0.0.1", False),
        ("", "0.0.0.0", False),
        ("[", "127.0.0.1", False),
    ],
)
def test_names_of_the_server(header, bound, own):
    assert is_own(header, bound) is own


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:8000", f"https://{HOST}"]
)
def test_pages_of_other_sites_cannot_post(client, origin):
    response = asked(client, Origin=origin)
    assert (response.status_code, response.text) == (403, "refused: asked by a page of another site\n")


def test_own_pages_and_programs_can_post(client):
    assert asked(client, Origin=OWN).status_code == 200
    assert asked(client).status_code == 200
    assert asked(client, Host="localhost:9", Origin="http://localhost:9").status_code == 200


# What is taken in


@pytest.mark.parametrize("name", ["../../a.jpg", "/etc/a.jpg", "a\\..\\b.jpg", "a\0b.jpg", "ü .JPG"])
def test_names_are_never_paths(client, scratch, name):
    path = Path(reason(asked(client, name=name)).split()[0])
    assert path.name == "file.jpg"
    assert path.parent.parent == scratch


def test_maps_come_if_they_are_asked_for(client):
    def told(**query):
        return client.post("/detect", params={"name": "a.jpg", **query})

    assert [told(**query).json()["unexplained"] for query in ({}, {"explain": "false"})] == ["", ""]
    assert told(explain="true").json()["unexplained"] == "as it was asked for"
    assert reason(told(explain="yes"), 400) == "explain is 'yes'; expected true or false"


@pytest.mark.parametrize("name", ["", "a", "a.txt", ".jpg", "a.jpg/", "a.mp4.exe"])
def test_other_files_are_refused(client, name):
    if name == "a.jpg/":
        assert asked(client, name=name).status_code == 200, "a name, not a path"
    else:
        assert reason(asked(client, name=name), 415).startswith("neither a photograph nor a video")


def test_files_that_say_that_they_are_too_large(client):
    assert asked(client, bytes(100_000)).status_code == 200
    assert reason(asked(client, bytes(100_001)), 413) == "too large: more than 0.1 MB"


def run(app, messages):
    """Post what an iterator of messages gives, as a server would; return the statuses that are sent."""
    sent = []
    headers = [(b"host", HOST.encode())]
    scope = {
        **{"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "headers": headers},
        **{"path": "/detect", "raw_path": b"/detect", "query_string": b"name=a.jpg", "root_path": ""},
    }

    async def receive():
        message = next(messages, None)
        if message is None:
            await anyio.sleep_forever()
        if message["type"] == "http.disconnect":
            await anyio.sleep(0.5)
        return message

    async def send(message):
        sent.append(message)

    async def call():
        with anyio.fail_after(PATIENCE):
            await app(scope, receive, send)

    anyio.run(call)
    return [message["status"] for message in sent if message["type"] == "http.response.start"]


def test_a_stream_without_end_is_cut(app):
    def endless():
        while True:
            yield {"type": "http.request", "body": bytes(1000), "more_body": True}

    assert run(app, endless()) == [413]


# What is left


def test_who_leaves_while_sending_is_forgotten(app):
    run(app, iter([{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]))


def test_who_leaves_while_it_is_scored_is_forgotten(worker, app):
    worker.start()
    begun = time.monotonic()
    body = {"type": "http.request", "body": b"sleep 1000", "more_body": False}
    run(app, iter([body, {"type": "http.disconnect"}]))
    assert time.monotonic() - begun < PATIENCE
    with TestClient(app, base_url=OWN) as client:
        assert "file.jpg" in reason(asked(client))


def test_who_leaves_before_it_is_scored_is_forgotten(worker, tmp_path):
    """The process that is ended is not that which would score."""
    worker.start()
    path = tmp_path / "long.jpg"
    path.write_bytes(b"sleep 1000")
    is_left = Event()
    is_left.set()
    worker.interrupt()
    with pytest.raises(R2MError, match="its process ended without an answer"):
        worker.score(path, 1000.0, is_left=is_left)


def test_what_takes_too_long_is_stopped(worker, client):
    with TestClient(App(worker, Limits(1, 0.5), "m", "127.0.0.1"), base_url=OWN) as hasty:
        assert reason(asked(hasty, b"sleep 1000")) == "cannot be scored: takes longer than 0.5 s"
    assert "file.jpg" in reason(asked(client)), "the next one has a process of its own"


def test_a_file_may_be_scored_while_the_worker_is_stopped(worker, tmp_path):
    worker.start()
    path = tmp_path / "long.jpg"
    path.write_bytes(b"sleep 1000")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(worker.score, path, 1000.0)
        time.sleep(0.2)
        worker.stop()
        with pytest.raises(R2MError, match="its process ended without an answer"):
            answer.result(PATIENCE)


@pytest.mark.parametrize("content", [b"crash", b"raise"])
def test_a_crash_is_a_message(client, content):
    assert reason(asked(client, content)) == "cannot be scored: its process ended without an answer"
    assert "file.jpg" in reason(asked(client))


def test_one_is_scored_at_a_time(client):
    with ThreadPoolExecutor(3) as pool:
        answers = [reason(one) for one in pool.map(lambda _: asked(client, b"sleep 0.2"), range(3))]
    spans = sorted(tuple(map(float, answer.split()[1:])) for answer in answers)
    assert all(end <= begun for (_, end), (begun, _) in pairwise(spans))


def test_no_more_than_so_many_wait(client, monkeypatch):
    monkeypatch.setattr(demo, "MOST_AT_ONCE", 2)
    client.get("/about")
    with ThreadPoolExecutor(3) as pool:
        responses = list(pool.map(lambda _: asked(client, b"sleep 5"), range(3)))
    assert sorted(one.status_code for one in responses) == [200, 200, 503]
    assert asked(client).status_code == 200


def test_a_detector_that_cannot_be_loaded(scratch):
    worker = Worker(broken)
    with pytest.raises(R2MError, match=r"^model\.safetensors: no such file$"):
        worker.start()
    with TestClient(App(worker, Limits(1, 1), "m", "127.0.0.1"), base_url=OWN) as client:
        assert reason(client.get("/about"), 503) == "model.safetensors: no such file"
        assert reason(asked(client)) == "model.safetensors: no such file"


def test_who_is_cancelled_after_the_end_is_answered():
    """The server cancels what does not end in time, such as a thread that waits for a process."""
    sent = []

    async def app(scope, receive, send):
        with anyio.CancelScope(shield=True):
            await anyio.sleep_forever()

    async def send(message):
        sent.append(message)

    async def call():
        ending = Ending(app)
        task = asyncio.create_task(ending({"type": "http"}, None, send))
        await asyncio.sleep(0.01)
        ending.end()
        await asyncio.sleep(0.01)
        assert not sent
        task.cancel()
        await task

    asyncio.run(call())
    assert [message.get("status") for message in sent] == [503, None]


# The page


def test_the_page_needs_nothing_from_elsewhere():
    files = {path.name: path.read_text(encoding="utf-8") for path in demo.PAGE.iterdir()}
    assert files.keys() == {"index.html", "page.js", "style.css"}
    for text in files.values():
        assert set(re.findall(r"\w+://[^\s\"')]+", text)) <= {"http://www.w3.org/2000/svg"}
        assert "innerHTML" not in text
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", files["index.html"])
