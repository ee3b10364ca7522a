"""The server that forks a process with imported packages for every job."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from r2m.cli import warm

pytestmark = pytest.mark.skipif(not warm.CAN_FORK, reason="needs Linux")

PATIENCE = 60
START = """
import os, signal, sys, time
from pathlib import Path
from r2m.cli import warm

warm.start(("json",))
while not Path(os.environ[warm.ADDRESS]).exists():
    time.sleep(0.01)
"""


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def script(tmp_path, body):
    """Start a process that has a server and goes on with `body`, in the folder that the test has."""
    code = START + textwrap.dedent(body)
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def ended(process):
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, told
    return told


def is_running(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def number_in(path):
    until(lambda: path.exists() and path.read_text())
    return int(path.read_text())


def test_without_a_server_nothing_is_done(monkeypatch, tmp_path):
    monkeypatch.delenv(warm.ADDRESS, raising=False)
    assert warm.run_warm(os.abort) is None
    monkeypatch.setenv(warm.ADDRESS, str(tmp_path / "nobody"))
    assert warm.run_warm(os.abort) is None


def test_exit_codes(tmp_path):
    told = ended(
        script(
            tmp_path,
            """
            assert warm.run_warm(len, "") == 0
            assert warm.run_warm(sys.exit, 7) == 7
            assert warm.run_warm(sys.exit, "told") == 1
            assert warm.run_warm(os._exit, 3) == 3
            assert warm.run_warm(int, "no number") == 1
            assert warm.run_warm(signal.raise_signal, signal.SIGKILL) == 128 + 9
            """,
        )
    )
    assert "ValueError: invalid literal for int()" in told


def test_a_job_has_the_folder_and_the_environment_of_its_client(tmp_path):
    ended(
        script(
            tmp_path,
            """
            Path("below").mkdir()
            os.chdir("below")
            os.environ["OWN"] = "mine"
            import subprocess
            write = "import json, os; json.dump([os.getcwd(), os.environ['OWN']], open('told', 'w'))"
            assert warm.run_warm(exec, write, {}) == 0
            assert warm.run_warm(exec, "import sys; assert 'json' in sys.modules", {}) == 0
            """,
        )
    )
    assert json.loads((tmp_path / "below/told").read_text()) == [str(tmp_path / "below"), "mine"]


SLEEP = "import os, time; open('job', 'w').write(str(os.getpid())); time.sleep(1000)"


def test_a_signal_to_the_client_reaches_the_job(tmp_path):
    client = script(tmp_path, f"sys.exit(warm.run_warm(exec, {SLEEP!r}, {{}}))")
    job = number_in(tmp_path / "job")
    client.terminate()
    client.communicate(timeout=PATIENCE)
    # The signal may come before the client knows its job.
    assert client.returncode in (128 + signal.SIGTERM, -signal.SIGTERM)
    until(lambda: not is_running(job))


def test_what_is_left_ends_with_who_is_killed(tmp_path):
    owner = script(
        tmp_path,
        f"""
        Path("address").write_text(os.environ[warm.ADDRESS])
        client = os.fork()
        if client == 0:
            warm.run_warm(exec, {SLEEP!r}, {{}})
        Path("client").write_text(str(client))
        time.sleep(1000)
        """,
    )
    job, client = number_in(tmp_path / "job"), number_in(tmp_path / "client")
    address = Path((tmp_path / "address").read_text())
    os.kill(client, signal.SIGKILL)
    until(lambda: not is_running(job))
    assert address.exists(), "the server goes on"
    owner.kill()
    until(lambda: not address.parent.exists())
    owner.communicate(timeout=PATIENCE)
