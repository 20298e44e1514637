"""The options of `homebound copy`."""

from __future__ import annotations

import os
from contextlib import closing

import click

from .._threads.run import run
from ..block._names import MEMORY, is_uri
from ._began import Progress
from ._copy import CopyJob
from ._disks import AUTO, FORMATS, is_image
from ._places import STREAM
from ._remote import DIRTY_BITMAP, RECONNECT_DELAY, Link
from ._types import PATH, PLACE, SECONDS, TEXT


@click.command()
@click.argument("source", metavar="SRC", type=PLACE)
@click.argument("target", metavar="DST", type=PLACE)
@click.option(
    "--connections",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Make this many connections to each NBD server that allows several.",
)
@click.option(
    "--reconnect-delay",
    metavar="SECONDS",
    type=SECONDS,
    default=RECONNECT_DELAY,
    show_default=True,
    help="Wait this long for an NBD server whose connection is lost, and go on there; then the "
    "copy fails.",
)
@click.option(
    "--bitmap",
    type=TEXT,
    help="Copy only what QEMU's dirty bitmap of this name says has changed. SRC is an NBD URI; "
    "the rest of DST is kept.",
)
@click.option(
    "--resume",
    metavar="STATE",
    type=PATH,
    help="Keep in this file how far the copy has come, and go on from there if it exists. It is "
    "removed at the end.",
)
@click.option(
    "--source-format",
    type=click.Choice(FORMATS),
    default=AUTO,
    show_default=True,
    help="Take SRC, an image, for this format. `raw` copies its bytes as they are, `qcow2` follows "
    "the backing files that it names.",
)
@click.option(
    "--format",
    "raw",
    type=click.Choice(["raw"]),
    help="Replace DST by a raw image if it is an image of another format, such as qcow2; without "
    "this it is refused.",
)
@click.option("--verify", is_flag=True, help="Read both back afterwards, and compare.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Write the progress, each second, and a summary to standard output, as lines of JSON.",
)
@click.pass_context
def copy(  # noqa: PLR0913  (one parameter an option)
    ctx: click.Context,
    *,
    source: str,
    target: str,
    connections: int,
    reconnect_delay: float,
    bitmap: str | None,
    resume: str | None,
    source_format: str,
    raw: str | None,
    verify: bool,
    as_json: bool,
) -> None:
    """Copy the disk SRC to DST.

    Each is an image or a block device, an NBD URI, `memory:SIZE`, a disk written in Python
    (`disk.py`), or `-` for standard input or output. A qcow2 image can be SRC; one with a backing
    file takes `--source-format qcow2`.

    If DST is a file, or does not exist, it is made anew with the size of SRC. Anything else must be
    large enough; what it has beyond the size of SRC is kept. Holes and zeroes are neither read, if
    SRC can tell them, nor written, if DST can do without.

    A copy that fails, or that Ctrl-C stops, leaves in DST what it has copied.
    """
    ctx.ensure_object(Progress).began = True
    _check_use(source, target, bitmap=bitmap, resume=resume)
    if source_format != AUTO and (source == STREAM or not is_image(source)):
        text = f"--source-format {source_format} is for an image; {source!r} is none"
        raise click.UsageError(text)
    if STREAM in (source, target) and verify:
        raise click.UsageError(f"--verify cannot read {STREAM} again")
    if target == STREAM and as_json:
        raise click.UsageError(f"--json and DST {STREAM} both write to standard output")
    if bitmap is not None:
        bitmap = bitmap.removeprefix(DIRTY_BITMAP)
    job = CopyJob(
        source,
        target,
        Link(connections, reconnect_delay),
        bitmap,
        resume,
        verify,
        as_json,
        raw=raw is not None,
        source_format=source_format,
    )
    with closing(job.run()) as work:  # for the case that no loop can be made
        run(work)


def _check_use(source: str, target: str, *, bitmap: str | None, resume: str | None) -> None:
    if source == target == STREAM:
        raise click.UsageError(f"SRC and DST are both {STREAM}")
    if bitmap is not None and not is_uri(source):
        raise click.UsageError("--bitmap needs an NBD URI as SRC")
    streams = STREAM in (source, target)
    if bitmap is not None and streams:
        raise click.UsageError(f"--bitmap needs offsets, which {STREAM} has not")
    if resume is not None and (streams or MEMORY in (source[:7], target[:7])):
        raise click.UsageError(f"--resume cannot find {STREAM} or {MEMORY}SIZE again")
    if resume is not None and os.path.realpath(resume) in map(os.path.realpath, (source, target)):
        raise click.UsageError("--resume needs a file of its own, that is neither SRC nor DST")
