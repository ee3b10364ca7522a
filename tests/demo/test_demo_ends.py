"""The end of the demo: the command runs, files are sent, and signals end it."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

import demo_scorers
from r2m.demo.worker import ENDED

PATIENCE = 120
ENDS = [
    (signal.SIGINT, 0, ""),
    (signal.SIGTERM, 143, "r2m: ended by SIGTERM\n"),
    (signal.SIGHUP, 129, "r2m: ended by SIGHUP\n"),
]


def by_default():
    """Let a child have the default action for the signals, whatever started the tests."""
    for number, _, _ in ENDS:
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def started(folder, prefix=()):
    """Start the command, whose scorer is `Obedient`, in a group of its own, as a terminal does."""
    (folder / "model.safetensors").touch()
    (folder / "scratch").mkdir()
    options = ["--model", folder / "model.safetensors", "--port", 0]
    process = subprocess.Popen(
        [*prefix, *map(str, (sys.executable, demo_scorers.__file__, "demo", *options))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=by_default,
        env=os.environ | {"TMPDIR": str(folder / "scratch")},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def port_of(process):
    told = re.fullmatch(r"http://127\.0\.0\.1:(\d+) \(Ctrl-C ends it\)\n", process.stdout.readline())
    assert told, process.communicate()
    return int(told[1])


def sent(port, body, lacking=0):
    """Send a request, of whose body so many bytes never come."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.putrequest("POST", "/detect?name=a.jpg")
    connection.putheader("Content-Length", str(len(body) + lacking))
    connection.endheaders(body)
    return connection


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_held(path):
    """Tell whether the process still runs that holds a file."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def ended(process):
    """Return the exit code and what was written to standard error, once the process has ended."""
    _, told = process.communicate(timeout=PATIENCE)
    return process.returncode, told


@pytest.mark.parametrize("send", [os.kill, os.killpg])
@pytest.mark.parametrize(("number", "status", "told"), ENDS)
def test_a_signal_ends_it_whatever_it_does(tmp_path, send, number, status, told):
    """One file is scored, one waits, and one has not come whole."""
    held, scratch = tmp_path / "held", tmp_path / "scratch"
    with started(tmp_path) as process:
        port = port_of(process)
        requests = [sent(port, f"hold {held}".encode())]
        wait_for(lambda: held.exists() and held.read_text())
        requests += [sent(port, b"waits"), sent(port, b"comes", lacking=5)]
        wait_for(lambda: len(list(scratch.glob("r2m-demo-*/file.jpg"))) == 3)
        begun = time.monotonic()
        send(process.pid, number)
        responses = [request.getresponse() for request in requests]
        answers = [(response.status, json.load(response)["reason"]) for response in responses]
        for request in requests:
            request.close()
        assert ended(process) == (status, told)
        assert time.monotonic() - begun < 10
    # The group's signal may end the scoring process before it is seen.
    if send is os.killpg and number != signal.SIGINT and answers[0][0] == 200:
        assert answers.pop(0)[1] == "cannot be scored: its process ended without an answer"
    assert set(answers) == {(503, ENDED)}
    assert not is_held(held)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(("number", "status", "told"), ENDS)
def test_a_signal_ends_it_while_it_does_nothing(tmp_path, number, status, told):
    with started(tmp_path) as process:
        port_of(process)
        process.send_signal(number)
        assert ended(process) == (status, told)


@pytest.mark.parametrize(("number", "status", "told"), ENDS)
def test_a_signal_ends_it_before_it_serves(tmp_path, number, status, told):
    """The processes that it starts import modules then, which a terminal's signal reaches as well."""
    children = "/proc/{0}/task/{0}/children"
    if not Path(children.format(os.getpid())).exists():
        pytest.skip("needs Linux's /proc")
    with started(tmp_path) as process:
        # Of two children, the second one scores.
        wait_for(lambda: len(Path(children.format(process.pid)).read_text().split()) == 2)
        os.killpg(process.pid, number)
        found = ended(process)
    assert found[0] == status or (found[0], number) == (1, signal.SIGINT)
    assert "Traceback" not in found[1]


def test_hang_ups_are_ignored_under_nohup(tmp_path):
    with started(tmp_path, prefix=["nohup"]) as process:
        port = port_of(process)
        process.send_signal(signal.SIGHUP)
        request = sent(port, b"x")
        assert "file.jpg" in json.load(request.getresponse())["reason"]
        request.close()
        process.send_signal(signal.SIGTERM)
        status, told = ended(process)
    assert status == 143
    assert told.endswith("r2m: ended by SIGTERM\n")


def test_the_scoring_process_ends_with_one_that_is_killed(tmp_path):
    held = tmp_path / "held"
    with started(tmp_path) as process:
        request = sent(port_of(process), f"hold {held}".encode())
        wait_for(lambda: held.exists() and held.read_text())
        process.kill()
        wait_for(lambda: not is_held(held))
        assert ended(process) == (-signal.SIGKILL, "")
        request.close()
