"""The server behind the page."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress

import uvicorn

from r2m.demo.app import App, Limits
from r2m.demo.worker import ScorerOptions, Worker
from r2m.errors import R2MError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# After Ctrl-C, so many seconds are waited at most: for a process that is slow to end, or answers not fetched.
PATIENCE = 5


class Server(uvicorn.Server):
    """A server that signals end at once, with what it scores."""

    def __init__(self, config: uvicorn.Config, app: App) -> None:
        super().__init__(config)
        self._app = app
        self._ended_by: list[signal.Signals] = []

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Let signals end the server, and raise the first again afterwards; ignored ones stay so."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in SIGNALS}
        taken = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
        try:
            for number in taken:
                loop.add_signal_handler(number, self._end_by, number)
            yield
        finally:
            for number in taken:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number])
        for number in self._ended_by[:1]:
            signal.raise_signal(number)

    def _end_by(self, number: signal.Signals) -> None:
        self._ended_by.append(number)
        self._app.end()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what is in flight, and then the server."""
        self._app.end()
        await super().shutdown(sockets)


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
            worker.close()
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


def server_of(worker: Worker, limits: Limits, model: str, host: str) -> Server:
    """Return the server of a worker's page, which is bound to `host`; the worker is closed when it ends."""
    app = App(worker, limits, model, host)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=PATIENCE,
    )
    return Server(config, app)
