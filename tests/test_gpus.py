"""Jobs of one machine take different GPUs."""

import os
import subprocess
import sys

import pytest

from r2m.cli import gpus
from r2m.errors import R2MError
from r2m.models.options import BackboneOptions
from r2m.plan.stage import Job
from r2m.session_files import Compute
from r2m.train.options import FinetuneOptions

# A job: it claims GPUs, says which, and has them until its input ends.
JOB = """
import os, sys
from r2m.cli.gpus import claim
claim(int(sys.argv[1]), pause=0.05)
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a job which claims `count` of four GPUs."""
    jobs = []

    def job(count):
        environment = {**os.environ, "TMPDIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": "0,1,2,GPU-3"}
        command = [sys.executable, "-c", JOB, str(count)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        jobs.append(subprocess.Popen(command, env=environment, **pipes))
        return jobs[-1]

    yield job
    for process in jobs:
        process.kill()
        process.communicate()


def test_jobs_side_by_side_have_different_gpus(start):
    first, second = start(1), start(2)
    taken = [job.stdout.readline().strip().split(",") for job in (first, second)]
    assert len({*taken[0], *taken[1]}) == 3


def test_job_waits_until_enough_are_free(start):
    first = start(3)
    assert first.stdout.readline().strip() == "0,1,2"
    second = start(2)
    first.kill()
    assert second.stdout.readline().strip() == "0,1"


def test_what_a_scheduler_gave_is_taken(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    gpus.claim(2)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,7"
    assert not gpus._held


def test_too_few(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    with pytest.raises(R2MError, match="2 GPUs are needed for this job, and 1 can be seen here"):
        gpus.claim(2)


@pytest.mark.parametrize(
    ("device", "processes", "expected"), [("cuda", 1, 1), ("cuda", 4, 4), ("auto", 4, 0), ("cpu", 1, 0)]
)
def test_gpus_of_jobs(device, processes, expected):
    compute = Compute(BackboneOptions(), device)
    values = {"compute": compute, "options": FinetuneOptions(processes=processes)}
    assert Job("m:f", {}, {}, values).gpus == expected
    assert Job("m:f", {}, {}, {"device": device}).gpus == min(expected, 1)
    assert Job("m:f", {}, {}, {}).gpus == 0
