"""The requirements on any asyncio event loop."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from ..._aio.futures import set_unless_done
from .._places import Threads
from .cases import Case, check_all, raises, title

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    Loop = asyncio.AbstractEventLoop

POSTS = 200  # of each thread, where several post


def limited(loop: Loop, main: Any, patience: float) -> Any:
    """Run a coroutine with a time limit."""

    async def run() -> Any:
        async with asyncio.timeout(patience):
            return await main

    return loop.run_until_complete(run())


# Callbacks.


def calls_in_order(loop: Loop, patience: float) -> None:
    called: list[int] = []

    async def main() -> None:
        for number in range(5):
            loop.call_soon(called.append, number)
        assert called == [], "call_soon called it at once"
        await asyncio.sleep(0)
        assert called == list(range(5)), f"called {called}"

    limited(loop, main(), patience)


def calls_what_is_queued_meanwhile_in_the_next_iteration(loop: Loop, patience: float) -> None:
    called: list[str] = []

    def first() -> None:
        called.append("first")
        loop.call_soon(called.append, "its own")

    async def main() -> None:
        loop.call_soon(first)
        loop.call_soon(called.append, "second")
        await asyncio.sleep(0)
        assert called[:2] == ["first", "second"], f"called {called}"
        await asyncio.sleep(0)
        assert called == ["first", "second", "its own"], f"called {called}"

    limited(loop, main(), patience)


def calls_nothing_that_was_cancelled(loop: Loop, patience: float) -> None:
    called: list[str] = []

    async def main() -> None:
        handles = [
            loop.call_soon(called.append, "soon"),
            loop.call_soon_threadsafe(called.append, "threadsafe"),
            loop.call_later(0, called.append, "later"),
        ]
        for handle in handles:
            handle.cancel()
            assert handle.cancelled(), f"{handle} was cancelled, and says no"
        await asyncio.sleep(0.002)
        assert not called, f"cancelled, and called: {called}"

    limited(loop, main(), patience)


def calls_timers_in_order(loop: Loop, patience: float) -> None:
    called: list[int] = []

    async def main() -> None:
        now = loop.time()
        last = loop.create_future()
        for number in (3, 1, 2):
            loop.call_at(now + number / 500, called.append, number)
        loop.call_at(now + 4 / 500, last.set_result, None)
        await last
        assert loop.time() >= now + 4 / 500 - 2e-3, "a timer was early"
        assert called == [1, 2, 3], f"called {called}"

    limited(loop, main(), patience)


def goes_on_after_an_error(loop: Loop, patience: float) -> None:
    told: list[dict[str, Any]] = []
    called: list[str] = []

    async def main() -> None:
        loop.set_exception_handler(lambda _, what: told.append(what))
        loop.call_soon(int, "x")
        loop.call_soon(called.append, "next")
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    limited(loop, main(), patience)
    assert called == ["next"], "what was queued after it was not called"
    assert [type(what.get("exception")) for what in told] == [ValueError], f"reported: {told}"


def carries_contextvars(loop: Loop, patience: float) -> None:
    var = contextvars.ContextVar("var", default="outside")
    seen: list[str] = []

    async def child() -> None:
        seen.append(var.get())
        var.set("child's")

    async def main() -> None:
        var.set("main's")
        loop.call_soon(lambda: seen.append(var.get()))
        await asyncio.create_task(child())
        seen.append(var.get())

    limited(loop, main(), patience)
    assert seen == ["main's"] * 3, f"seen {seen}"


# Threads.


def wakes_for_a_thread(loop: Loop, patience: float) -> None:
    def post(told: asyncio.Future[int], number: int) -> None:
        if number % 4 == 0:
            time.sleep(0.005)  # it sleeps by now, but no loop says so
        loop.call_soon_threadsafe(told.set_result, number)

    async def main(threads: Threads) -> None:
        for number in range(20):
            told: asyncio.Future[int] = loop.create_future()
            threads.start(post, told, number)
            assert await told == number

    with Threads(patience=patience) as threads:
        limited(loop, main(threads), patience)


def loses_no_post_of_many_threads(loop: Loop, patience: float) -> None:
    called: list[tuple[int, int]] = []

    def post(who: int, barrier: threading.Barrier) -> None:
        barrier.wait(patience)
        for number in range(POSTS):
            loop.call_soon_threadsafe(called.append, (who, number))

    async def main(threads: Threads) -> None:
        barrier = threading.Barrier(4)
        posters = [threads.start(post, who, barrier) for who in range(4)]
        while len(called) < 4 * POSTS:  # noqa: ASYNC110  (now busy, now asleep)
            await asyncio.sleep(0 if len(called) % 2 else 0.001)
        for poster in posters:
            poster.result(patience)

    with Threads(patience=patience) as threads:
        limited(loop, main(threads), patience)
    for who in range(4):
        mine = [number for poster, number in called if poster == who]
        assert mine == list(range(POSTS)), f"posts of one thread came as {mine[:20]}..."


def runs_calls_in_an_executor(loop: Loop, patience: float) -> None:
    async def main() -> None:
        assert await loop.run_in_executor(None, threading.get_ident) != threading.get_ident()
        assert await asyncio.to_thread(sum, [1, 2]) == 3  # noqa: PLR2004

    limited(loop, main(), patience)
    loop.run_until_complete(loop.shutdown_default_executor())


# Tasks.


def runs_tasks(loop: Loop, patience: float) -> None:
    async def child(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async def main() -> str:
        me = asyncio.current_task()
        assert me is not None, "there is no current task"
        assert me in asyncio.all_tasks(), "all_tasks() does not have it"
        got = await asyncio.gather(*(child(number) for number in range(5)))
        assert got == list(range(5)), f"got {got}"
        async with asyncio.TaskGroup() as group:
            task = group.create_task(child(7), name="seven")
        assert (task.result(), task.get_name()) == (7, "seven")
        return "done"

    assert limited(loop, main(), patience) == "done"
    assert limited(loop, main(), patience) == "done", "it cannot run twice"


def cancels_tasks(loop: Loop, patience: float) -> None:
    trace: list[str] = []

    async def child() -> None:
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            trace.append("cleaned up")
            raise

    async def main() -> None:
        task = asyncio.create_task(child())
        await asyncio.sleep(0)
        assert task.cancel(), "cancel() says no"
        try:
            await task
        except asyncio.CancelledError:
            trace.append("cancelled")
        try:
            async with asyncio.timeout(0.001):
                await child()
        except TimeoutError:
            trace.append("timeout")

    limited(loop, main(), patience)
    expected = ["cleaned up", "cancelled", "cleaned up", "timeout"]
    assert trace == expected, f"what happened: {trace}"


def ends_async_generators(loop: Loop, patience: float) -> None:
    ended: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            ended.append("ended")

    left = numbers()

    async def main() -> None:
        assert await anext(left) == 1

    limited(loop, main(), patience)
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert ended == ["ended"], "an asynchronous generator was left"


# Descriptors.


def _receive_into(future: asyncio.Future[bytes], sock: socket.socket) -> None:
    future.set_result(sock.recv(10))


def watches_descriptors(loop: Loop, patience: float) -> None:
    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)

    async def main() -> None:
        got = loop.create_future()
        loop.add_reader(here, _receive_into, got, here)
        writable = loop.create_future()
        loop.add_writer(there, set_unless_done, writable)
        await writable
        loop.remove_writer(there)
        there.send(b"hello")
        assert await got == b"hello"
        loop.remove_reader(here)
        await loop.sock_sendall(there, b"again")
        await asyncio.sleep(0)
        assert await loop.sock_recv(here, 10) == b"again", "a reader was called that was removed"

    with here, there:
        limited(loop, main(), patience)


def serves_streams(loop: Loop, patience: float) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(b"hello\n")
        assert await reader.read() == b"HELLO\n"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    limited(loop, main(), patience)


# Its life.


def stops_and_goes_on(loop: Loop, _patience: float) -> None:
    called: list[str] = []
    loop.call_soon(called.append, "first")
    loop.call_soon(loop.stop)
    assert not loop.is_running(), "is_running() says yes"
    loop.run_forever()
    assert called == ["first"], f"called {called}"
    loop.call_soon(called.append, "second")
    loop.stop()
    loop.run_forever()  # one iteration
    assert called == ["first", "second"], f"called {called}"


def refuses_when_closed(loop: Loop, _patience: float) -> None:
    loop.close()
    assert loop.is_closed(), "is_closed() says no"
    for call in (loop.call_soon, loop.call_soon_threadsafe, partial(loop.call_later, 0)):
        raises(RuntimeError, partial(call, int), f"it is closed, and {call} was taken")
    raises(RuntimeError, loop.run_forever, "it is closed, and runs")
    loop.close()  # no-op


def says_that_it_runs(loop: Loop, patience: float) -> None:
    async def main() -> None:
        assert loop.is_running(), "is_running() says no"
        raises(RuntimeError, loop.close, "it runs, and was closed")
        assert asyncio.get_running_loop() is loop, "get_running_loop() gives another"

    limited(loop, main(), patience)


CASES = [
    calls_in_order,
    calls_what_is_queued_meanwhile_in_the_next_iteration,
    calls_nothing_that_was_cancelled,
    calls_timers_in_order,
    goes_on_after_an_error,
    carries_contextvars,
    wakes_for_a_thread,
    loses_no_post_of_many_threads,
    runs_calls_in_an_executor,
    runs_tasks,
    cancels_tasks,
    ends_async_generators,
    watches_descriptors,
    serves_streams,
    stops_and_goes_on,
    refuses_when_closed,
    says_that_it_runs,
]


def loop_cases(*, patience: float = 20.0) -> list[Case]:
    """Return the requirements on an event loop as cases: pairs of a name and `check(factory)`.

    See `check_loop` for the option, `lock_cases` for the use.

    >>> from homebound.testing import loop_cases
    >>> [case.name for case in loop_cases()][0]
    'calls in order'

    Called from: any thread.
    """

    def check(case: Callable[[Loop, float], None], factory: Callable[[], Loop]) -> None:
        loop = factory()
        try:
            case(loop, patience)
        finally:
            loop.close()

    return [Case(title(each), partial(check, each)) for each in CASES]


def check_loop(
    factory: Callable[[], Loop], *, patience: float = 20.0, skip: Iterable[str] = ()
) -> None:
    """Check that what `factory()` makes is an asyncio event loop that keeps its contract.

    Each case makes one, runs it in the calling thread, in which no loop may run, and closes it.
    `patience` is how long, in seconds, a case may take. `skip` has names of cases, see
    `loop_cases`. Raises AssertionError naming the case that fails, an ExceptionGroup if there are
    more, ValueError for names that are no case's.

    >>> import asyncio, homebound
    >>> from homebound.testing import check_loop
    >>> check_loop(homebound.new_event_loop)
    >>> check_loop(asyncio.SelectorEventLoop)

    Called from: any thread.
    """
    check_all("check_loop", loop_cases(patience=patience), factory, skip)
