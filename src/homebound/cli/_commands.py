"""The commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .._threads.run import run
from ..block import DiskError, FileDisk, MemoryDisk
from ..nbd import NBDError
from ..nbd._server.server import DEFAULT_PORT
from ._serve import Address, serve_until_stopped
from ._sizes import parse_size

if TYPE_CHECKING:
    from ..block import Disk


class _Size(click.ParamType[int]):
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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="homebound")
def homebound() -> None:
    """Coroutines with a home, and what they are good for."""


@homebound.command()
@click.argument("image", required=False, type=click.Path(path_type=Path, readable=False))
@click.option(
    "--size",
    type=_Size(),
    help="Without IMAGE: how large the disk in memory is, such as 512M or 1G (the default).",
)
@click.option("--unix", type=click.Path(path_type=Path), help="Listen on this Unix socket.")
@click.option("--host", help="Listen on this address.  [default: 127.0.0.1]")
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
    help="Threads that serve the clients; 0: the main one does.",
)
@click.option("--read-only", is_flag=True, help="Let nobody write.")
@click.option("--name", default="", help="The export's name.  [default: the empty one]")
def serve(  # noqa: PLR0913  (one parameter an option)
    *,
    image: Path | None,
    size: int | None,
    unix: Path | None,
    host: str | None,
    port: int | None,
    iothreads: int,
    read_only: bool,
    name: str,
) -> None:
    """Serve IMAGE, a raw disk image or block device, over NBD until Ctrl-C or SIGTERM.

    Without IMAGE it is a disk in memory, which takes room only where it is written.
    """
    if image is not None and size is not None:
        raise click.UsageError("--size is for a disk in memory; the size of IMAGE is its own")
    if unix is not None and (host is not None or port is not None):
        raise click.UsageError("--unix and --host/--port are two places to listen; choose one")
    address = Address(unix, host or "127.0.0.1", DEFAULT_PORT if port is None else port)
    try:
        with _open(image, size, read_only=read_only) as disk:
            run(serve_until_stopped(disk, name, address, iothreads))
    except (DiskError, NBDError) as error:
        raise click.ClickException(str(error)) from error


def _open(image: Path | None, size: int | None, *, read_only: bool) -> Disk:
    if image is None:
        return MemoryDisk(1 << 30 if size is None else size, read_only=read_only)
    return FileDisk(image, read_only=read_only)
