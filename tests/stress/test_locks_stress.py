"""Locks, events and queues contended by homes, a foreign loop and threads, while some end."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound.testing import Stress, other_loops

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    Fight = Callable[..., None]
    Count = Callable[[str], None]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Silence the warning of a loop that closes with tasks, which happens here on purpose."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("asyncio").setLevel(logging.NOTSET)


@pytest.fixture(params=[2, 5])
def fight(request: pytest.FixtureRequest, stress: Stress) -> Callable[..., None]:
    """`fight(task, thread, finish)` runs them everywhere, cancels tasks and ends homes."""
    loops = other_loops()
    return partial(
        stress.run,
        contexts=request.param,
        deaths=0.02,
        loops=[loops.get("uvloop", loops["asyncio"])],
    )


@pytest.fixture
def count(stress: Stress) -> Callable[[str], None]:
    """`count("served")` counts by the caller: a task of ours, a task of another loop, a thread."""

    def count(what: str) -> None:
        stress.count(f"{what} by {kind_of_waiter()}")

    return count


def kind_of_waiter() -> str:
    if homebound.current_task() is not None:
        return "homebound's tasks"
    return "threads" if asyncio._get_running_loop() is None else "other loops' tasks"


def counted(stress: Stress, what: str) -> int:
    """Return the count of all kinds together."""
    return sum(number for name, number in stress.counts.items() if name.startswith(f"{what} by "))


class Inside:
    """The number of parties inside; at most `most`. Not atomic, so that an intruder is detected."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.now: list[None] = []
        self.times = 0

    def enter(self) -> None:
        self.now.append(None)
        assert len(self.now) <= self.most
        if self.most == 1:
            before = self.times
            for _ in range(3):
                pass
            self.times = before + 1

    def leave(self) -> None:
        self.now.pop()


@pytest.mark.timeout(240)
def test_lock(fight: Fight, stress: Stress, count: Count):
    lock, inside = homebound.Lock(), Inside(1)

    async def user(rng: random.Random) -> None:
        async with lock:
            inside.enter()
            count("acquired")
            try:
                if rng.random() < 0.5:
                    await asyncio.sleep(0)
            finally:
                inside.leave()

    def user_sync(rng: random.Random) -> None:
        if lock.acquire_sync(timeout=rng.choice([0, 0.001, None])):
            inside.enter()
            count("acquired")
            inside.leave()
            lock.release()

    fight(user, user_sync)
    assert not lock.locked()
    assert not lock._waiters
    assert inside.times == counted(stress, "acquired") > 0


@pytest.mark.timeout(240)
def test_semaphore(fight: Fight, count: Count):
    semaphore, inside = homebound.BoundedSemaphore(3), Inside(3)

    async def user(rng: random.Random) -> None:
        async with semaphore:
            inside.enter()
            count("acquired")
            try:
                if rng.random() < 0.5:
                    await asyncio.sleep(0)
            finally:
                inside.leave()

    def user_sync(rng: random.Random) -> None:
        if semaphore.acquire_sync(timeout=rng.choice([0, 0.001, None])):
            inside.enter()
            count("acquired")
            inside.leave()
            semaphore.release()

    fight(user, user_sync)
    assert semaphore._value == 3
    assert not semaphore._waiters


class Book:
    """The present readers and writers, and the number of writes."""

    def __init__(self, count: Count) -> None:
        self.count = count
        self.readers: list[None] = []
        self.writers: list[None] = []
        self.written = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        self.readers.append(None)
        self.count("read")
        try:
            assert not self.writers
            yield
            assert not self.writers
        finally:
            self.readers.pop()

    @contextmanager
    def writing(self) -> Iterator[None]:
        self.writers.append(None)
        self.count("written")
        written = self.written
        try:
            assert len(self.writers) == 1
            assert not self.readers
            yield
            assert not self.readers
        finally:
            self.written = written + 1  # a simultaneous write would be lost
            self.writers.pop()


@pytest.mark.timeout(240)
def test_rwlock(fight: Fight, stress: Stress, count: Count):
    """Locks of tasks and of threads, with upgrades and downgrades."""
    rw, book = homebound.RWLock(), Book(count)

    async def user(rng: random.Random) -> None:
        if rng.random() < 0.5:
            async with rw.read():
                with book.reading():
                    await asyncio.sleep(0)
                if rng.random() < 0.3:
                    before = book.written
                    nobody_wrote = await rw.upgrade()
                    assert not nobody_wrote or book.written == before
                    count("upgraded")
                    with book.writing():
                        await asyncio.sleep(0)
        else:
            async with rw.write():
                with book.writing():
                    await asyncio.sleep(0)
                if rng.random() < 0.5:
                    rw.downgrade()
                    with book.reading():
                        await asyncio.sleep(0)

    def user_sync(rng: random.Random) -> None:
        with rw.read() if rng.random() < 0.7 else rw.write():
            if rw._owners > 0:
                with book.reading():
                    before = book.written
                try:
                    nobody_wrote = rw.upgrade_sync(timeout=rng.choice([0, 0.001, None]))
                except TimeoutError:
                    count("upgrades given up")
                    with book.reading():
                        return
                assert not nobody_wrote or book.written == before
                count("upgraded")
            with book.writing():
                pass
            if rng.random() < 0.3:
                rw.downgrade()
                with book.reading():
                    pass

    fight(user, user_sync)
    assert rw._owners == 0
    assert not rw._waiters
    assert book.written == counted(stress, "written") > 0
    assert counted(stress, "upgraded") > 0


@pytest.mark.timeout(240)
def test_event(fight: Fight, count: Count):
    """Each event is set once, by the thread that makes the next one; no waiter misses it."""
    latest = [homebound.Event()]
    changing = threading.Lock()

    def change() -> None:
        with changing:
            event, latest[0] = latest[0], homebound.Event()
        event.set()

    async def user(_: random.Random) -> None:
        event = latest[0]
        await event.wait()
        assert event.is_set()
        count("waited")

    def user_sync(rng: random.Random) -> None:
        if rng.random() < 0.3 and latest[0].wait_sync(timeout=0.001):
            count("waited")
        change()

    fight(user, user_sync, finish=change)


@pytest.mark.timeout(240)
def test_condition(fight: Fight, stress: Stress, count: Count):
    """Items are put and taken under one condition; each taker is notified of an item."""
    condition, things = homebound.Condition(), [0]

    def put() -> None:
        things[0] += 1
        count("put")
        condition.notify()

    def take() -> None:
        things[0] -= 1
        count("taken")

    async def user(rng: random.Random) -> None:
        async with condition:
            if rng.random() < 0.5:
                put()
            else:
                await condition.wait_for(lambda: things[0])
                take()

    def user_sync(_: random.Random) -> None:
        with condition:
            put()
            if condition.wait_for_sync(lambda: things[0], timeout=0.001):
                take()

    def add() -> None:
        with condition:
            put()

    fight(user, user_sync, finish=add)
    assert not condition.locked()
    assert not condition._waiters
    assert counted(stress, "put") - counted(stress, "taken") == things[0]


@pytest.mark.timeout(240)
def test_condition_with_timeouts(fight: Fight, stress: Stress, count: Count):
    """Waiters whose time is over pass notifications on while others join; the lock is not lost."""
    condition = homebound.Condition()

    async def user(rng: random.Random) -> None:
        try:
            # On a busy machine only the longest is ever notified in time.
            async with asyncio.timeout(rng.choice([0, 0.0001, 0.0005, 0.002, 5])), condition:
                condition.notify(rng.choice([1, 2, 10]))
                await asyncio.sleep(0)
                await condition.wait()
                count("notified")
        except TimeoutError:
            count("timed out")

    def user_sync(rng: random.Random) -> None:
        with condition:
            if condition.wait_sync(timeout=rng.choice([0, 0.0002, 0.001])):
                count("notified")
            else:
                condition.notify()
                count("timed out")

    def notify() -> None:
        with condition:
            condition.notify_all()

    fight(user, user_sync, finish=notify)
    assert not condition.locked()
    assert not condition._waiters
    assert not condition._lock._waiters
    assert counted(stress, "notified") > 0
    assert counted(stress, "timed out") > 0


@pytest.mark.timeout(240)
def test_barrier(fight: Fight, count: Count):
    """Groups of three; a thread resets the barrier when a group stalls."""
    barrier = homebound.Barrier(3)

    async def user(_: random.Random) -> None:
        try:
            assert await barrier.wait() in (0, 1, 2)
            count("passed")
        except asyncio.BrokenBarrierError:
            await asyncio.sleep(0)

    def user_sync(_: random.Random) -> None:
        try:
            assert barrier.wait_sync(timeout=0.01) in (0, 1, 2)
            count("passed")
        except TimeoutError:
            barrier.reset_sync()
        except asyncio.BrokenBarrierError:
            pass

    fight(user, user_sync, finish=barrier.abort_sync)
    assert barrier._count == 0
    assert not barrier._waiters


@pytest.mark.parametrize(
    ("kind", "maxsize"),
    [
        (homebound.Queue, 0),
        (homebound.Queue, 3),
        (homebound.PriorityQueue, 3),
        (homebound.LifoQueue, 3),
    ],
)
@pytest.mark.timeout(240)
def test_queue(
    fight: Fight, stress: Stress, count: Count, kind: type[homebound.Queue[float]], maxsize: int
):
    """Every item that a put accepted is got once, or is still there."""
    queue = kind(maxsize)
    put: list[float] = []
    got: list[float] = []

    async def user(rng: random.Random) -> None:
        try:
            if rng.random() < 0.5:
                item = rng.random()
                await queue.put(item)
                put.append(item)
                count("put")
            else:
                got.append(await queue.get())
                count("got")
        except homebound.QueueShutDown:
            assert stress.over()

    def user_sync(rng: random.Random) -> None:
        try:
            if rng.random() < 0.5:
                item = rng.random()
                queue.put_sync(item, timeout=0.001)
                put.append(item)
                count("put")
            else:
                got.append(queue.get_sync(timeout=0.001))
                count("got")
        except (asyncio.QueueFull, asyncio.QueueEmpty, homebound.QueueShutDown):
            pass
        if maxsize:
            assert queue.qsize() <= maxsize

    fight(user, user_sync, finish=queue.shutdown)
    left = queue.qsize()
    while not queue.empty():
        got.append(queue.get_nowait())
    assert counted(stress, "put") == counted(stress, "got") + left
    assert len(got) == len(set(map(id, got))), "an item was got twice"
    assert set(map(id, put)) == set(map(id, got)), (len(put), len(got))
    assert not queue._getters
    assert not queue._putters
    if maxsize:
        assert queue._slots is not None
        assert queue._slots._value == maxsize
