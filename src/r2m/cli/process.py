"""Beginning and end of a process of r2m: its log, and its exit."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import click

from r2m.errors import R2MError


def set_up_logging(verbose: bool = False) -> None:
    """Log to standard error."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(levelname).1s %(name)s: %(message)s",
        stream=sys.stderr,
    )


class Ended(BaseException):
    """A signal ends the process; no Exception, so that nobody takes it for what is wrong with a file."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def guarded(call: Callable[[], object]) -> None:
    """Call a function; bad input, or what the system refuses, ends the process with one line and 1.

    SIGTERM and SIGHUP end it like an error, so that nothing half-made is left; a second one ends it at once.
    """
    # oneMKL's and OpenMP's workers spin while idle, which starves the other job of a two-core machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with _raising(signal.SIGTERM, signal.SIGHUP):
            call()
    except Ended as end:
        with suppress(OSError):
            click.echo(f"r2m: ended by {signal.Signals(end.number).name}", err=True)
        leave(128 + end.number, at_once=True)
    except (R2MError, OSError) as error:
        with suppress(OSError):
            click.echo(f"r2m: error: {error}", err=True)
        leave(1)


@contextmanager
def _raising(*numbers: signal.Signals) -> Iterator[None]:
    """Let signals raise `Ended` in the main thread, unless they are ignored, as under nohup."""
    process = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != process:  # a fork has nothing to clean up
            os.kill(os.getpid(), number)
        raise Ended(number)

    taken = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in taken:
            signal.signal(number, end)
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


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
