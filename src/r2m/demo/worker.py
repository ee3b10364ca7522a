"""A process of its own that scores files: what takes too long, or crashes, is ended without the page."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Protocol

from r2m.demo.answer import Answer
from r2m.errors import R2MError

ENDED = "no answer: the server is being ended"


class Scorer(Protocol):
    """What scores files: `r2m.demo.scoring.FileScorer`."""

    @property
    def cuts(self) -> tuple[float, float]:
        """Probabilities below which a face is real, and from which it is fake."""
        ...

    def __call__(self, path: Path, explain: bool) -> Answer:
        """Return what is said of a file, with maps of relevance if it is to `explain` that."""
        ...


@dataclass(frozen=True)
class ScorerOptions:
    """Which detector scores, and where the face detector is."""

    model: Path
    base: Path | None
    faces: Path
    device: str

    def load(self) -> Scorer:
        """Return the scorer; raises R2MError for a file that is not there or is none."""
        # Imported here: the page's own process needs no torch.
        from r2m.demo.scoring import FileScorer

        return FileScorer(self.model, self.base, self.faces, self.device)


class Worker:
    """Scores one file at a time in a process that is started when it is needed, and anew after it ended.

    `load` is called in that process. `interrupt`, `stop` and `close` may be called from any thread, all else
    from one at a time.
    """

    def __init__(self, load: Callable[[], Scorer]) -> None:
        self._load = load
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._is_interrupted = False
        self._is_closed = False
        self._stopping = Lock()

    def start(self) -> tuple[float, float]:
        """Start the process unless it runs, wait until it can score, and return the detector's cuts.

        Raises:
            R2MError: the detector cannot be loaded, or the worker is closed.
        """
        if self._is_closed:
            raise R2MError(ENDED)
        if self._is_interrupted or (self._process is not None and not self._process.is_alive()):
            self.stop()
        if self._connection is None:
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(self._load, theirs), daemon=True)
            with _interrupts_blocked():
                process.start()
            theirs.close()
            self._process = process
            if self._is_closed:  # by another thread, which did not see this process yet
                self.interrupt()
            otherwise = "the detector cannot be loaded: its process ended"
            self._cuts = self._received(self._connection, otherwise)
        return self._cuts

    def score(
        self, path: Path, seconds: float, explain: bool = False, is_left: Event | None = None
    ) -> dict[str, Any]:
        """Return the `Answer` for a file, as JSON; loading the detector does not count in the time.

        `is_left` is set before `interrupt` is called, which may be before there is a process to end.

        Raises:
            R2MError: it takes longer than so many seconds, its process ended, or the worker is closed.
        """
        self.start()
        connection = self._connection  # another thread may stop the process, and forget it, at any time
        if connection is None or (is_left is not None and is_left.is_set()):
            raise R2MError("cannot be scored: its process ended without an answer")
        try:
            connection.send((path, explain))
            is_done = connection.poll(seconds)
        except OSError:  # the process ended since the last file
            is_done = True
        if not is_done:
            self.stop()
            raise R2MError(f"cannot be scored: takes longer than {seconds:g} s")
        return self._received(connection, "cannot be scored: its process ended without an answer")

    def interrupt(self) -> None:
        """End the process, so that `score` returns at once."""
        process = self._process
        if process is not None:
            self._is_interrupted = True
            process.kill()

    def close(self) -> None:
        """End the process for good: none is started any more."""
        self._is_closed = True
        self.interrupt()

    def stop(self) -> None:
        """End the process and forget it."""
        self.interrupt()
        with self._stopping:
            process, connection = self._process, self._connection
            self._process = self._connection = None
            if process is not None and connection is not None:
                process.join()
                connection.close()
            self._is_interrupted = False

    def _received(self, connection: Connection, otherwise: str) -> Any:
        """Return what the process sends; raises R2MError if it sends an error, or `otherwise` if it ended."""
        try:
            received = connection.recv()
        except (EOFError, OSError) as error:
            self.stop()
            raise R2MError(otherwise) from error
        if isinstance(received, str):
            self.stop()
            raise R2MError(received)
        return received


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Let processes be started that never see SIGINT.

    Ctrl-C reaches them too, but is for the page's own process, which ends them. They inherit what the thread
    blocks that starts them, so that not even their imports are interrupted.
    """
    resource_tracker.ensure_running()  # to start it would unblock SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(load: Callable[[], Scorer], connection: Connection) -> None:
    """Answer with the cuts, or what is wrong with the detector; then score the files that are sent."""
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        scorer = load()
    except (R2MError, OSError) as error:
        connection.send(str(error))
        return
    connection.send(scorer.cuts)
    while True:
        try:
            path, explain = connection.recv()
        except EOFError:
            return
        connection.send(scorer(path, explain).model_dump(mode="json"))


def _end_with_parent() -> None:
    """End this process, whatever it does, when the page's own has ended, which may have been killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
