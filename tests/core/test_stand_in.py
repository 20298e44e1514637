"""A worker that holds the big lock is the main context's home until it releases the lock."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AioContext, WouldDeadlock, big_lock, block_on, current_context, current_task
from homebound.testing import here

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]


def thread_name() -> str:
    return threading.current_thread().name


@pytest.fixture(params=["asleep", "busy", "in a nested wait"])
def stand_in(request: pytest.FixtureRequest, in_thread: InThread) -> Callable[..., Any]:
    """`stand_in(fn)` runs fn under the big lock in a worker; the parameter is the loop's state."""

    def run(
        fn: Callable[[], Any], prepare: Callable[[], Coroutine[Any, Any, Any]] | None = None
    ) -> Any:
        def work() -> Any:
            with big_lock:
                return fn()

        async def main() -> Any:
            if prepare is not None:
                await prepare()
            future = in_thread(work)
            if request.param == "busy":
                while not future.done():
                    await asyncio.sleep(0)
            elif request.param == "in a nested wait":
                future.add_done_callback(lambda _: homebound.kick())
                homebound.wait_while(lambda: not future.done())
            return await asyncio.wrap_future(future)

        return homebound.run(main())

    return run


StandIn = Any


def test_block_on_runs_it_here(stand_in: StandIn):
    def work() -> None:
        async def look() -> tuple[Any, ...]:
            before = (thread_name(), current_context(), asyncio.get_running_loop())
            assert current_task() is asyncio.current_task() is not None
            await asyncio.sleep(0)
            return before

        context = here()
        name, inside, loop = block_on(look())
        assert name.startswith("plain")
        assert inside is context
        assert loop is context.loop
        assert current_task() is None
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()

    stand_in(work)


def test_block_on_waits_for_timers(stand_in: StandIn):
    def work() -> str:
        async def slow() -> str:
            for _ in range(3):
                await asyncio.sleep(0.001)
            return "done"

        assert block_on(slow(), homebound.main_context()) == "done"
        assert here() is homebound.main_context()
        return block_on(slow())

    assert stand_in(work) == "done"


def test_block_on_waits_for_sockets(stand_in: StandIn):
    def work() -> None:
        async def talk() -> bytes:
            loop = asyncio.get_running_loop()
            ours, theirs = socket.socketpair()
            with ours, theirs:
                ours.setblocking(False)
                theirs.setblocking(False)
                data = b""
                for _ in range(5):
                    receive = asyncio.create_task(loop.sock_recv(ours, 10))
                    await asyncio.sleep(0.0005)
                    await loop.sock_sendall(theirs, b"x")
                    data += await receive
                return data

        assert block_on(talk()) == b"xxxxx"

    stand_in(work)


def test_block_on_waits_for_threads_and_other_homes(stand_in: StandIn, io: homebound.IOThread):
    def work() -> None:
        async def everything() -> list[Any]:
            async def there() -> str:
                return thread_name()

            return [
                await homebound.to_worker(sum, [1, 2]),
                await asyncio.to_thread(sum, [3, 4]),
                await io.spawn(there()),
            ]

        assert block_on(everything()) == [3, 7, "io"]
        assert block_on(io.spawn(asyncio.sleep(0.001, "io's"))) == "io's"

    stand_in(work)


def test_what_it_raises_is_raised_here(stand_in: StandIn):
    def work() -> None:
        async def fail() -> None:
            await asyncio.sleep(0)
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            block_on(fail())
        with pytest.raises(TimeoutError):
            block_on(asyncio.sleep(30), timeout=0.001)
        assert big_lock.held()

    stand_in(work)


def test_poll_runs_main_callbacks_here(stand_in: StandIn):
    names: list[str] = []

    def work() -> None:
        here().call_soon(lambda: names.append(thread_name()))
        assert here().poll(blocking=False)

    stand_in(work)
    assert names[0].startswith("plain")


def test_a_blocking_poll_sleeps_without_the_lock(in_thread: InThread):
    """Otherwise the main thread, which needs the lock, could not do what is waited for."""

    async def main() -> None:
        done: list[int] = []
        sleeping = threading.Event()

        def work() -> None:
            with big_lock:
                sleeping.set()
                while not done:
                    here().poll()

        def helper() -> None:
            sleeping.wait(10)
            with big_lock:
                done.append(1)
                homebound.main_context().notify()  # type: ignore[union-attr]

        threads = [in_thread(work), in_thread(helper)]
        await asyncio.gather(*map(asyncio.wrap_future, threads))

    homebound.run(main())


def test_contextvars_are_the_callers(stand_in: StandIn):
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")

    def work() -> None:
        async def look() -> str:
            seen = var.get()
            var.set("changed inside")
            return seen

        var.set("the worker's")
        assert block_on(look()) == "the worker's"
        assert var.get() == "the worker's"

    stand_in(work)


def test_a_task_goes_on_in_whichever_thread_stands_in(in_thread: InThread):
    names: list[str] = []

    async def wander() -> None:
        for _ in range(4):
            await homebound.suspend()
            names.append(thread_name())

    async def main() -> None:
        task = here().spawn(wander())
        await asyncio.sleep(0)

        def work() -> None:
            with big_lock:
                task.wake()

        await asyncio.wrap_future(in_thread(work))
        task.wake()
        await asyncio.sleep(0)
        await asyncio.wrap_future(in_thread(work))
        await asyncio.wrap_future(in_thread(task.wake))
        await task
        assert names == ["plain0", "MainThread", "plain1", "MainThread"]

    homebound.run(main())


def test_the_main_loop_runs_what_it_leaves(stand_in: StandIn):
    """Callbacks and timers that are left when it releases the lock, with the main thread asleep."""
    names: list[str] = []
    ran = threading.Event()

    def note() -> None:
        names.append(thread_name())
        if len(names) == 3:
            ran.set()

    def work() -> None:
        here().loop.call_soon(note)
        here().call_soon(note)
        here().loop.call_later(0.001, note)

    def wait() -> None:
        stand_in_done = ran.wait(10)
        assert stand_in_done

    async def prepare() -> None:
        asyncio.get_running_loop().run_in_executor(None, wait)

    stand_in(work, prepare)
    assert set(names) <= {"MainThread"}


def test_the_main_loop_sleeps_on_if_there_is_nothing_to_do(in_thread: InThread):
    async def main() -> None:
        context = here()
        counts: list[int] = []
        go_on = threading.Event()

        def idle() -> None:
            with big_lock:  # by the time the worker has the lock, the main thread is asleep
                pass
            go_on.set()

        def work() -> None:
            go_on.wait(10)
            for _ in range(20):
                with big_lock:
                    counts.append(context.stats().iterations)

        in_thread(idle)
        await asyncio.wrap_future(in_thread(work))
        assert len(set(counts)) == 1  # not one iteration while the worker came and went

    homebound.run(main())


def test_several_threads_stand_in_by_turns(in_thread: InThread):
    async def main() -> None:
        order: list[str] = []

        async def job(name: str) -> None:
            for _ in range(3):
                await asyncio.sleep(0.0005)
                assert current_context() is homebound.main_context()
            order.append(name)

        def work(name: str) -> None:
            for _ in range(3):
                with big_lock:
                    block_on(job(name))

        threads = [in_thread(work, name) for name in "abc"]
        await asyncio.gather(*map(asyncio.wrap_future, threads))
        assert sorted(order) == sorted("abc" * 3)

    homebound.run(main())


def test_a_task_group_inside_block_on(stand_in: StandIn):
    def work() -> list[int]:
        async def squares() -> list[int]:
            async def square(number: int) -> int:
                await asyncio.sleep(0.0005)
                return number * number

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(square(number)) for number in range(5)]
            return [task.result() for task in tasks]

        return block_on(squares())

    assert stand_in(work) == [0, 1, 4, 9, 16]


def test_tasks_it_begins_inline_wake_each_other_there(stand_in: StandIn):
    def work() -> list[str]:
        order: list[str] = []

        async def second() -> None:
            await homebound.suspend()
            order.append("second in " + thread_name()[:5])

        async def first(task: homebound.Task[None]) -> None:
            task.wake()
            order.append("first in " + thread_name()[:5])

        inner = homebound.Task(second())
        here().enter(inner)
        here().enter(homebound.Task(first(inner)))
        return order

    assert stand_in(work) == ["first in plain", "second in plain"]


def test_an_io_thread_with_the_lock_is_no_stand_in(io: homebound.IOThread):
    async def work() -> None:
        with big_lock:
            context = homebound.main_context()
            assert context is not None
            with pytest.raises(homebound.WrongThread, match="current context 'io'"):
                context.poll(blocking=False)
            with pytest.raises(WouldDeadlock):
                block_on(asyncio.sleep(0), context)

    async def main() -> None:
        await io.spawn(work())

    homebound.run(main())


def test_the_main_loop_may_end_while_a_thread_waits_to_stand_in(in_thread: InThread):
    """A thread that gets the lock when the main context has just closed finds none."""
    seen: list[Any] = []

    async def main() -> None:
        started = threading.Event()

        def work() -> None:
            started.set()
            with big_lock:
                seen.append(current_context())

        workers.append(in_thread(work))
        assert started.wait(10)

    workers: list[Future[Any]] = []
    homebound.run(main())
    workers[0].result(10)
    assert seen in ([None], [None]) or isinstance(seen[0], AioContext)


def test_a_stand_in_that_becomes_a_home_is_none_meanwhile(in_thread: InThread):
    """The lock may be released in that time: the main loop must be woken as usual."""
    seen: list[Any] = []

    async def main() -> None:
        context = current_context()
        assert context is not None
        post = context.call_soon

        async def inner() -> None:
            big_lock.release()
            posted = threading.Event()
            post(posted.set)
            seen.append(posted.wait(10))
            big_lock.acquire()
            seen.append(current_context())

        def work() -> None:
            with big_lock:
                with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
                    runner.run(inner())
                seen.append(current_context())
                seen.append(block_on(asyncio.sleep(0, "stands in again")))
            posted = threading.Event()
            post(posted.set)
            seen.append(posted.wait(10))

        await asyncio.wrap_future(in_thread(work))
        woken, inside, after, result, again = seen
        assert woken is again is True
        assert inside is not context
        assert after is context
        assert result == "stands in again"

    homebound.run(main())
