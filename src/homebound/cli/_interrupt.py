"""Ctrl-C while a server does not answer: its requests are given up after a moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ..block import Disk

T = TypeVar("T")

_GRACE = 2.0  # seconds for requests that change a disk, which are waited for


async def ending_with(work: Coroutine[Any, Any, T], *disks: Disk) -> T:
    """Do the work; if it is cancelled and does not end in time, close the disks, which ends it."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,))
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait((task,), timeout=_GRACE)
        if not task.done():
            for disk in disks:
                disk.close()
            await asyncio.wait((task,))
        raise
    return task.result()
