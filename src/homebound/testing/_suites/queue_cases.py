"""The requirements on any queue."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from ..._sync.queue_ends import QueueShutDown
from ..._threads.block_on import block_on
from ..._threads.io_thread import IOThread
from ..._threads.run import run as run_here
from .._places import LoopThread, Threads
from .._time.settle import settle_sync
from .cases import STEPS, Case, all_of, check_all, outcome, raises, title, turn, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    Run = Callable[[Coroutine[Any, Any, None]], object]
    Order = Literal["fifo", "lifo", "priority"]

ITEMS = 100  # of each producer, where several contend
SHUT_DOWN: tuple[type[BaseException], ...] = (
    QueueShutDown,
    getattr(asyncio, "QueueShutDown", QueueShutDown),  # since 3.13
)


def drained(items: list[Any], order: Order) -> list[Any]:
    """Return the order in which a queue gives out its items."""
    if order == "fifo":
        return items
    return items[::-1] if order == "lifo" else sorted(items)


# Tasks of one loop.


async def keeps_order(new: Callable[..., Any], order: Order) -> None:
    queue = new()
    items = [3, 1, 4, 0, 5, 9, 2, 6]
    for item in items:
        queue.put_nowait(item)
    assert queue.qsize() == len(items), f"{len(items)} are in, qsize() says {queue.qsize()}"
    got = [await queue.get() for _ in items]
    assert got == drained(items, order), f"{items} came out as {got}"
    assert queue.empty(), "all were taken, and empty() says no"
    raises(asyncio.QueueEmpty, queue.get_nowait, "something came out of an empty queue")


async def keeps_its_bound(new: Callable[..., Any], order: Order) -> None:
    queue = new(2)
    await queue.put(1)
    await queue.put(2)
    assert queue.full(), "it is full, and full() says no"
    raises(asyncio.QueueFull, partial(queue.put_nowait, 3), "a full queue took an item")
    task = asyncio.create_task(queue.put(3))
    await turn()
    assert not task.done(), "a full queue took an item"
    assert queue.qsize() == 2, f"2 are in, qsize() says {queue.qsize()}"  # noqa: PLR2004
    first = await queue.get()
    await outcome(task)
    rest = [queue.get_nowait(), queue.get_nowait()]
    assert [first, *sorted(rest)] == [drained([1, 2], order)[0], *sorted({1, 2, 3} - {first})], (
        f"1, 2, 3 came out as {[first, *rest]}"
    )


async def counts_what_is_done(new: Callable[..., Any], _order: Order) -> None:
    queue = new()
    queue.put_nowait(1)
    queue.put_nowait(2)
    task = asyncio.create_task(queue.join())
    for _ in range(2):
        await turn()
        assert not task.done(), "join() has returned, and not all is done"
        await queue.get()
        queue.task_done()
    await outcome(task)
    raises(ValueError, queue.task_done, "more was done than was put")


async def serves_getters_in_order(new: Callable[..., Any], _order: Order) -> None:
    queue = new()
    got = []

    async def getter(number: int) -> None:
        got.append((number, await queue.get()))

    tasks = []
    for number in range(4):
        tasks.append(asyncio.create_task(getter(number)))
        await turn()
    for number in range(4):
        queue.put_nowait(number)
        await turn()
    await all_of(*tasks)
    assert got == [(number, number) for number in range(4)], f"(getter, item): {got}"


async def serves_putters_in_order(new: Callable[..., Any], _order: Order) -> None:
    queue = new(1)
    queue.put_nowait(0)
    tasks = []
    for number in range(1, 5):
        tasks.append(asyncio.create_task(queue.put(number)))
        await turn()
    got = []
    for _ in range(5):
        got.append(queue.get_nowait())
        await turn()
    await all_of(*tasks)
    assert got == list(range(5)), f"got {got}"


async def loses_no_item(new: Callable[..., Any], _order: Order) -> None:
    """Cancel a getter at one step, put an item at another."""
    for cancel_at in range(STEPS):
        for put_at in range(STEPS):
            queue = new()
            got: list[str] = []

            async def getter(queue: Any = queue, got: list[str] = got) -> None:
                got.append(await queue.get())

            task = asyncio.create_task(getter())
            for step in range(STEPS):
                if step == put_at:
                    queue.put_nowait("item")
                if step == cancel_at:
                    task.cancel()
                await asyncio.sleep(0)
            await outcome(task)
            when = f"cancelled at step {cancel_at}, put at {put_at}"
            if not got:
                assert not queue.empty(), f"an item was lost; {when}"
                got.append(queue.get_nowait())
            assert got == ["item"], f"got {got}; {when}"
            assert queue.empty(), f"an item was doubled; {when}"


async def loses_no_slot(new: Callable[..., Any], _order: Order) -> None:
    """Cancel a putter at one step, free a slot at another."""
    for cancel_at in range(STEPS):
        for get_at in range(STEPS):
            queue = new(1)
            queue.put_nowait("first")
            task = asyncio.create_task(queue.put("second"))
            for step in range(STEPS):
                if step == get_at:
                    assert queue.get_nowait() == "first"
                if step == cancel_at:
                    task.cancel()
                await asyncio.sleep(0)
            when = f"cancelled at step {cancel_at}, taken at {get_at}"
            if await outcome(task) == "cancelled":
                assert queue.empty(), f"a put was cancelled, and its item is in; {when}"
                queue.put_nowait("second")
            assert queue.full(), f"a slot too many; {when}"
            assert queue.get_nowait() == "second", when
            assert queue.empty(), f"an item was doubled; {when}"


async def shuts_down(new: Callable[..., Any], _order: Order) -> None:
    """Notify the waiters on shutdown and keep the items; only for queues with `shutdown`."""
    queue = new(1)
    if not hasattr(queue, "shutdown"):
        return
    queue.put_nowait(1)
    putter = asyncio.create_task(queue.put(2))
    empty = new()
    getter = asyncio.create_task(empty.get())
    await turn()
    for each in (queue, empty):
        each.shutdown()
    for task in (putter, getter):
        try:
            await outcome(task)
        except SHUT_DOWN:
            continue
        raise AssertionError("it was shut down, but a waiter was not told")
    raises(SHUT_DOWN, partial(empty.put_nowait, 3), "it was shut down, and took an item")
    assert queue.get_nowait() == 1
    raises(SHUT_DOWN, queue.get_nowait, "it was shut down and is empty, and gave something")


# Homes, loops of others, threads.


class Traffic:
    """Producers and consumers of a queue, and what they got."""

    def __init__(self, queue: Any, patience: float) -> None:
        self.queue = queue
        self.patience = patience
        self.got: list[int] = []

    async def produce(self, first: int) -> None:
        for item in range(first, first + ITEMS):
            await self.queue.put(item)

    async def consume(self) -> None:
        for _ in range(ITEMS):
            item = await self.queue.get()
            self.got.append(item)

    def produce_sync(self, first: int) -> None:
        for item in range(first, first + ITEMS):
            self.queue.put_sync(item, timeout=self.patience)

    def consume_sync(self) -> None:
        for _ in range(ITEMS):
            item = self.queue.get_sync(timeout=self.patience)
            self.got.append(item)


def conserves_items_everywhere(new: Callable[..., Any], maxsize: int, patience: float) -> None:
    queue = new(maxsize)
    traffic = Traffic(queue, patience)
    with Threads(patience=patience) as threads, LoopThread(asyncio.SelectorEventLoop) as other:
        there = [other.call(traffic.consume()), other.call(traffic.produce(2 * ITEMS))]
        if hasattr(queue, "get_sync"):
            there.append(threads.start(traffic.consume_sync))
            there.append(threads.start(traffic.produce_sync, 3 * ITEMS))
        with IOThread() as io, IOThread() as io2:
            tasks = [io.spawn(traffic.produce(0)), io.spawn(traffic.consume())]
            tasks += [io2.spawn(traffic.produce(ITEMS)), io2.spawn(traffic.consume())]
            wait_for(tasks, there, patience)
    put, got = (len(there) + len(tasks)) // 2 * ITEMS, traffic.got
    assert sorted(got) == list(range(put)), f"{put} put, {len(got)} got, {len(set(got))} of them"
    assert queue.empty(), "all were taken, and empty() says no"


def survives_the_end_of_a_home(new: Callable[..., Any], patience: float) -> None:
    queue = new()
    with IOThread() as io:
        with IOThread() as dying:
            gone = dying.spawn(queue.get())
            settle_sync(dying.context)
            second = io.spawn(queue.get())
            settle_sync(io.context)
        assert gone.done(), "its home has ended, and it waits"
        queue.put_nowait("item")
        assert block_on(second, timeout=patience) == "item"


def lets_a_thread_give_up(new: Callable[..., Any], patience: float) -> None:
    queue = new(1)
    if not hasattr(queue, "get_sync"):
        return
    with Threads(patience=patience) as threads:
        raises(asyncio.QueueEmpty, threads.start(queue.get_sync, 0.001).result, "it was empty")
        waiter = threads.start(queue.get_sync, patience)
        queue.put_sync(1, timeout=patience)
        assert waiter.result(patience) == 1
        queue.put_sync(2, timeout=patience)
        raises(asyncio.QueueFull, threads.start(queue.put_sync, 3, 0.001).result, "it was full")
    assert queue.get_nowait() == 2  # noqa: PLR2004
    assert queue.empty(), "a put that was given up is in"


ON_ONE_LOOP = [
    keeps_order,
    keeps_its_bound,
    counts_what_is_done,
    serves_getters_in_order,
    serves_putters_in_order,
    loses_no_item,
    loses_no_slot,
    shuts_down,
]


def queue_cases(
    *,
    order: Order = "fifo",
    run: Run = run_here,
    one_loop: bool = False,
    patience: float = 20.0,
) -> list[Case]:
    """Return the requirements on a queue as cases: pairs of a name and `check(factory)`.

    See `check_queue` for the options, `lock_cases` for the use.

    >>> from homebound.testing import queue_cases
    >>> [case.name for case in queue_cases()][0]
    'keeps order'

    Called from: any thread.
    """

    def on_one_loop(case: Any, factory: Any) -> None:
        run(case(factory, order))

    def conserves(maxsize: int, factory: Any) -> None:
        conserves_items_everywhere(factory, maxsize, patience)

    def everywhere(case: Any, factory: Any) -> None:
        case(factory, patience)

    cases = [Case(title(each), partial(on_one_loop, each)) for each in ON_ONE_LOOP]
    if not one_loop:
        name = title(conserves_items_everywhere)
        cases.append(Case(name, partial(conserves, 0)))
        cases.append(Case(f"{name}, bounded", partial(conserves, 3)))
        others = [survives_the_end_of_a_home, lets_a_thread_give_up]
        cases += [Case(title(each), partial(everywhere, each)) for each in others]
    return cases


def check_queue(  # noqa: PLR0913  (options of one call)
    factory: Callable[..., Any],
    *,
    order: Order = "fifo",
    run: Run = run_here,
    one_loop: bool = False,
    patience: float = 20.0,
    skip: Iterable[str] = (),
) -> None:
    """Check that what `factory(maxsize=0)` makes is a queue: nothing is lost, doubled or let past.

    It has asyncio.Queue's interface, and is used by tasks of several loops and by plain threads
    (if it has `get_sync(timeout)` and `put_sync(item, timeout)`). `order` is that of its items:
    "fifo", "lifo" or "priority". With `one_loop` it need serve no more than tasks of the loop that
    `run(coroutine)` runs. `patience` is how long, in seconds, a thread may seem to hang. `skip` has
    names of cases, see `queue_cases`. Raises AssertionError naming the case that fails, an
    ExceptionGroup if there are more, ValueError for names that are no case's.

    >>> import asyncio, homebound
    >>> from homebound.testing import check_queue
    >>> check_queue(homebound.Queue)
    >>> check_queue(asyncio.LifoQueue, order="lifo", one_loop=True)

    Called from: any thread.
    """
    cases = queue_cases(order=order, run=run, one_loop=one_loop, patience=patience)
    check_all("check_queue", cases, factory, skip)
