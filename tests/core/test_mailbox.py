"""The mailbox: one queue, one order, a batch per iteration, nothing lost."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AioContext, IOThread, Task
from homebound.testing import here

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]
    Gate = Callable[[AioContext], threading.Event]


async def note(order: list[Any], what: Any) -> None:
    order.append(what)


async def note_when_woken(order: list[Any], what: Any) -> None:
    await homebound.suspend()
    order.append(what)


def test_what_a_home_queues_for_itself_has_one_order():
    async def main() -> None:
        order: list[int] = []
        loop, context = asyncio.get_running_loop(), here()
        suspended = context.spawn(note_when_woken(order, 3))
        done = loop.create_future()
        done.add_done_callback(lambda _: order.append(8))
        await asyncio.sleep(0)
        loop.call_soon(order.append, 0)
        first = asyncio.create_task(note(order, 1))
        second = context.spawn(note(order, 2))
        context.schedule(suspended)
        context.bottom_half(lambda: order.append(4)).schedule()
        context.call_soon(order.append, 5)
        loop.call_soon_threadsafe(order.append, 6)
        context.schedule(Task(note(order, 7)))
        done.set_result(None)
        last = loop.create_task(note(order, 9))
        await last
        assert order == list(range(10))
        await asyncio.gather(first, second, suspended)

    homebound.run(main())


def test_scheduled_tasks_run_first_in_first_out(io: IOThread, gate: Gate):
    order: list[int] = []
    go_on = gate(io.context)
    tasks = [Task(note(order, number)) for number in range(20)]
    for task in tasks:
        io.context.schedule(task)
    go_on.set()
    for task in tasks:
        homebound.block_on(task)
    assert order == list(range(20))


def test_posts_of_alternating_threads_keep_their_order(
    io: IOThread, gate: Gate, in_thread: InThread
):
    order: list[int] = []
    go_on = gate(io.context)
    for number in range(10):
        in_thread(io.context.call_soon, order.append, number).result(10)
    go_on.set()
    homebound.block_on(io.spawn(asyncio.sleep(0)))
    assert order == list(range(10))


def test_what_is_queued_in_an_iteration_waits_for_the_next():
    async def main() -> None:
        order: list[str] = []
        context = here()

        def first() -> None:
            order.append("first")
            context.call_soon(order.append, "third")
            context.schedule(Task(note(order, "fourth")))

        context.call_soon(first)
        context.call_soon(order.append, "second")
        assert context.poll(blocking=False)
        assert order == ["first", "second"]
        assert context.poll(blocking=False)
        assert order == ["first", "second", "third", "fourth"]
        while context.poll(blocking=False):
            pass

    homebound.run(main())


def test_a_task_that_queues_itself_forever_leaves_time_for_others():
    """A home that always has work still looks at its timers and sockets."""

    async def main() -> None:
        def again() -> None:
            if not stop:
                loop.call_soon(again)

        stop: list[int] = []
        loop = asyncio.get_running_loop()
        loop.call_soon(again)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            await asyncio.sleep(0.001)
            loop.call_later(0.001, theirs.send, b"x")
            assert await loop.sock_recv(ours, 1) == b"x"
        stop.append(1)

    homebound.run(main())


@pytest.mark.parametrize("method", ["spawn", "schedule", "call_soon", "bottom half"])
def test_never_in_the_callers_stack(method: str):
    async def main() -> None:
        order: list[str] = []
        context = here()
        if method == "spawn":
            context.spawn(note(order, "ran"))
        elif method == "schedule":
            context.schedule(Task(note(order, "ran")))
        elif method == "call_soon":
            context.call_soon(order.append, "ran")
        else:
            context.bottom_half(lambda: order.append("ran")).schedule()
        order.append("returned")
        await asyncio.sleep(0)
        assert order == ["returned", "ran"]

    homebound.run(main())


def test_nothing_is_lost_between_many_producers(io: IOThread, in_thread: InThread):
    """Each post is made while the home goes to sleep or wakes, and must not be missed."""
    producers, posts = 4, 300
    got: list[tuple[int, int]] = []
    barrier = threading.Barrier(producers)

    def produce(who: int) -> None:
        barrier.wait()
        for number in range(posts):
            io.context.call_soon(got.append, (who, number))

    for done in [in_thread(produce, who) for who in range(producers)]:
        done.result(30)
    homebound.block_on(io.spawn(asyncio.sleep(0)))
    assert len(got) == producers * posts
    for who in range(producers):
        assert [number for each, number in got if each == who] == list(range(posts))


def test_each_post_to_a_sleeping_home_wakes_it(io: IOThread):
    for _ in range(300):
        ran = threading.Event()
        io.context.call_soon(ran.set)
        assert ran.wait(10)


def test_no_wake_up_while_the_home_is_awake(io: IOThread, gate: Gate):
    seen: list[homebound.ContextStats] = []
    go_on = gate(io.context)
    seen.append(io.context.stats())
    for _ in range(100):
        io.context.call_soon(lambda: None)
    io.context.call_soon(lambda: seen.append(io.context.stats()))
    go_on.set()
    homebound.block_on(io.spawn(asyncio.sleep(0)))
    before, after = seen
    assert after.wakeups == before.wakeups
    assert after.iterations == before.iterations + 1


def test_a_burst_to_a_sleeping_home_is_one_wake_up(io: IOThread):
    """The second post finds the home awake, or about to wake."""
    total = 200

    def burst() -> int:
        """Post many callbacks; return how many of them woke the home."""
        before = io.context.stats()
        done = threading.Event()
        for _ in range(total - 1):
            io.context.call_soon(lambda: None)
        io.context.call_soon(done.set)
        assert done.wait(10)
        return io.context.stats().wakeups - before.wakeups

    # In one burst the home may run, and sleep again, after each post: a wake releases the GIL.
    assert any(burst() < total for _ in range(100))


def test_a_handle_cancels(io: IOThread, gate: Gate):
    ran: list[int] = []
    go_on = gate(io.context)
    handles = [io.context.call_soon(ran.append, number) for number in range(3)]
    assert not handles[1].cancelled()
    handles[1].cancel()
    assert handles[1].cancelled()
    go_on.set()
    homebound.block_on(io.spawn(asyncio.sleep(0)))
    assert ran == [0, 2]
    handles[0].cancel()  # too late, and harmless


def test_call_soon_carries_contextvars(io: IOThread):
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")
    var.set("the poster's")
    seen: list[str] = []

    def look() -> None:
        seen.append(var.get())
        var.set("the callback's")

    io.context.call_soon(look)
    homebound.block_on(io.spawn(asyncio.sleep(0)))
    assert seen == ["the poster's"]
    assert var.get() == "the poster's"


def test_callbacks_from_a_thread_without_contextvars_have_each_their_own(
    io: IOThread, in_thread: InThread
):
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")
    seen: list[str] = []

    def look() -> None:
        seen.append(var.get())
        var.set("the callback's")

    def look_with(value: str) -> None:
        seen.append(var.get())
        var.set(value)

    def post() -> None:
        for _ in range(2):
            io.context.call_soon(look)
            io.context.call_soon(look_with, "the argument")

    in_thread(post).result(10)
    homebound.block_on(io.spawn(asyncio.sleep(0)))
    assert seen == ["unset"] * 4


def test_a_callback_that_raises_is_reported_and_the_rest_goes_on():
    async def main() -> None:
        reports: list[dict[str, Any]] = []
        loop, context = asyncio.get_running_loop(), here()
        loop.set_exception_handler(lambda _, report: reports.append(report))
        ran: list[int] = []
        context.call_soon(int, "x")
        context.call_soon(ran.append, 1)
        context.bottom_half(lambda: int("y")).schedule()
        context.call_soon(ran.append, 2)
        await asyncio.sleep(0)
        assert ran == [1, 2]
        assert [type(report["exception"]) for report in reports] == [ValueError, ValueError]

    homebound.run(main())


def test_poll_says_whether_something_ran():
    async def main() -> None:
        context = here()
        assert not context.poll(blocking=False)
        context.call_soon(lambda: None)
        assert context.poll(blocking=False)
        assert not context.poll(blocking=False)
        context.call_soon(lambda: None).cancel()
        assert not context.poll(blocking=False)

    homebound.run(main())


def test_blocking_poll_sleeps_until_notified(in_thread: InThread):
    async def main() -> None:
        context = here()
        done = in_thread(context.notify)
        assert not context.poll()  # nothing ran: it was only told to look
        done.result(10)

    homebound.run(main())


def test_notify_before_the_poll_is_not_missed(in_thread: InThread):
    async def main() -> None:
        context = here()
        for _ in range(3):
            context.notify()
        assert not context.poll()
        in_thread(context.notify).result(10)
        assert not context.poll()

    homebound.run(main())


def test_blocking_poll_runs_a_timer_and_a_post(in_thread: InThread):
    async def main() -> None:
        context = here()
        ran: list[str] = []
        asyncio.get_running_loop().call_later(0.001, ran.append, "timer")
        while not ran:
            context.poll()
        done = in_thread(context.call_soon, ran.append, "post")
        while len(ran) < 2:
            context.poll()
        done.result(10)
        assert ran == ["timer", "post"]

    homebound.run(main())


def test_poll_belongs_to_the_home(io: IOThread, in_thread: InThread):
    with pytest.raises(homebound.WrongThread, match=r"poll.*only its home may poll it"):
        io.context.poll(blocking=False)
    with pytest.raises(homebound.WrongThread, match=r"thread 'plain0' \(no current context\)"):
        in_thread(io.context.poll).result(10)

    async def main() -> None:
        with pytest.raises(homebound.WrongThread, match="current context 'main'"):
            io.context.poll()

    homebound.run(main())


def test_spawn_takes_coroutines_only(io: IOThread):
    with pytest.raises(TypeError, match="a coroutine was expected"):
        io.context.spawn(note)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        io.spawn(42)  # type: ignore[arg-type]


def test_spawn_gives_a_named_task_and_takes_a_context(io: IOThread):
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")
    given = contextvars.copy_context()
    given.run(var.set, "given")

    async def look() -> str:
        return var.get()

    task = io.spawn(look(), name="looker", context=given)
    assert task.get_name() == "looker"
    assert task.home is io.context
    assert homebound.block_on(task) == "given"
