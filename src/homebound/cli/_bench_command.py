"""The options of `homebound bench`."""

from __future__ import annotations

from contextlib import closing

import click

from .._threads.run import run
from ._began import Progress
from ._bench import MIXED, READ, READS_OF_MIXED, WRITE, BenchJob
from ._sizes import show_size
from ._types import DISK, SECONDS, SIZE

_MOST = 1 << 30  # bytes in flight
_SHORTEST = 0.01  # seconds


@click.command()
@click.argument("spec", metavar="DISK", type=DISK)
@click.option("--read", "mode", flag_value=READ, default=True, help="Read.  [default]")
@click.option("--write", "mode", flag_value=WRITE, help="Write. DESTROYS what DISK contains.")
@click.option(
    "--mixed",
    "mode",
    flag_value=MIXED,
    help=f"Read {READS_OF_MIXED} times of 100, and write. DESTROYS what DISK contains.",
)
@click.option(
    "--block-size", type=SIZE, default="4K", show_default=True, help="Bytes of each request."
)
@click.option(
    "--depth",
    type=click.IntRange(1, 4096),
    default=32,
    show_default=True,
    help="Keep this many requests in flight.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Make this many connections to an NBD server that allows several.",
)
@click.option(
    "--seconds",
    metavar="SECONDS",
    type=SECONDS,
    default=10.0,
    show_default=True,
    help="Measure for so long.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the figures as one line of JSON.")
@click.pass_context
def bench(  # noqa: PLR0913  (one parameter an option)
    ctx: click.Context,
    *,
    spec: str,
    mode: str,
    block_size: int,
    depth: int,
    connections: int,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure DISK: requests at random offsets, their rate and how long they take.

    DISK is an image or a block device, an NBD URI, `memory:SIZE`, or a disk written in Python
    (`disk.py`). A file is read and written through the page cache.

    Without --write or --mixed nothing is written. With them DISK is overwritten, without asking.
    """
    ctx.ensure_object(Progress).began = True
    if seconds < _SHORTEST:
        raise click.UsageError(f"--seconds: {seconds} is less than {_SHORTEST}")
    if depth * block_size > _MOST:
        words = f"{depth} blocks of {show_size(block_size)}"
        raise click.UsageError(f"{words} in flight are more than {show_size(_MOST)} of memory")
    job = BenchJob(spec, mode, block_size, depth, connections, seconds, as_json)
    with closing(job.run()) as work:  # for the case that no loop can be made
        run(work)
