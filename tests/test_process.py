"""How a process of r2m ends: signals clean up like errors."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from snakemake.benchmark import BenchmarkRecord

from r2m.cli import process
from r2m.cli.process import Signals, guarded
from r2m.errors import R2MError
from r2m.report.runtimes import read_benchmarks

JOB = """
import sys, time
from pathlib import Path
from r2m.cli.job import run_logged
from r2m.plan.stage import Job
import r2m.files
from r2m.data.faces import thread_map

def build(path):
    with r2m.files.atomic_path(path) as folder:
        folder.mkdir()
        list(thread_map(lambda number: time.sleep(0.2), range(10000), 2))

r2m.files.build = build
if "torch" in sys.argv:
    import torch
run_logged(Job("r2m.files:build", {}, {"path": Path("made")}, {}), 1, "job.log", "")
"""


def started(folder, *words, **settings):
    """Start a job that makes a folder for ever; return it when it has begun."""
    command = [sys.executable, "-c", JOB, *words]
    process = subprocess.Popen(command, cwd=folder, start_new_session=True, **settings)
    deadline = time.monotonic() + 120
    while not own(folder, process) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    assert own(folder, process), (folder / "job.log").read_text()
    return process


def own(folder, process):
    """Return the temporary folders of a job."""
    return list(folder.glob(f".made.*-{process.pid}.tmp"))


def ended_by(*numbers):
    """Let a child have the default action for signals, whatever started the tests."""
    return {"preexec_fn": lambda: [signal.signal(number, signal.SIG_DFL) for number in numbers]}


@pytest.mark.parametrize("words", [[], ["torch"]])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_job_like_an_error(tmp_path, number, words):
    process = started(tmp_path, *words, **ended_by(number))
    try:
        os.kill(process.pid, number)
        assert process.wait(30) == 128 + number
    finally:
        process.kill()
    assert [path.name for path in tmp_path.iterdir()] == ["job.log"]
    assert (tmp_path / "job.log").read_text() == f"r2m: ended by {signal.Signals(number).name}\n"


def test_an_ignored_signal_stays_ignored(tmp_path):
    process = started(tmp_path, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    try:
        os.kill(process.pid, signal.SIGHUP)
        time.sleep(0.5)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_the_next_start_removes_what_a_kill_left(tmp_path):
    process = started(tmp_path)
    process.kill()
    process.wait()
    (left,) = own(tmp_path, process)
    process = started(tmp_path)
    try:
        assert not left.exists()
    finally:
        process.kill()
        process.wait()


QUICK = """
from pathlib import Path
from r2m.cli.job import run_logged
from r2m.plan.stage import Job

out = Path("out.json")
run_logged(Job("r2m.files:write_text", {}, {"path": out}, {"text": "{}"}), 1, "job.log", "took/own.tsv")
"""


def test_what_a_job_took_is_written(tmp_path):
    subprocess.run([sys.executable, "-c", QUICK], cwd=tmp_path, check=True)
    (row,) = read_benchmarks({"stage": {"own": tmp_path / "took/own.tsv"}}).itertuples()
    assert 0 < row.cpu_seconds < 60
    assert 0 <= row.wall_seconds < 60
    assert 5 < row.peak_mib < 1000
    header = (tmp_path / "took/own.tsv").read_text().splitlines()[0]
    assert header.split("\t") == BenchmarkRecord.get_header()


USED = """
import json, signal, sys, time
from r2m.cli.process import Ended, Signals

number, place = signal.Signals[sys.argv[1]], sys.argv[2]
signals, seen = Signals(signal.SIGINT, signal.SIGTERM), []

def send():
    signal.raise_signal(number)  # in this thread, so that its handler has run

def items():
    for item in "abc":
        yield item
    if place == "between":
        send()
        time.sleep(30)  # the signal ends this at once
    yield "d"

def use(item):
    if item == place:
        send()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL, "a second one ends the process"
    seen.append(item)

try:
    with signals:
        for item in signals.between(items()):
            use(item)
        use("end")
except Ended as ended:
    assert {signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)} == {signal.SIG_DFL}
    print(json.dumps([signal.Signals(ended.number).name, seen, signals.done]))
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("place", "seen", "done"),
    [("between", "abc", 3), ("c", "abc", 3), ("end", ["a", "b", "c", "d", "end"], 4)],
)
def test_a_signal_waits_until_what_was_begun_is_done(number, place, seen, done):
    """In a process of its own: a signal that goes astray would end the tests."""
    ended = subprocess.run(
        [sys.executable, "-c", USED, number, place],
        **ended_by(signal.SIGINT, signal.SIGTERM),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout) == [number, list(seen), done]


@pytest.fixture
def default_handlers():
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


def test_handlers_are_those_of_before(default_handlers):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Signals(*default_handlers):
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler


def test_messages_do_not_command_a_terminal(default_handlers, monkeypatch, capsys):
    def refused():
        raise R2MError("\x1b[2Jx\r.jpg: no such file\n\texpected one")

    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr(process, "leave", lambda status: None)
    guarded(refused)
    assert capsys.readouterr().err == "r2m: error: \\x1b[2Jx\\r.jpg: no such file\n\texpected one\n"
