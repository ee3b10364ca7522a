"""A process that has the libraries imported, and forks for every command that it is asked to run.

`python -P serve.py SOCKET`: importing torch and timm takes some seconds of every job, the tiny workflow's
work a fraction of one. Nothing of r2m is imported before the fork, so a command runs the code of its project.
"""

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys

LIBRARIES = (
    *("torch", "timm", "safetensors.torch", "cv2", "pandas", "pyarrow.parquet", "scipy.stats"),
    *("sklearn.metrics", "matplotlib.pyplot", "pydantic", "snakemake.cli", "dvc.cli"),
)


def serve(address: str) -> list[str]:
    """Listen; return in a child, in the state that a process of the client would have, with its command.

    The server ends with its standard input.
    """
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen(64)
        for name in LIBRARIES:
            importlib.import_module(name)
        gc.freeze()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            if sys.stdin in select.select([server, sys.stdin], [], [])[0]:
                sys.exit()
            connection, _ = server.accept()
            if os.fork() == 0:
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("r") as lines:
        request = json.loads(lines.readline())
    child = os.fork()
    if child:
        watch(child, connection)
    connection.close()
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    return request["command"]


def watch(child: int, connection: socket.socket) -> None:
    """Tell the client the child's exit status; kill the child and all of its group if the client ends."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            connection.sendall(bytes([os.waitstatus_to_exitcode(status) & 0xFF]))
            os._exit(0)
        if select.select([connection], [], [], 0.01)[0]:
            os.killpg(child, signal.SIGKILL)
            os._exit(0)


def run(command: list[str]) -> None:
    """Run a module or script as the interpreter does."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if command[0] == "-m":
        sys.argv = command[1:]
        sys.path[:0] = [os.getcwd(), *paths]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        sys.path[:0] = [os.path.dirname(command[0]), *paths]
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    run(serve(sys.argv[1]))
