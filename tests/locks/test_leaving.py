"""Waiters that do not come: cancelled, out of time, or with a home that has ended."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from typing import Any

import pytest

import homebound
from homebound.testing import until


class Wants:
    """One primitive: how to make it busy, wait for it, and give what is waited for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.queue: Any
        if name == "lock":
            self.it: Any = homebound.Lock()
            self.it.acquire_sync()
            self.wait, self.give, self.queue = "acquire", self.it.release, self.it
        elif name == "semaphore":
            self.it = homebound.Semaphore(0)
            self.wait, self.give, self.queue = "acquire", self.it.release, self.it
        elif name == "rwlock":
            self.it = homebound.RWLock()
            self.it.acquire_write_sync()
            self.wait, self.give, self.queue = "acquire_write", self.it.release, self.it
        else:
            self.it = homebound.Queue()
            self.wait, self.queue = "get", self.it._getters_queue
            self.give = lambda: self.it.put_nowait(True)

    def waiting(self, count: int) -> bool:
        return len(self.queue._waiters) == count


@pytest.fixture(params=["lock", "semaphore", "rwlock", "queue"])
def wants(request: pytest.FixtureRequest) -> Wants:
    return Wants(request.param)


def test_cancelled_while_it_waits(wants: Wants, place: Any, other_place: Any):
    if place.name == "thread":
        pytest.skip("a thread cannot be cancelled")
    first = place.do(wants.it, wants.wait)
    until(lambda: wants.waiting(1))
    second = other_place.do(wants.it, wants.wait)
    until(lambda: wants.waiting(2))
    first.cancel()
    until(lambda: wants.waiting(1))
    wants.give()
    assert second.result() is True


def test_cancelled_after_it_was_granted(wants: Wants, other_place: Any):
    """The grant and the cancellation reach a busy home together: it passes the grant on."""
    with homebound.IOThread() as io:
        first = io.spawn(getattr(wants.it, wants.wait)())
        until(lambda: wants.waiting(1))
        second = other_place.do(wants.it, wants.wait)
        until(lambda: wants.waiting(2))
        busy, go_on = threading.Event(), threading.Event()
        io.context.call_soon(lambda: (busy.set(), go_on.wait(20)))
        busy.wait(20)
        first.cancel()  # the request lies in the mailbox, the task is as it was
        wants.give()
        assert wants.waiting(1)
        go_on.set()
        assert second.result() is True
        with pytest.raises(asyncio.CancelledError):
            homebound.block_on(first)


def test_out_of_time(wants: Wants):
    start = time.monotonic()
    if wants.name == "queue":
        with pytest.raises(asyncio.QueueEmpty):
            wants.it.get_sync(timeout=0.01)
    else:
        assert not getattr(wants.it, wants.wait + "_sync")(timeout=0.01)
    assert time.monotonic() - start >= 0.009
    assert wants.waiting(0)
    wants.give()


def end_abruptly(loop: Any, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    with Quiet():
        loop.close()


class Quiet:
    """Tasks destroyed pending are what these tests are about: asyncio need not tell."""

    def __enter__(self) -> None:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        gc.collect()
        logging.getLogger("asyncio").setLevel(logging.NOTSET)


@pytest.fixture(params=["homebound", "asyncio", "uvloop"])  # rloop drops nothing when closed
def dying(request: pytest.FixtureRequest, loop_factory: Any) -> Any:
    ours = request.param == "homebound"
    loop = homebound.new_event_loop() if ours else loop_factory(request.param)()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop, thread
    if not loop.is_closed():
        end_abruptly(loop, thread)


def begin(loop: Any, wants: Wants) -> None:
    coro = getattr(wants.it, wants.wait)()
    kept: list[Any] = []
    loop.call_soon_threadsafe(lambda: kept.append(loop.create_task(coro)))
    until(lambda: kept)
    DYING.append(kept[0])  # its owner keeps it, so its collection ends no wait


DYING: list[Any] = []


@pytest.fixture(autouse=True)
def _forget_the_dead() -> Any:
    yield
    with Quiet():
        DYING.clear()


def test_home_ends_while_it_waits(wants: Wants, dying: Any, place: Any):
    loop, thread = dying
    begin(loop, wants)
    until(lambda: wants.waiting(1))
    second = place.do(wants.it, wants.wait)
    until(lambda: wants.waiting(2))
    end_abruptly(loop, thread)
    wants.give()
    assert second.result() is True


def test_home_ends_with_the_grant_on_its_way(wants: Wants, dying: Any, place: Any):
    loop, thread = dying
    begin(loop, wants)
    until(lambda: wants.waiting(1))
    second = place.do(wants.it, wants.wait)
    until(lambda: wants.waiting(2))
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    wants.give()  # to a loop that has stopped, and then is closed
    assert not second.done()
    with Quiet():
        loop.close()
    assert second.result() is True


def test_a_loop_is_being_closed_as_the_grant_is_made(
    monkeypatch: pytest.MonkeyPatch, wants: Wants, place: Any
):
    """Its context refuses the news already, and the loop is not closed yet."""
    loop: Any = homebound.new_event_loop()
    coro = getattr(wants.it, wants.wait)()
    DYING.append(asyncio.Task(coro, loop=loop))
    loop.run_until_complete(asyncio.sleep(0))
    second = place.do(wants.it, wants.wait)
    until(lambda: wants.waiting(2))
    real = loop._drop_signal

    def give() -> None:
        thread = threading.Thread(target=wants.give)
        thread.start()
        thread.join()
        real()

    monkeypatch.setattr(loop, "_drop_signal", give)
    with Quiet():
        loop.close()
    assert second.result() is True


def test_io_thread_stops(wants: Wants, place: Any):
    """Its tasks are cancelled, and leave the queue."""
    io = homebound.IOThread()
    io.start()
    first = io.spawn(getattr(wants.it, wants.wait)())
    until(lambda: wants.waiting(1))
    second = place.do(wants.it, wants.wait)
    until(lambda: wants.waiting(2))
    io.stop()
    assert first.cancelled()
    until(lambda: wants.waiting(1))
    wants.give()
    assert second.result() is True


def test_woken_by_somebody_else(wants: Wants):
    """A wake-up that brings nothing sends it back to wait."""
    with homebound.IOThread() as io:
        task = io.spawn(getattr(wants.it, wants.wait)())
        until(lambda: wants.waiting(1))
        for _ in range(5):
            until(lambda: _wakes(task))
            assert wants.waiting(1)
        wants.give()
        assert homebound.block_on(task, timeout=20) is True


def _wakes(task: Any) -> bool:
    try:
        task.wake()
    except homebound.ContextError:
        return False
    return True
