"""The `homebound` command. Each command of it is loaded when it is used.

They take longer to load than all that Python, asyncio and click need to start. The collector of
cycles is off until then, as it would find nothing, and never looks at what they have loaded.
"""

from __future__ import annotations

import gc
from importlib import import_module

import click

from .. import __version__

# The module of each command, which has a command of that name, and its line in `homebound --help`.
_COMMANDS = {
    "bench": ("_bench_command", "Measure DISK: the rate of requests, and how long they take."),
    "copy": ("_copy_command", "Copy the disk SRC to DST."),
    "info": ("_info_command", "Show what DISK is: its size, what it can do, its block sizes."),
    "kernel": ("_kernel_command", "Install a Jupyter kernel whose loop is homebound's."),
    "ps": ("_ps_command", "Show the tasks of a running program."),
    "pstree": ("_ps_command", "Show the tasks of a running program as a tree."),
    "serve": ("_serve_command", "Serve IMAGE over NBD until Ctrl-C or SIGTERM."),
    "top": ("_ps_command", "Show the homes of a running program and what they do."),
}


class Commands(click.Group):
    """A group whose commands are imported by `get_command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in order."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command; None if there is none of that name."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        command = getattr(import_module(f".{module}", __package__), cmd_name)
        if not gc.isenabled():  # `main` is loading
            gc.freeze()
            gc.enable()
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, without loading them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)  # the distribution's metadata takes as long to read as asyncio
def homebound() -> None:
    """Serve disks over NBD, copy them, show what they are, and measure them.

    Look at a running program. Install a Jupyter kernel.
    """
