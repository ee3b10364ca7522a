"""Beginning and end of a process of r2m: its log, and its exit."""

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress

import click

from r2m.errors import R2MError


def set_up_logging(verbose: bool = False) -> None:
    """Log to standard error."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(levelname).1s %(name)s: %(message)s",
        stream=sys.stderr,
    )


def guarded(call: Callable[[], object]) -> None:
    """Call a function; bad input, or what the system refuses, ends the process with one line and 1."""
    # oneMKL's and OpenMP's workers spin while idle, which starves the other job of a two-core machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        call()
    except (R2MError, OSError) as error:
        with suppress(OSError):
            click.echo(f"r2m: error: {error}", err=True)
        leave(1)


def leave(status: int) -> None:
    """End the process; where torch is loaded, without the interpreter's own end.

    That runs the exit code of all CUDA libraries, which takes 0.13 GB and 0.3 s on a machine without a GPU
    too.
    """
    if "torch" not in sys.modules:
        sys.exit(status)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads any more, and the work is done
            if stream is not None:
                stream.flush()
    os._exit(status)
