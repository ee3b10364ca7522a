"""The command `r2m`: one module of this package a subcommand, imported only when it is called."""

import importlib
import logging
import os
import pkgutil
import sys
from contextlib import suppress

import click

from r2m.errors import R2MError
from r2m.version import __version__

_SHARED = {"bench", "compute", "json_type", "named_file", "progress"}


class LazyCommands(click.Group):
    """Finds the subcommand `a-b` in the module `r2m.cli.a_b`, under the name `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands."""
        modules = (module.name for module in pkgutil.iter_modules(__path__))
        return sorted(name.replace("_", "-") for name in modules if name not in _SHARED)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one subcommand."""
        if cmd_name not in self.list_commands(ctx):
            return None
        return importlib.import_module(f"r2m.cli.{cmd_name.replace('-', '_')}").command


@click.group(cls=LazyCommands)
@click.version_option(__version__, prog_name="r2m")
@click.option("-v", "--verbose", is_flag=True, help="Log debugging details as well.")
def r2m(verbose: bool) -> None:
    """Merge deepfake specialists in weight space. Each stage of the workflow is one subcommand."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(levelname).1s %(name)s: %(message)s",
        stream=sys.stderr,
    )


def main() -> None:
    """Run the command line; bad input prints one line and exits with 1."""
    # oneMKL's and OpenMP's workers spin while idle, which starves the other job of a two-core machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        r2m()
    except R2MError as error:
        click.echo(f"r2m: error: {error}", err=True)
        _leave(1)
    except OSError as error:
        with suppress(OSError):
            click.echo(f"r2m: error: {error}", err=True)
        _leave(1)
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        _leave(end.code)


def _leave(status: int) -> None:
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
