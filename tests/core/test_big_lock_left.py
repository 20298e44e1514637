"""A thread that ends with the big lock: the lock is released, and threading.excepthook called."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import ContextError, IOThread, big_lock
from homebound.testing import here

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """`told()` waits for the one report, and returns what the hook was given."""
    reports: list[Any] = []
    came = threading.Event()

    def hook(args: Any) -> None:
        reports.append(args)
        came.set()

    monkeypatch.setattr(threading, "excepthook", hook)

    def wait() -> Any:
        assert came.wait(10)
        assert len(reports) == 1
        return reports[0]

    return wait


def end_with_it(*first: Callable[[], object]) -> threading.Thread:
    def work() -> None:
        big_lock.acquire()
        for act in first:
            act()

    thread = threading.Thread(target=work, name="careless")
    thread.start()
    return thread


def test_a_thread_that_waits_for_it_gets_it(told: Callable[[], Any]):
    thread = end_with_it()
    thread.join()
    assert big_lock.acquire(timeout=10)
    assert big_lock.held()
    big_lock.release()
    report = told()
    assert report.thread is thread
    assert report.exc_type is ContextError
    for part in ("'careless'", "with big_lock"):
        assert part in str(report.exc_value)


def test_the_main_loop_goes_on(told: Callable[[], Any]):
    async def main() -> list[str]:
        context = here()
        loop = asyncio.get_running_loop()
        came = loop.create_future()
        done: list[str] = []
        thread = end_with_it(
            lambda: loop.call_later(0.001, done.append, "its timer"),
            lambda: context.call_soon(done.append, "its post"),
            lambda: loop.call_later(0.002, came.set_result, None),
        )
        await came
        thread.join()
        return done

    assert homebound.run(main()) == ["its post", "its timer"]
    assert told().thread.name == "careless"


def test_an_io_thread_that_ends_with_it(told: Callable[[], Any]):
    """An I/O thread has its own context, and so never stood in."""

    async def take() -> None:
        big_lock.acquire()

    with IOThread("io") as io:
        homebound.block_on(io.spawn(take()))
    assert told().thread.name == "io"
    with big_lock:
        pass


def test_a_thread_that_released_it_is_not_reported():
    def work() -> None:
        with big_lock:
            pass

    for _ in range(3):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    with big_lock:
        pass  # no_leaks would fail on a report


def test_the_interpreter_may_end_with_it():
    """No thread waits for the lock any more then, and the main thread need not take it."""
    script = "import homebound; homebound.big_lock.acquire()"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, timeout=60, check=True, text=True
    )
    assert (ended.stdout, ended.stderr) == ("", "")
