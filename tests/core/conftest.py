"""Gates and runners for the tests of the core."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import to_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def gate() -> Iterator[Callable[[homebound.AioContext], threading.Event]]:
    """`gate(context)` keeps its home busy until the event it returns is set."""
    opened = []

    def close(context: homebound.AioContext) -> threading.Event:
        busy, go_on = threading.Event(), threading.Event()
        opened.append(go_on)

        def hold() -> None:
            busy.set()
            go_on.wait(20)

        context.call_soon(hold)
        assert busy.wait(20)
        return go_on

    yield close
    for event in opened:
        event.set()


@pytest.fixture(params=["homebound", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Run a coroutine by asyncio.run or homebound.run: tests must hold with both."""
    return homebound.run if request.param == "homebound" else asyncio.run


@pytest.fixture
def loop() -> Iterator[Any]:
    """A loop of asyncio's."""
    loop = asyncio.SelectorEventLoop()
    yield loop
    loop.close()


class Gate:
    """A job for any executor, in this process or another, which ends when the test says so.

    Reading a FIFO begins when its other end is opened for writing, and ends when that is closed.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.job = (Path.read_bytes, path)
        self._path = path

    async def begun(self) -> None:
        """Wait until an executor has begun the job."""
        self._end = await to_worker(self._path.open, "wb")

    def end(self) -> None:
        """Let the job return b""."""
        self._end.close()


@pytest.fixture
def held_job(tmp_path: Path) -> Callable[[], Gate]:
    """`held_job()` makes one more job that is held."""
    numbers = itertools.count()
    return lambda: Gate(tmp_path / f"gate{next(numbers)}")


@pytest.fixture
def collected_between_tests() -> Iterator[None]:
    """Collect a broken pool's semaphores, which are garbage, between tests.

    Their finalisers call multiprocessing's resource tracker. Collected in the middle of a call to
    the tracker, as the next pool is made, they call it again (python/cpython#109629).
    """
    gc.disable()
    yield
    gc.collect()
    gc.enable()


@pytest.fixture
def program() -> Callable[[str], str]:
    """`program(source)` runs a program of its own, which must not fail, and returns its output."""

    def run_it(source: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(source)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run_it


@pytest.fixture
def watched() -> Iterator[None]:
    """Watch for stalls, so that locks record their holders; a look every 100 seconds."""
    with homebound.watch_stalls(200):
        yield
