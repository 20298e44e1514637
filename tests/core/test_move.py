"""move_to and on: the rest of the task runs elsewhere, with its contextvars, timeouts and so on."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import (
    AioContext,
    ContextClosed,
    IOThread,
    current_task,
    move_to,
    on,
)
from homebound.testing import here

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]
    Gate = Callable[[AioContext], threading.Event]


def thread_name() -> str:
    return threading.current_thread().name


def test_there_and_back(io: IOThread):
    async def main() -> None:
        home, me = here(), current_task()
        await move_to(io.context)
        assert (here(), thread_name()) == (io.context, "io")
        assert current_task() is asyncio.current_task() is me is not None
        assert me.home is io.context
        assert asyncio.get_running_loop() is io.context.loop
        await move_to(home)
        assert (here(), thread_name()) == (home, "MainThread")
        assert me.home is home

    homebound.run(main())


def test_to_where_it_is_already():
    async def main() -> None:
        order: list[str] = []
        here().call_soon(order.append, "other")
        await move_to(here())
        assert not order  # it did not even give up control

    homebound.run(main())


def test_on_comes_back(io: IOThread, io2: IOThread):
    async def main() -> list[str]:
        names = [thread_name()]
        async with on(io.context):
            names.append(thread_name())
            async with on(io2.context):
                names.append(thread_name())
            names.append(thread_name())
        return [*names, thread_name()]

    assert homebound.run(main()) == ["MainThread", "io", "io2", "io", "MainThread"]


def test_on_comes_back_with_an_exception(io: IOThread):
    async def main() -> None:
        with pytest.raises(ValueError, match="there"):
            async with on(io.context):
                raise ValueError("there")
        assert thread_name() == "MainThread"

    homebound.run(main())


def test_on_comes_back_when_cancelled(io: IOThread):
    async def main() -> None:
        arrived = threading.Event()
        names: list[str] = []

        async def work() -> None:
            try:
                async with on(io.context):
                    arrived.set()
                    await asyncio.sleep(30)
            finally:
                names.append(thread_name())

        task = asyncio.create_task(work())
        await homebound.to_worker(arrived.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert names == ["MainThread"]

    homebound.run(main())


@pytest.mark.parametrize("who", ["main task", "itself", "timeout"])
def test_on_comes_back_when_cancelled_on_its_way_there(who: str, io: IOThread, gate: Gate):
    async def main() -> None:
        home = here()
        places: list[AioContext] = []

        async def enter() -> None:
            if who == "itself":
                task.cancel()
            async with on(io.context):
                raise AssertionError

        async def work() -> None:
            try:
                async with asyncio.timeout(0.001 if who == "timeout" else 30):
                    await enter()
            finally:
                places.append(here())

        go_on = gate(io.context)
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        if who == "main task":
            task.cancel()
        await asyncio.sleep(0.002)  # its own timeout, shorter and made before, has expired
        go_on.set()
        with pytest.raises(TimeoutError if who == "timeout" else asyncio.CancelledError):
            await task
        assert places == [home]

    homebound.run(main())


def test_many_moves(io: IOThread, io2: IOThread):
    async def main() -> None:
        places = [io.context, here(), io2.context]
        for number in range(300):
            place = places[number % 3]
            await move_to(place)
            assert here() is place
            if number % 7 == 0:
                await asyncio.sleep(0)
                assert here() is place

    homebound.run(main())


def test_its_waits_are_the_new_homes(io: IOThread):
    async def main() -> None:
        async with on(io.context):
            await asyncio.sleep(0.001)
            assert thread_name() == "io"
            assert await asyncio.create_task(where()) == "io"
            assert await homebound.to_worker(thread_name) != "io"
            assert thread_name() == "io"

    async def where() -> str:
        return thread_name()

    homebound.run(main())


def test_contextvars_go_along(io: IOThread):
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var")

    async def main() -> None:
        var.set("here")
        async with on(io.context):
            assert var.get() == "here"
            var.set("there")
            token = var.set("for a while")
            var.reset(token)
        assert var.get() == "there"

    homebound.run(main())


def test_timeout_around_a_move(io: IOThread):
    async def main() -> None:
        me = asyncio.current_task()
        assert me is not None
        with pytest.raises(TimeoutError):  # noqa: PT012
            async with asyncio.timeout(0.005):
                async with on(io.context):
                    await asyncio.sleep(30)
        assert thread_name() == "MainThread"
        assert me.cancelling() == 0
        async with asyncio.timeout(30):
            async with on(io.context):
                await asyncio.sleep(0)

    homebound.run(main())


def test_timeout_inside_a_move(io: IOThread):
    async def main() -> None:
        async with on(io.context):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.sleep(30)
            assert thread_name() == "io"

    homebound.run(main())


def passed(context: AioContext, seconds: float) -> threading.Event:
    """An event that the context's loop sets once its timers of `seconds` from now have run."""
    event = threading.Event()
    context.loop.call_later(seconds, event.set)
    return event


@pytest.mark.parametrize("seconds", [0, 0.001])
def test_a_timeout_that_expires_elsewhere_as_the_block_ends(seconds: float, io: IOThread):
    """The timer is the old home's. A task that has left the block meanwhile is not cancelled."""

    async def main() -> None:
        home, me = here(), current_task()
        assert me is not None
        arrived = threading.Event()
        home.call_soon(arrived.wait, 10)  # it does not expire while the task is on its way
        struck = passed(home, seconds + 0.001)
        async with asyncio.timeout(seconds) as timeout:
            await move_to(io.context)
            arrived.set()
            assert struck.wait(10)
        await asyncio.sleep(0)
        await move_to(home)
        assert me.cancelling() == 0
        assert not timeout.expired()

    homebound.run(main())


def test_timeouts_that_expire_elsewhere_always_raise_timeout_error(io: IOThread, io2: IOThread):
    """Cancelling the task and recording why are one step for it, wherever it has gone."""

    async def main() -> None:
        home, me = here(), current_task()
        assert me is not None
        for number in range(200):
            with pytest.raises(TimeoutError):  # noqa: PT012
                async with asyncio.timeout(0.0002 * (number % 5)):
                    while True:
                        for context in (io.context, io2.context, home):
                            await move_to(context)
            assert me.cancelling() == 0
        await move_to(home)

    homebound.run(main())


def test_a_child_that_fails_while_its_group_has_moved(io: IOThread):
    """asyncio's TaskGroup decides what a child's end means where its parent is."""

    async def main() -> None:
        home = here()

        async def fail() -> None:
            raise ValueError

        with pytest.raises(ExceptionGroup):  # noqa: PT012
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                struck = passed(home, 0.001)
                await move_to(io.context)
                assert struck.wait(10)  # the child has failed, and its callback was called
        await asyncio.sleep(0)  # no longer cancelled
        assert here() is io.context

    homebound.run(main())


@pytest.mark.parametrize("who", ["main task", "plain thread"])
def test_cancelled_in_flight_the_move_itself_raises_it(
    who: str, io: IOThread, gate: Gate, in_thread: InThread
):
    """The move raises even if nothing is awaited after it."""

    async def main() -> None:
        go_on = gate(io.context)
        task = asyncio.create_task(move_to(io.context))
        await asyncio.sleep(0)
        if who == "main task":
            assert task.cancel()
        else:
            assert in_thread(task.cancel).result(10)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    homebound.run(main())


@pytest.mark.parametrize("who", ["main task", "plain thread"])
def test_cancelled_in_flight_it_is_raised_there(
    who: str, io: IOThread, gate: Gate, in_thread: InThread
):
    """The move is completed first, so that cleanup runs at the destination."""

    async def main() -> None:
        places: list[AioContext] = []

        async def work() -> None:
            try:
                await move_to(io.context)
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                places.append(here())
                raise

        go_on = gate(io.context)
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        assert task.home is io.context  # type: ignore[attr-defined]
        if who == "main task":
            assert task.cancel("why")
        else:
            assert in_thread(task.cancel, "why").result(10)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert places == [io.context]

    homebound.run(main())


def test_cancelled_before_the_move(io: IOThread):
    async def main() -> None:
        async def work() -> AioContext:
            me = current_task()
            assert me is not None
            me.cancel()
            try:
                await move_to(io.context)
            except asyncio.CancelledError:
                return here()
            raise AssertionError

        assert await asyncio.create_task(work()) is io.context

    homebound.run(main())


def test_to_a_context_that_has_ended():
    with IOThread("gone") as io:
        closed = io.context

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(ContextClosed, match=r"'gone'.* has ended"):
                await move_to(closed)
            assert thread_name() == "MainThread"
            with pytest.raises(ContextClosed):
                async with on(closed):
                    raise AssertionError
        await asyncio.sleep(0)

    homebound.run(main())


def test_a_cancellation_outlives_a_move_to_a_context_that_has_ended():
    with IOThread() as gone:
        pass

    async def moves() -> None:
        me = current_task()
        assert me is not None
        me.cancel()
        with pytest.raises(asyncio.CancelledError):
            await move_to(gone.context)
        assert me.uncancel() == 0

    homebound.run(moves())


def test_a_cancellation_outlives_a_schedule_in_a_context_that_has_ended():
    """The waker is early, and its context ends before the task suspends."""

    async def suspends() -> None:
        me = current_task()
        assert me is not None
        io = IOThread().start()
        io.context.schedule(me)
        io.stop()
        me.cancel()
        with pytest.raises(asyncio.CancelledError):
            await homebound.suspend()
        assert me.uncancel() == 0

    homebound.run(suspends())


def test_back_to_a_home_that_has_ended(io: IOThread):
    """The exit of `on` raises, and the task goes on where it is."""
    other = IOThread("other")
    other.start()
    there, go_on = threading.Event(), threading.Event()

    async def work() -> str:
        with pytest.raises(ContextClosed):  # noqa: PT012
            async with on(io.context):
                there.set()
                go_on.wait(10)
        await asyncio.sleep(0)
        return thread_name()

    task = other.spawn(work())
    assert there.wait(10)
    other.stop()  # the task is not at home there now, so the end does not wait for it
    go_on.set()
    assert homebound.block_on(task) == "io"


def test_a_done_callback_runs_in_the_loop_that_asked(io: IOThread):
    async def main() -> None:
        names: list[str] = []
        seen = asyncio.Event()

        async def work() -> None:
            await move_to(io.context)

        def done(_: object) -> None:
            names.append(thread_name())
            seen.set()

        task = asyncio.create_task(work())
        task.add_done_callback(done)
        await seen.wait()
        assert task.done()
        assert names == ["MainThread"]

    homebound.run(main())


def test_children_of_a_task_group_may_move(io: IOThread, io2: IOThread):
    async def work(place: AioContext) -> str:
        async with on(place):
            await asyncio.sleep(0)
            name = thread_name()
        await move_to(place)
        return name

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work(each.context)) for each in (io, io2)]
        assert [task.result() for task in tasks] == ["io", "io2"]

    homebound.run(main())


def test_locals_of_an_async_generator_move_too(io: IOThread):
    async def numbers() -> Any:
        yield thread_name()
        await move_to(io.context)
        yield thread_name()

    async def main() -> list[str]:
        return [name async for name in numbers()]

    assert homebound.run(main()) == ["MainThread", "io"]


def test_from_a_thread_that_runs_a_loop_of_its_own(io: IOThread, in_thread: InThread):
    async def work() -> list[str]:
        names = [thread_name()]
        async with on(io.context):
            names.append(thread_name())
        return [*names, thread_name()]

    def body() -> list[str]:
        with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
            return runner.run(work())

    assert in_thread(body).result(10) == ["plain0", "io", "plain0"]


def test_an_asyncio_task_cannot_move(io: IOThread):
    async def work() -> None:
        await move_to(io.context)

    with pytest.raises(homebound.ContextError, match=r"move_to\(\) was awaited in .* thread 'Main"):
        asyncio.run(work())


@pytest.mark.parametrize("where", [None, "io"])
def test_a_move_to_something_that_is_no_context(where: Any):
    async def main() -> None:
        with pytest.raises(TypeError, match="takes an AioContext or an IOThread, got"):
            await move_to(where)
        with pytest.raises(TypeError, match="takes an AioContext or an IOThread, got"):
            async with on(where):
                raise AssertionError

    homebound.run(main())


def test_an_asyncio_task_cannot_suspend():
    async def work() -> None:
        await homebound.suspend()

    with pytest.raises(homebound.ContextError, match=r"suspend\(\) .* not homebound's; make the"):
        asyncio.run(work())


def test_the_main_coroutine_may_end_elsewhere(io: IOThread):
    async def main() -> str:
        await move_to(io.context)
        return thread_name()

    assert homebound.run(main()) == "io"
