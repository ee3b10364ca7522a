"""Run at the start of every Python process of a test's project: hands its command to the fork server.

See `serve.py`; without the server, or for other commands, the process goes on by itself.
"""

import os
import sys

SERVED = ("snakemake", "r2m", "dvc")


def hand_over(address: str) -> None:
    """Let the server run this process's command, and end with its exit status."""
    import json
    import socket

    request = {"command": sys.orig_argv[1:], "directory": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [b"\n"], [0, 1, 2])
        connection.sendall(json.dumps(request).encode() + b"\n")
        status = connection.recv(1)
    os._exit(status[0] if status else 1)


def is_served(command: list[str]) -> bool:
    """Tell whether a command is a module or script of the workflow."""
    first, second = [*command, "", ""][:2]
    if first == "-m":
        return second in SERVED
    return os.path.basename(first) in SERVED or "/.snakemake/scripts/" in first


if "FORK_SERVER" in os.environ and is_served(sys.orig_argv[1:]):
    hand_over(os.environ["FORK_SERVER"])
