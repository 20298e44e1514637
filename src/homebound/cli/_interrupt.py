"""Ctrl-C while a disk or a server does not answer: its requests are given up after a moment."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from ._stdio import tell

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from ..block import Disk

T = TypeVar("T")

_GRACE = 2.0  # seconds for requests that change a disk, which are waited for
_INTERRUPTED = 130
_SHOW_CURSOR = "\x1b[?25h"  # which a progress display has hidden


async def ending_with(work: Coroutine[Any, Any, T], *disks: Disk) -> T:
    """Do the work; if it is cancelled and does not end in time, close the disks, which ends it.

    A call that is stuck in a thread ends at nothing. Then the process does, after as long again.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,))
    except asyncio.CancelledError:
        task.cancel()
        await _until_done(task, disks)
        raise
    return task.result()


async def _until_done(task: asyncio.Future[Any], disks: Iterable[Disk]) -> None:
    """Wait for the end, which comes soon; until then Ctrl-C has no further effect."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop = asyncio.get_running_loop()
    timers = [loop.call_later(_GRACE, _close, disks), loop.call_later(2 * _GRACE, _give_up)]
    try:
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError:
                continue  # the caller raises one
    finally:
        for timer in timers:
            timer.cancel()
        signal.signal(signal.SIGINT, before)


def _close(disks: Iterable[Disk]) -> None:
    for disk in disks:
        disk.close()


def _give_up() -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        tell(_SHOW_CURSOR)
    tell("homebound: interrupted; a request that does not end was given up")
    os._exit(_INTERRUPTED)
