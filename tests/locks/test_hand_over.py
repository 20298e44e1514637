"""Every primitive between every two kinds of place: waiters are served in order."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import permutations, repeat, starmap
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable


def joined(waiters: Callable[[], Any], count: int) -> None:
    """So many wait."""
    until(lambda: len(waiters()) == count)


def test_lock(place: Any, other_place: Any):
    lock = homebound.Lock()
    assert place.do(lock, "acquire").result() is True
    waiters = []
    for number in range(3):
        waiters.append((place, other_place)[number % 2].do(lock, "acquire"))
        joined(lambda: lock._waiters, number + 1)
    assert not any(waiter.done() for waiter in waiters)
    for number, waiter in enumerate(waiters):
        lock.release()
        assert waiter.result() is True
        assert [each.done() for each in waiters] == [k <= number for k in range(3)]
        assert lock.locked()
    lock.release()
    assert not lock.locked()


def test_lock_is_handed_over_before_the_waiter_runs(place: Any):
    lock = homebound.Lock()
    lock.acquire_sync()
    waiter = place.do(lock, "acquire")
    until(lambda: lock._waiters)
    lock.release()
    assert lock.locked()
    assert not lock.acquire_sync(timeout=0)
    assert waiter.result() is True
    lock.release()


def test_semaphore(place: Any, other_place: Any):
    semaphore = homebound.Semaphore(2)
    for _ in range(2):
        assert place.do(semaphore, "acquire").result() is True
    assert semaphore.locked()
    waiters = []
    for number in range(4):
        waiters.append((place, other_place)[number % 2].do(semaphore, "acquire"))
        joined(lambda: semaphore._waiters, number + 1)
    for waiter in waiters:
        semaphore.release()
        assert waiter.result() is True
    assert semaphore._value == 0


def test_event(place: Any, other_place: Any):
    event = homebound.Event()
    waiters = [each.do(event, "wait") for each in (place, other_place, place)]
    until(lambda: len(event._waiters) == 3)
    event.set()
    event.clear()  # all of them were let go all the same
    assert all(waiter.result() is True for waiter in waiters)
    late = place.do(event, "wait")
    until(lambda: event._waiters)
    event.set()
    assert late.result() is True
    assert other_place.do(event, "wait").result() is True


def test_condition(place: Any, other_place: Any):
    condition = homebound.Condition()

    class Waiting:
        async def run(self) -> bool:
            async with condition:
                return await condition.wait()

        def run_sync(self) -> bool:
            with condition:
                return condition.wait_sync()

    waiters = []
    for number in range(3):
        waiters.append((place, other_place)[number % 2].do(Waiting(), "run"))
        joined(lambda: condition._waiters, number + 1)
    with condition:
        condition.notify()
        assert not waiters[0].done()
    assert waiters[0].result() is True
    assert not waiters[1].done()
    with condition:
        condition.notify_all()
    assert [waiter.result() for waiter in waiters] == [True] * 3
    assert not condition.locked()


def test_barrier(place: Any, other_place: Any):
    barrier = homebound.Barrier(3)
    for _ in range(2):
        first = place.do(barrier, "wait")
        until(lambda: barrier.n_waiting == 1)
        second = other_place.do(barrier, "wait")
        until(lambda: barrier.n_waiting == 2)
        assert barrier.wait_sync() == 2
        assert [first.result(), second.result()] == [0, 1]
        until(lambda: barrier._state == "filling")


def test_broken_barrier(place: Any):
    barrier = homebound.Barrier(2)
    for stop in (barrier.reset_sync, barrier.abort_sync):
        waiter = place.do(barrier, "wait")
        until(lambda: barrier.n_waiting)
        stop()
        with pytest.raises(asyncio.BrokenBarrierError):
            waiter.result()
    with pytest.raises(asyncio.BrokenBarrierError):
        place.do(barrier, "wait").result()
    barrier.reset_sync()
    assert not barrier.broken


def test_rwlock_lets_adjacent_readers_in_together(place: Any, other_place: Any):
    rw = homebound.RWLock()
    rw.acquire_write_sync()
    kinds = ["read", "read", "write", "read", "read"]
    waiters = []
    for number, kind in enumerate(kinds):
        waiters.append((place, other_place)[number % 2].do(rw, f"acquire_{kind}"))
        joined(lambda: rw._waiters, number + 1)

    def done() -> list[bool]:
        return [waiter.done() for waiter in waiters]

    rw.release()
    waiters[0].result()
    waiters[1].result()
    assert rw._owners == 2
    assert done() == [True, True, False, False, False]
    rw.release()
    assert len(rw._waiters) == 3
    rw.release()
    waiters[2].result()
    assert rw._owners == -1
    assert done() == [True, True, True, False, False]
    rw.release()
    waiters[3].result()
    waiters[4].result()
    assert rw._owners == 2
    rw.release()
    rw.release()
    assert not rw.locked()


def test_queue(place: Any, other_place: Any):
    queue: homebound.Queue[int] = homebound.Queue(1)
    getters = []
    for number in range(3):
        getters.append(place.do(queue, "get"))
        joined(lambda: queue._getters, number + 1)
    for number in range(3):
        other_place.do(queue, "put", number).result()
        assert getters[number].result() == number
    putters = [other_place.do(queue, "put", 3)]
    putters[0].result()
    for number in range(3):
        putters.append(other_place.do(queue, "put", 4 + number))
        joined(lambda: queue._putters, number + 1)
    for number in range(4):
        assert place.do(queue, "get").result() == 3 + number
        putters[number].result()
        queue.task_done()
    joiner = place.do(queue, "join")
    until(lambda: queue._unfinished._waiters)
    for _ in range(3):
        assert not joiner.done()
        queue.task_done()
    joiner.result()


def test_queue_shut_down(place: Any):
    empty: homebound.Queue[int] = homebound.Queue()
    getter = place.do(empty, "get")
    until(lambda: empty._getters)
    full: homebound.Queue[int] = homebound.Queue(1)
    full.put_nowait(1)
    putter = place.do(full, "put", 2)
    until(lambda: full._putters)
    empty.shutdown()
    full.shutdown()
    for doing in (getter, putter, place.do(empty, "get"), place.do(full, "put", 3)):
        with pytest.raises(homebound.QueueShutDown):
            doing.result()
    assert place.do(full, "get").result() == 1
    with pytest.raises(homebound.QueueShutDown):
        place.do(full, "get").result()


def test_queue_shut_down_at_once(place: Any):
    queue: homebound.Queue[int] = homebound.Queue()
    queue.put_nowait(1)
    queue.put_nowait(2)
    joiner = place.do(queue, "join")
    until(lambda: queue._unfinished._waiters)
    queue.shutdown(immediate=True)
    joiner.result()
    assert queue.empty()
    with pytest.raises(homebound.QueueShutDown):
        queue.get_nowait()


def test_queue_shut_down_at_once_with_an_item_on_its_way():
    """Its getter is cancelled: the item is dropped too, and counts as done."""

    async def main() -> None:
        queue: homebound.Queue[int] = homebound.Queue(1)
        getter = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.put_nowait(1)
        queue.shutdown(immediate=True)
        getter.cancel()
        await queue.join()
        assert getter.cancelled()
        assert queue.empty()
        assert not queue.full()
        with pytest.raises(homebound.QueueShutDown):
            queue.get_nowait()

    homebound.run(main())
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())


async def _got(queue: Any, script: tuple[int | str, ...]) -> list[Any]:
    """What three getters get, and what is left: a number cancels that one, a string is put."""
    getters = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    for each in script:
        if isinstance(each, int):
            getters[each].cancel()
        else:
            queue.put_nowait(each)
    got = await asyncio.gather(*getters, return_exceptions=True)
    left = [queue.get_nowait() for _ in range(queue.qsize())]
    return [type(each) if isinstance(each, BaseException) else each for each in got] + left


def _scripts() -> set[tuple[int | str, ...]]:
    steps: list[list[int | str]] = [
        ["a", "b", "c", *victims] for victims in [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]
    ]
    return {
        order
        for each in steps
        for order in permutations(each)
        if order.index("a") < order.index("b") < order.index("c")
    }


def test_items_keep_their_order_when_getters_are_cancelled():
    """As in asyncio, where a getter takes the first item when it runs; here it is handed one."""

    async def check() -> None:
        for script in _scripts():
            ours = await _got(homebound.Queue(), script)
            assert ours == await _got(asyncio.Queue(), script), script

    homebound.run(check())
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(check())


@pytest.mark.parametrize(
    ("kind", "items", "expected"),
    [(homebound.PriorityQueue, [1, 5, 3], [1, 3]), (homebound.LifoQueue, [1, 2, 3], [2, 3])],
)
def test_who_comes_later_chooses_again(
    kind: type[homebound.Queue[int]], items: list[int], expected: list[int]
):
    async def main() -> None:
        queue = kind()
        getters = [asyncio.create_task(queue.get()) for _ in items]
        await asyncio.sleep(0)
        for item in items:
            queue.put_nowait(item)
        getters[0].cancel()
        assert await asyncio.gather(*getters[1:]) == expected
        assert sorted([*expected, queue.get_nowait()]) == sorted(items)

    homebound.run(main())


# The marks of unfinished work, of which most become a number.


def test_many_that_nobody_reported_are_still_counted():
    queue: homebound.Queue[int] = homebound.Queue()
    for number in range(3000):
        queue.put_nowait(number)
    for _ in range(3000):
        assert not queue.join_sync(timeout=0)
        queue.task_done()
    assert queue.join_sync(timeout=0)
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()


def test_a_list_that_is_extended_keeps_what_came_before_an_error():
    """As `Unfinished.stow` has it: the marks that it has popped are in the list."""
    marks, taken = deque[None]([None] * 3), list[None]()
    with pytest.raises(IndexError):
        taken.extend(starmap(marks.pop, repeat((), 5)))
    assert (len(marks), len(taken)) == (0, 3)


def test_code_written_for_asyncio_puts_no_future_into_a_queue():
    """The queue's private names of asyncio's are copies."""
    queue: Any = homebound.Queue(1)
    queue.put_nowait(1)
    with pytest.raises(AttributeError):
        queue._putters.append(object())
    assert queue.get_nowait() == 1
