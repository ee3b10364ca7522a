"""Warm processes: a server that has imported the heavy packages forks one for every job of a run.

To import torch, timm and scikit-learn takes 4 to 10 seconds of CPU time, and a run has a hundred jobs. The
server runs beside Snakemake's main process and ends with it, however that ends. A job that finds no server
imports what it needs itself. What it computes is the same.
"""

import gc
import importlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

ADDRESS = "R2M_WARM"
PACKAGES = (
    *("numpy", "pandas", "pyarrow.parquet", "scipy.stats", "sklearn.metrics", "sklearn.linear_model"),
    *("cv2", "torch", "timm", "safetensors.torch", "matplotlib.pyplot"),
)
# Libraries ask these at import, so jobs of more threads cannot be forked.
ONE_THREAD = {
    name: "1"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
}
SIGNALS = (signal.SIGTERM, signal.SIGHUP)
# Elsewhere libraries of the system do not survive a fork without an exec.
CAN_FORK = sys.platform == "linux"


def start(packages: tuple[str, ...] = PACKAGES) -> None:
    """Start a server that ends with this process, and let the processes that this one starts know of it."""
    folder = Path(tempfile.mkdtemp(prefix="r2m-warm-"))  # nobody else may enter it
    address = folder / "socket"
    # Nothing is ever written: the server reads the end of this pipe when this process is gone.
    lifeline, _held = os.pipe()
    subprocess.Popen(
        [sys.executable, "-m", "r2m.cli.warm", str(address), str(lifeline), *packages],
        pass_fds=(lifeline,),
        env={**os.environ, **ONE_THREAD, "OMP_WAIT_POLICY": "PASSIVE", "MPLBACKEND": "agg"},
        stdin=subprocess.DEVNULL,
    )
    os.close(lifeline)
    os.environ[ADDRESS] = str(address)


def run_warm(call: Callable[..., object], *arguments: Any) -> int | None:
    """Call a function in a process that the server forks, and return its exit code; None without a server.

    Signals that are to end this process are handed on to that one, which is waited for; so is that of
    Ctrl-C, which it gets itself. If this process is killed, that one is ended.
    """
    connection = _connected()
    if connection is None:
        return None
    with connection:
        connection.send((call, arguments, dict(os.environ), os.getcwd()))
        process = connection.recv()

        def hand_on(number: int, frame: object) -> None:
            with suppress(ProcessLookupError):
                os.kill(process, number)

        for number in SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, hand_on)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            code = int(connection.recv())
        except EOFError:
            return 1
    return code if code >= 0 else 128 - code


def _connected() -> Connection | None:
    """Return a connection to the server of this run, where there is one that is ready."""
    link = socket.socket(socket.AF_UNIX)
    try:
        link.connect(os.environ[ADDRESS])
    except (KeyError, OSError):
        link.close()
        return None
    return Connection(link.detach())


def serve(address: Path, lifeline: int, packages: list[str]) -> None:
    """Import the packages, then answer whoever connects, until the other end of the pipe is closed."""
    # Python 3.12 warns of pyarrow's thread, whose allocator knows forks.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    # Ctrl-C is for the jobs; this process ends with the run.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for package in packages:
        with suppress(ImportError):
            importlib.import_module(package)
    gc.freeze()  # a collection would write to memory that all share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
    listener = socket.socket(socket.AF_UNIX)
    unready = address.with_suffix(".unready")
    listener.bind(str(unready))
    listener.listen(128)
    unready.rename(address)  # from here on it is found
    with listener, selectors.DefaultSelector() as selector:
        selector.register(lifeline, selectors.EVENT_READ)
        selector.register(listener, selectors.EVENT_READ)
        while not any(key.fd == lifeline for key, _ in selector.select()):
            link, _ = listener.accept()
            if os.fork() == 0:
                os.close(lifeline)
                listener.close()
                _answer(Connection(link.detach()))
            link.close()
    address.unlink()
    address.parent.rmdir()


def _answer(connection: Connection) -> NoReturn:
    """Fork a process that does what is asked, tell its number, wait for it, and tell its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    call, arguments, environment, folder = connection.recv()
    process = os.fork()
    if process == 0:
        connection.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _call(call, arguments, environment, folder)
    connection.send(process)

    def end_with_client() -> None:
        with suppress(EOFError, OSError):
            connection.recv()  # it says nothing more
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)

    threading.Thread(target=end_with_client, daemon=True).start()
    _, status = os.waitpid(process, 0)
    with suppress(OSError):
        connection.send(os.waitstatus_to_exitcode(status))
    os._exit(0)


def _call(
    call: Callable[..., object], arguments: tuple[Any, ...], environment: Mapping[str, str], folder: str
) -> NoReturn:
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # it may be another now
    os.chdir(folder)
    try:
        call(*arguments)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
