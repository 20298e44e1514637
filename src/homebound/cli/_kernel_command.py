"""The options of `homebound kernel`: a Jupyter kernel whose loop is homebound's."""

from __future__ import annotations

import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from ._began import Progress
from ._errors import CommandError
from ._stdio import put, tell
from ._types import PATH, TEXT

# ipykernel runs on the current event loop, if there is one.
_LAUNCH = """\
import asyncio, homebound
asyncio.set_event_loop(homebound.new_event_loop())
from ipykernel.kernelapp import launch_new_instance
launch_new_instance()
"""


@click.group()
def kernel() -> None:
    """Install a Jupyter kernel in whose cells `homebound.block_on` can wait."""


@kernel.command()
@click.option(
    "--user",
    "place",
    flag_value="user",
    help="Install it for this user.  [default, outside of a virtual environment]",
)
@click.option(
    "--sys-prefix",
    "place",
    flag_value="sys-prefix",
    help="Install it into this Python's environment.  [default, in a virtual environment]",
)
@click.option("--prefix", type=PATH, help="Install it into PREFIX/share/jupyter/kernels.")
@click.option(
    "--name", type=TEXT, default="homebound", show_default=True, help="Name the kernel's folder."
)
@click.pass_context
def install(ctx: click.Context, *, place: str | None, prefix: str | None, name: str) -> None:
    """Install a kernel for Jupyter, of this Python, whose event loop is homebound's.

    Its folder is written to standard output. A kernel of that name is replaced. Needs ipykernel.
    """
    ctx.ensure_object(Progress).began = True
    if place is not None and prefix is not None:
        raise click.UsageError(f"--{place} and --prefix are two places; choose one")
    if prefix is None:
        prefix = _prefix(place)
    specs = _import("ipykernel.kernelspec")
    manager = _import("jupyter_client.kernelspec").KernelSpecManager()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel")
        specs.write_kernel_spec(source, overrides=_overrides(name))
        try:
            installed = manager.install_kernel_spec(
                str(source), kernel_name=name, user=prefix is None, prefix=prefix
            )
        except ValueError as error:  # the name's
            raise click.UsageError(str(error)) from None
    put(installed)
    tell(f"homebound: to remove it, delete that folder, or: jupyter kernelspec remove {name}")


def _prefix(place: str | None) -> str | None:
    """Return the prefix of a place, None for the user's."""
    in_environment = sys.prefix != sys.base_prefix if place is None else place == "sys-prefix"
    return sys.prefix if in_environment else None


def _overrides(name: str) -> dict[str, Any]:
    """Return what differs from ipykernel's own kernel.json."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = ["-Xfrozen_modules=off", "-c", _LAUNCH, "-f", "{connection_file}"]
    return {"argv": [sys.executable, *command], "display_name": f"Python {version} ({name})"}


def _import(module: str) -> Any:
    """Import a module of Jupyter's. Raises CommandError if it is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise CommandError(
            f"kernel install needs {error.name}, which is not installed; "
            "install it with: pip install ipykernel"
        ) from error
