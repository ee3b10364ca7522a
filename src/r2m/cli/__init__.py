"""The command `r2m`: each subcommand is a module of this package, imported only when it is called."""

import importlib

import click

from r2m.cli.process import guarded, leave, set_up_logging
from r2m.version import __version__

# Heading of the help → its commands, in the order of the help.
SECTIONS = {
    "Models": ("merge", "methods", "inspect", "diff", "score", "detect", "demo", "export"),
    "Data": ("index", "validate"),
    "Workflow": ("finetune", "job", "prune", "restore", "schema"),
}


class LazyCommands(click.Group):
    """Finds each subcommand in the module of its name, as `command`, and shows them by sections."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands."""
        return [name for names in SECTIONS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one subcommand."""
        if cmd_name not in self.list_commands(ctx):
            return None
        return importlib.import_module(f"r2m.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the first sentence of every command, whole."""
        for heading, names in SECTIONS.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(heading):
                formatter.write_dl(
                    [(name, one.get_short_help_str(limit=200)) for name, one in commands if one is not None]
                )


@click.group(cls=LazyCommands)
@click.version_option(__version__, prog_name="r2m")
@click.option("-v", "--verbose", is_flag=True, help="Log debugging details as well.")
def r2m(verbose: bool) -> None:
    """Merge deepfake specialists in weight space, without training."""
    set_up_logging(verbose)


def main() -> None:
    """Run the command line; bad input prints one line and exits with 1."""
    try:
        guarded(r2m)
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        leave(end.code)
