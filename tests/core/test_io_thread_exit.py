"""SystemExit or KeyboardInterrupt raised in an I/O thread ends it, and is reported."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import ContextClosed, IOThread, block_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FACTORIES = [homebound.new_event_loop, asyncio.SelectorEventLoop]
EXITS = [SystemExit(3), KeyboardInterrupt("no")]


@pytest.fixture
def hooked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException | None]]:
    """The reports to threading.excepthook."""
    told: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_value))
    yield told
    told.clear()


async def waits(log: list[str]) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0.001)
        log.append("cleaned up")


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("way", ["task", "callback"])
@pytest.mark.parametrize("error", EXITS, ids=repr)
def test_the_other_tasks_are_cancelled_and_reported(
    error: BaseException,
    way: str,
    factory: Callable[[], asyncio.AbstractEventLoop],
    hooked: list[BaseException | None],
):
    reports: list[dict[str, Any]] = []
    log: list[str] = []

    async def leaves() -> None:
        raise error

    def leave() -> None:
        raise error

    with IOThread("io", loop_factory=factory) as io:
        io.context.loop.set_exception_handler(lambda _loop, context: reports.append(context))
        other = io.context.spawn(waits(log), name="other")
        block_on(io.spawn(asyncio.sleep(0)))
        if way == "task":
            with pytest.raises(type(error)):
                block_on(leaves(), io.context)
        else:
            io.context.call_soon(leave)
        with pytest.raises(asyncio.CancelledError):
            block_on(other)
        io.join()
        with pytest.raises(ContextClosed):
            io.spawn(asyncio.sleep(0))
    assert log == ["cleaned up"]
    assert hooked == [error]
    assert [report["exception"] for report in reports] == [error]
    message = reports[0]["message"]
    assert message == f"{error!r} in IOThread 'io' ends it, and cancels its tasks: other"


@pytest.mark.parametrize("error", EXITS, ids=repr)
def test_a_second_exit_in_the_cleanup(error: BaseException, hooked: list[BaseException | None]):
    """A second one, in one task's cleanup, does not end the cleanup of the others."""
    reports: list[str] = []
    log: list[str] = []

    async def leaves() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise error

    with IOThread("io") as io:
        loop = io.context.loop
        loop.set_exception_handler(lambda _loop, context: reports.append(context["message"]))
        io.spawn(leaves())
        io.spawn(waits(log))
        block_on(io.spawn(asyncio.sleep(0)))
    assert log == ["cleaned up"]
    assert reports == ["unhandled exception as io stopped"]
    assert not hooked


def test_a_reader_that_exits_again_and_again_is_reported_once(
    hooked: list[BaseException | None],
):
    """Its descriptor stays readable, so each iteration of the end calls it."""
    reports: list[dict[str, Any]] = []
    log: list[str] = []
    ours, theirs = socket.socketpair()

    def leave() -> None:
        raise SystemExit(len(log))

    with ours, theirs:
        with IOThread("io") as io:
            io.context.loop.set_exception_handler(lambda _loop, context: reports.append(context))
            io.spawn(waits(log))
            block_on(io.spawn(asyncio.sleep(0)))
            theirs.send(b"x")
            io.context.call_soon(io.context.loop.add_reader, ours, leave)
            io._thread.join(20)
        assert log == ["cleaned up"]
    assert [report["message"].partition(",")[0] for report in reports] == [
        "SystemExit(0) in IOThread 'io' ends it",
        "unhandled exception as io stopped",
    ]
    assert len(hooked) <= 1


@pytest.mark.parametrize("factory", FACTORIES)
def test_an_exception_from_another_thread_cuts_the_end_short(
    factory: Callable[[], asyncio.AbstractEventLoop],
    hooked: list[BaseException | None],
    monkeypatch: pytest.MonkeyPatch,
):
    """What waits for a task there is told all the same."""

    def interrupted(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr("homebound._threads.io_thread.wind_down", interrupted)
    with IOThread("io", loop_factory=factory) as io:
        task = io.spawn(asyncio.sleep(3600))
        block_on(io.spawn(asyncio.sleep(0)))
    with pytest.raises(ContextClosed):
        block_on(task)
    assert len(hooked) <= 1
