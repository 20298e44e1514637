"""Helpers of the deadlock tests: how a deadlock comes about, and what is reported of it."""

from __future__ import annotations

import asyncio
import io as text_io
import re
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import homebound
from homebound import block_on
from homebound._debug.deadlock import look_twice
from homebound._debug.stall import Look
from homebound.testing import settle_sync

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable


def until(condition: Callable[[], Any]) -> Any:
    """Wait until other threads have made the condition true; pytest's time limit ends the wait."""
    while True:
        result = condition()
        if result:
            return result
        time.sleep(0.0002)  # they may need the core, or the interpreter


def plain(text: object) -> str:
    """Return the text without addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(text))


def deadlock() -> str:
    """Return the deadlock that exists now or in a moment."""
    [found] = until(look_twice)
    return plain(found)


def dumped() -> str:
    out = text_io.StringIO()
    homebound.dump(out)
    return plain(out.getvalue())


def waits(queue_: Any, count: int = 1) -> None:
    until(lambda: len(queue_._waiters) == count)


async def both(first: Any, second: Any, have_one: Any) -> None:
    async with first:
        await have_one.wait()
        async with second:
            pass


async def hold(lock: Any, held: threading.Event) -> None:
    async with lock:
        held.set()
        await homebound.suspend()


async def take(lock: Any) -> None:
    async with lock:
        pass


def settle(*tasks: Any) -> None:
    """Cancel the tasks and wait for their end; one may go on because another does not."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            block_on(task)


def nothing_told() -> None:
    """Check that no deadlock is reported, by two looks of a watch that are far apart."""
    settle_sync()  # the looks are apart by their own clock: homes need not go to sleep in between
    look = Look(1.0)
    assert [stall for now in range(4) for stall in look(now)] == []
    assert look_twice() == []


def told_by(program: str) -> str:
    """Return what the watch of another process reports before it ends that process."""
    text = "import os, threading, homebound\n" + textwrap.dedent("""
    def report(stall):
        if stall.kind == "deadlock":
            print(stall.message, flush=True)
            os._exit(5)
    homebound.watch_stalls(0.02, report=report)
    """)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text + textwrap.dedent(program)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (5, "")
    return done.stdout.strip()
