"""The server behind the page."""

import socket
from collections.abc import Callable
from contextlib import closing, suppress

import uvicorn

from r2m.demo.app import Limits, create_app
from r2m.demo.worker import ScorerOptions, Worker
from r2m.errors import R2MError

# Requests that are still answered so many seconds after Ctrl-C are ended.
PATIENCE = 1


def serve(
    options: ScorerOptions, limits: Limits, host: str, port: int, announce: Callable[[str], object]
) -> None:
    """Serve the page until Ctrl-C or another signal ends it; `announce` is called with its address.

    Raises:
        R2MError: the address cannot be bound, or the detector cannot be loaded.
    """
    worker = Worker(options.load)
    with listening(host, port) as bound, suppress(KeyboardInterrupt):
        try:
            worker.start()
            announce(address(bound))
            server_of(worker, limits, "/".join(options.model.parts[-3:]), host).run(sockets=[bound])
        finally:
            worker.stop()


def listening(host: str, port: int) -> "closing[socket.socket]":
    """Return a socket that listens; port 0 takes any that is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return closing(socket.create_server((host, port), family=family))
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]  # the address follows, which is told already
        raise R2MError(f"--host {host} --port {port}: cannot be bound ({reason})") from error


def address(bound: socket.socket) -> str:
    """Return the address of the page."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def server_of(worker: Worker, limits: Limits, model: str, host: str) -> uvicorn.Server:
    """Return the server of a worker's page, which is bound to `host`."""
    config = uvicorn.Config(
        create_app(worker, limits, model, host),
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=PATIENCE,
    )
    return uvicorn.Server(config)
