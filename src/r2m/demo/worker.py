"""A process of its own that scores files: what takes too long, or crashes, is ended without the page."""

import multiprocessing
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from r2m.demo.answer import Answer
from r2m.errors import R2MError


class Scorer(Protocol):
    """What scores files: `r2m.demo.scoring.FileScorer`."""

    @property
    def cuts(self) -> tuple[float, float]:
        """Probabilities below which a face is real, and from which it is fake."""
        ...

    def __call__(self, path: Path) -> Answer:
        """Return what is said of a file."""
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

    `load` is called in that process. `interrupt` and `stop` may be called from any thread, all else from one
    at a time.
    """

    def __init__(self, load: Callable[[], Scorer]) -> None:
        self._load = load
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._is_interrupted = False
        self._stopping = Lock()

    def start(self) -> tuple[float, float]:
        """Start the process unless it runs, wait until it can score, and return the detector's cuts.

        Raises:
            R2MError: the detector cannot be loaded.
        """
        if self._is_interrupted or (self._process is not None and not self._process.is_alive()):
            self.stop()
        if self._connection is None:
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(self._load, theirs), daemon=True)
            process.start()
            theirs.close()
            self._process = process
            otherwise = "the detector cannot be loaded: its process ended"
            self._cuts = self._received(self._connection, otherwise)
        return self._cuts

    def score(self, path: Path, seconds: float) -> dict[str, Any]:
        """Return the `Answer` for a file, as JSON; loading the detector does not count in the time.

        Raises:
            R2MError: it takes longer than so many seconds, or its process ended.
        """
        self.start()
        connection = self._connection  # another thread may stop the process, and forget it, at any time
        if connection is None:
            raise R2MError("cannot be scored: its process ended without an answer")
        try:
            connection.send(path)
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


def _serve(load: Callable[[], Scorer], connection: Connection) -> None:
    """Answer with the cuts, or what is wrong with the detector; then score the files that are sent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the page's process, which ends this one
    try:
        scorer = load()
    except (R2MError, OSError) as error:
        connection.send(str(error))
        return
    connection.send(scorer.cuts)
    while True:
        try:
            path = connection.recv()
        except EOFError:
            return
        connection.send(scorer(path).model_dump(mode="json"))
