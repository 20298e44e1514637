"""The commands and their options."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from .._threads.run import run
from ..nbd._server.server import DEFAULT_PORT
from ._announce import Served
from ._disks import AUTO, FORMATS, Opener, label_of
from ._serve import Address, serve_until_stopped
from ._signals import Signals
from ._sizes import parse_size

_DEFAULT_SIZE = 1 << 30


if TYPE_CHECKING:
    _SizeType = click.ParamType[int]
    _NameType = click.ParamType[str]
else:  # click 8.1's takes no type
    _SizeType = _NameType = click.ParamType


class _Size(_SizeType):
    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Name(_NameType):
    """A path, or what else may not be empty; bytes that are no text are kept as they are."""

    def __init__(self, name: str) -> None:
        self.name = name

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        if not value:
            self.fail("it is empty", param, ctx)
        return str(value)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="homebound")
def homebound() -> None:
    """Serve disks over NBD."""


@homebound.command()
@click.argument("image", required=False, type=_Name("path"))
@click.option(
    "--size",
    type=_Size(),
    help="Without IMAGE, make the disk in memory this large: 512M, 1G.  [default: 1G]",
)
@click.option(
    "--format",
    "image_format",
    type=click.Choice(FORMATS),
    default=AUTO,
    show_default=True,
    help="Take IMAGE for this format. `raw` serves its bytes as they are.",
)
@click.option("--read-only", is_flag=True, help="Reject writes, and share IMAGE with a writer.")
@click.option(
    "--no-lock", is_flag=True, help="Open IMAGE even if QEMU or another server writes to it."
)
@click.option("--name", default="", help="Name the export.  [default: the empty name]")
@click.option("--unix", type=_Name("path"), help="Listen on this Unix socket.")
@click.option("--host", type=_Name("host"), help="Listen on this address.  [default: 127.0.0.1]")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help=f"Listen on this port; 0 takes a free one.  [default: {DEFAULT_PORT}]",
)
@click.option(
    "--iothreads",
    type=click.IntRange(0, 256),
    default=1,
    show_default=True,
    help="Serve clients in this many threads; 0 serves them in the main one.",
)
def serve(  # noqa: PLR0913  (one parameter an option)
    *,
    image: str | None,
    size: int | None,
    image_format: str,
    read_only: bool,
    no_lock: bool,
    name: str,
    unix: str | None,
    host: str | None,
    port: int | None,
    iothreads: int,
) -> None:
    """Serve IMAGE, a raw disk image or block device, over NBD until Ctrl-C or SIGTERM.

    Without IMAGE, serve a disk in memory, which takes room only where it is written.

    The URI of each export is written to standard output once clients can connect. SIGUSR1 shows
    statistics. SIGTERM, SIGINT, SIGHUP and SIGQUIT stop the server: requests in flight are
    answered, and the image is flushed.
    """
    if image is not None and size is not None:
        raise click.UsageError("--size is for a disk in memory; the size of IMAGE is its own")
    if unix is not None and (host is not None or port is not None):
        raise click.UsageError("--unix and --host/--port are two places to listen; choose one")
    address = Address(unix, host or "127.0.0.1", DEFAULT_PORT if port is None else port)
    spec = image if image is not None else f"memory:{size or _DEFAULT_SIZE}"
    opener = Opener(image_format, read_only=read_only, lock=not no_lock)
    with Signals() as signals, ExitStack() as disks:
        signals.overdue = opener.overdue
        disk = disks.enter_context(opener.open(spec))
        served = [Served(name, "memory" if image is None else label_of(image), disk)]
        run(serve_until_stopped(served, address, iothreads, signals))
