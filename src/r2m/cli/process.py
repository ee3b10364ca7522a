"""Beginning and end of a process of r2m: its log, and its exit."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

import click

from r2m.errors import R2MError
from r2m.terminal import printable

Item = TypeVar("Item")

# Characters that messages are laid out with.
LAYOUT = "\n\t"


def set_up_logging(verbose: bool = False) -> None:
    """Log to standard error."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(levelname).1s %(name)s: %(message)s",
        stream=sys.stderr,
    )


class Ended(BaseException):
    """A signal ends the process; no Exception, so that nobody takes it for what is wrong with a file.

    `told` is what was done until then, if there is anything to tell.
    """

    def __init__(self, number: int, told: str = "") -> None:
        super().__init__(number)
        self.number, self.told = number, told


def guarded(call: Callable[[], object]) -> None:
    """Call a function; bad input, or what the system refuses, ends the process with one line and 1.

    SIGTERM and SIGHUP end it like an error, so that nothing half-made is left; a second one ends it at once.
    """
    # oneMKL's and OpenMP's workers spin while idle, which starves the other job of a two-core machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with Signals(signal.SIGTERM, signal.SIGHUP):
            call()
    except Ended as end:
        with suppress(OSError):
            told = f": {end.told}" if end.told else ""
            click.echo(printable(f"r2m: ended by {signal.Signals(end.number).name}{told}"), err=True)
        leave(128 + end.number, at_once=True)
    except (R2MError, OSError) as error:
        with suppress(OSError):
            click.echo(f"r2m: error: {printable(str(error), keep=LAYOUT)}", err=True)
        leave(1)


class Signals:
    """Signals that end the process: the first raises `Ended` in the main thread, the second ends it at once.

    One that is ignored, as under nohup, stays so. Afterwards they do what they did before, or end the process
    at once if one came. `done` counts the items of `between`.
    """

    done = 0

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers
        self._before: dict[signal.Signals, Any] = {}
        self._process = os.getpid()
        self._came: int | None = None
        self._raises = True

    def __enter__(self) -> Self:
        handlers = {number: signal.getsignal(number) for number in self._numbers}
        self._before = {
            number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)
        }
        for number in self._before:
            signal.signal(number, self._end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if self._came is None else signal.SIG_DFL)
        if self._came is not None and error is None:
            raise Ended(self._came)

    def between(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items; a signal that comes while one is in use is raised before the next, not at once.

        So what is done with an item is done whole, and so is what follows the last one.
        """
        iterator = iter(items)
        while True:
            self._raises = True
            if self._came is not None:
                raise Ended(self._came)
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._raises = False
            yield item
            self.done += 1

    def _end(self, number: int, frame: FrameType | None) -> None:
        for one in self._before:
            signal.signal(one, signal.SIG_DFL)
        if os.getpid() != self._process:  # a fork has nothing to clean up
            os.kill(os.getpid(), number)
        self._came = number
        if self._raises:
            raise Ended(number)


def leave(status: int, at_once: bool = False) -> None:
    """End the process; where torch is loaded, without the interpreter's own end.

    That runs the exit code of all CUDA libraries, which takes 0.13 GB and 0.3 s on a machine without a GPU
    too. It also waits for what is queued in threads, unless the process is to end `at_once`.
    """
    if "torch" not in sys.modules and not at_once:
        sys.exit(status)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads any more, and the work is done
            if stream is not None:
                stream.flush()
    os._exit(status)
