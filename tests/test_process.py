"""How a process of r2m ends: signals clean up like errors."""

import os
import signal
import subprocess
import sys
import time

import pytest
from snakemake.benchmark import BenchmarkRecord

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


def ended_by(number):
    """Let a child have the default action for a signal, whatever started the tests."""
    return {"preexec_fn": lambda: signal.signal(number, signal.SIG_DFL)}


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
