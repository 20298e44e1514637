"""The options of `homebound info`."""

from __future__ import annotations

from contextlib import closing

import click

from .._threads.run import run
from ..block._names import is_uri
from ._began import Progress
from ._facts import CAPABILITIES
from ._info import InfoJob
from ._map import ALLOCATION
from ._types import DISK, TEXT


@click.command()
@click.argument("spec", metavar="DISK", type=DISK, required=False)
@click.option(
    "--map",
    "context",
    metavar="[CONTEXT]",
    type=TEXT,
    is_flag=False,
    flag_value=ALLOCATION,
    help="Show the extents of the disk: its data and holes, or what another metadata context of "
    "the export has, such as qemu:dirty-bitmap:NAME.",
)
@click.option(
    "--totals",
    is_flag=True,
    help="With --map, show the sum of each kind of extent instead; by itself, that of data and "
    "holes.",
)
@click.option("--list", "lists", is_flag=True, help="Show all exports of the server.")
@click.option(
    "--can",
    metavar="X",
    type=click.Choice(CAPABILITIES),
    help="Show nothing, and exit with 0 if X is true and with 2 if it is not. X: "
    + ", ".join(CAPABILITIES)
    + ".",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON, with nbdinfo's keys.")
@click.pass_context
def info(  # noqa: PLR0913  (one parameter an option)
    ctx: click.Context,
    *,
    spec: str | None,
    context: str | None,
    totals: bool,
    lists: bool,
    can: str | None,
    as_json: bool,
) -> None:
    """Show what DISK is: its size, what it can do, its block sizes.

    DISK is an NBD URI, an image or a block device, or a disk written in Python (`disk.py`).
    """
    ctx.ensure_object(Progress).began = True
    if totals and context is None:
        context = ALLOCATION
    if spec is None:  # `--map DISK`: the context is optional, and click has taken DISK for it
        if context is None:
            raise click.UsageError("DISK is missing")
        spec, context = DISK.convert(context, None, ctx), ALLOCATION
    if sum((context is not None, lists, can is not None)) > 1:
        raise click.UsageError("--map, --list and --can are three questions; ask one")
    if lists and not is_uri(spec):
        raise click.UsageError("--list needs the NBD URI of a server")
    job = InfoJob(spec, context, lists, can, as_json, totals)
    with closing(job.run()) as work:  # for the case that no loop can be made
        status = run(work)
    ctx.exit(status)
