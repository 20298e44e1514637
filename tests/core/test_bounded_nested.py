"""Nested waits whose tasks ignore their cancellation, and ends with a time limit."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import ContextClosed, IOThread, block_on

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = """
import asyncio, threading, homebound

def poll():
    while True:
        homebound.current_context().poll()

def lock():
    lock = homebound.Lock()
    lock.acquire_sync()
    lock.acquire_sync()

WAITS = {
    "block_on": lambda: homebound.block_on(asyncio.sleep(3600)),
    "wait_while": lambda: homebound.wait_while(lambda: True, homebound.current_context()),
    "poll": poll,
    "get_sync": lambda: homebound.Queue().get_sync(),
    "acquire_sync": lock,
}
"""

_space: dict[str, Any] = {}
exec(HEAD, _space)  # the subprocess below runs the same program
WAITS: dict[str, Callable[[], None]] = _space["WAITS"]
each_wait = pytest.mark.parametrize(
    "wait", ["block_on", "wait_while", "poll", "get_sync", "acquire_sync"]
)


class Reports(list[str]):
    """A collector of the messages that a loop's exception handler gets."""

    def __call__(self, _loop: object, context: dict[str, Any]) -> None:
        self.append(context["message"])


def run_beside(work: Callable[[], Any], timeout: float) -> Reports:
    """Run a main coroutine that returns while the task `work()` waits; return what is reported."""
    reports = Reports()

    async def main() -> str:
        asyncio.get_running_loop().set_exception_handler(reports)
        keep.append(asyncio.create_task(work()))
        await asyncio.sleep(0)
        return "result"

    keep: list[asyncio.Task[None]] = []
    assert homebound.run(main(), shutdown_timeout=timeout) == "result"
    assert keep[0].done()
    if not keep[0].cancelled():
        assert keep[0].exception() is None
    return reports


@each_wait
def test_a_nested_wait_whose_cancellation_is_ignored(wait: str):
    seen: list[str] = []

    async def work() -> None:
        while True:
            try:
                WAITS[wait]()
            except asyncio.CancelledError:
                seen.append("cancelled")
            except ContextClosed:
                seen.append("closed")
                break
        for _ in range(2):
            with pytest.raises(ContextClosed, match=r"'main'> is over \(0.05 s\).* return from"):
                WAITS[wait]()

    reports = run_beside(work, 0.05)
    assert seen == ["cancelled", "closed"]
    assert reports[0].startswith("'main' has not ended after 0.05 s, in a nested wait, which")
    assert "\n  thread 'MainThread':\n" in reports[0]
    assert ", in work\n" in reports[0]
    assert not any("nested wait" in each for each in reports[1:])


@each_wait
def test_a_nested_wait_and_no_time(wait: str):
    """The task is cancelled first, as each task is."""
    seen: list[str] = []

    async def work() -> None:
        try:
            WAITS[wait]()
        finally:
            seen.append(type(sys.exc_info()[1]).__name__)
            with pytest.raises(ContextClosed):
                WAITS[wait]()

    run_beside(work, 0)
    assert seen == ["CancelledError"]


@each_wait
def test_a_nested_wait_in_the_cleanup_of_a_task(wait: str):
    """It begins when the loop is in its own end."""
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            while not seen:
                try:
                    WAITS[wait]()
                except asyncio.CancelledError:
                    pass  # of a task that block_on made
                except ContextClosed as error:
                    seen.append(type(error).__name__)

    run_beside(work, 0.05)
    assert seen == ["ContextClosed"]


@each_wait
def test_a_nested_wait_in_a_callback(wait: str):
    """It has no task; each call is cancelled by itself."""
    seen: list[str] = []

    def callback() -> None:
        while True:
            try:
                WAITS[wait]()
            except asyncio.CancelledError:
                pass
            except ContextClosed:
                seen.append("closed")
                return

    async def work() -> None:
        asyncio.get_running_loop().call_soon(callback)

    run_beside(work, 0.05)
    assert seen == ["closed"]


def test_one_nested_wait_inside_another():
    """The inner one's task unwinds first, then the outer one's."""
    seen: list[str] = []

    async def inner() -> None:
        while True:
            try:
                block_on(asyncio.sleep(3600))
            except asyncio.CancelledError:
                pass
            except ContextClosed:
                seen.append("inner")
                raise

    async def outer() -> None:
        task = asyncio.create_task(inner())
        while True:
            try:
                block_on(asyncio.sleep(3600))
            except asyncio.CancelledError:
                pass
            except ContextClosed:
                seen.append("outer")
                break
        with pytest.raises(ContextClosed):
            await task

    run_beside(outer, 0.05)
    assert seen == ["inner", "outer"]


def test_a_wait_for_the_end_of_a_thread_that_does_not_end():
    """Nothing cancels such a wait, so nothing else wakes the loop."""
    seen: list[str] = []
    go_on = threading.Event()

    async def work() -> None:
        with IOThread() as io:
            io.context.call_soon(go_on.wait, 50)
            for _ in range(2):
                with pytest.raises(ContextClosed):
                    io.stop()
                seen.append("closed")
            go_on.set()
            io._thread.join()

    run_beside(work, 0.05)
    assert seen == ["closed", "closed"]


@each_wait
def test_an_io_thread_at_exit(wait: str):
    """Its `stop` has expired, and so does the time that the exit grants it."""
    program = f"""
        began = threading.Event()
        async def work():
            began.set()
            try:
                while True:
                    try:
                        WAITS[{wait!r}]()
                    except asyncio.CancelledError:
                        pass
            finally:
                print("unwound", flush=True)
        io = homebound.IOThread("io")
        io.start()
        task = io.spawn(work())
        began.wait()
        try:
            io.stop(timeout=0.05)
        except TimeoutError:
            print("exit", flush=True)
        """
    done = subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(program)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("exit\nunwound\n", 0)
    assert "'io' has not ended after 0.05 s, in a nested wait" in done.stderr
