"""Locks, events and queues fought over by homes, a loop of others and threads, while some die."""

from __future__ import annotations

import asyncio
import logging
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound.testing import Stress, other_loops

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    Fight = Callable[..., None]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """A loop that closes with tasks says so; that is what happens here."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("asyncio").setLevel(logging.NOTSET)


@pytest.fixture(params=[2, 5])
def fight(request: pytest.FixtureRequest, stress: Stress) -> Callable[..., None]:
    """`fight(task, thread, finish)`: everywhere, with tasks cancelled and homes that die."""
    loops = other_loops()
    return partial(
        stress.run,
        contexts=request.param,
        deaths=0.02,
        loops=[loops.get("uvloop", loops["asyncio"])],
    )


class Inside:
    """How many are in there; never more than `most`. Not atomic, so that an intruder is seen."""

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
def test_lock(fight: Fight):
    lock, inside = homebound.Lock(), Inside(1)
    entered: list[None] = []

    async def user(rng: random.Random) -> None:
        async with lock:
            inside.enter()
            entered.append(None)
            try:
                if rng.random() < 0.5:
                    await asyncio.sleep(0)
            finally:
                inside.leave()

    def user_sync(rng: random.Random) -> None:
        if lock.acquire_sync(timeout=rng.choice([0, 0.001, None])):
            inside.enter()
            entered.append(None)
            inside.leave()
            lock.release()

    fight(user, user_sync)
    assert not lock.locked()
    assert not lock._waiters
    assert inside.times == len(entered) > 0


@pytest.mark.timeout(240)
def test_semaphore(fight: Fight):
    semaphore, inside = homebound.BoundedSemaphore(3), Inside(3)

    async def user(rng: random.Random) -> None:
        async with semaphore:
            inside.enter()
            try:
                if rng.random() < 0.5:
                    await asyncio.sleep(0)
            finally:
                inside.leave()

    def user_sync(rng: random.Random) -> None:
        if semaphore.acquire_sync(timeout=rng.choice([0, 0.001, None])):
            inside.enter()
            inside.leave()
            semaphore.release()

    fight(user, user_sync)
    assert semaphore._value == 3
    assert not semaphore._waiters


@pytest.mark.timeout(240)
def test_rwlock(fight: Fight):
    rw = homebound.RWLock()
    readers: list[None] = []
    writers: list[None] = []

    def check(*, write: bool) -> None:
        assert len(writers) == (1 if write else 0)
        assert not write or not readers

    async def user(rng: random.Random) -> None:
        if rng.random() < 0.5:
            async with rw.read():
                readers.append(None)
                try:
                    check(write=False)
                    await asyncio.sleep(0)
                finally:
                    readers.pop()
                if rng.random() < 0.3:
                    await rw.upgrade()
                    check(write=True) if writers else None
        else:
            async with rw.write():
                writers.append(None)
                try:
                    check(write=True)
                    await asyncio.sleep(0)
                finally:
                    writers.pop()
                if rng.random() < 0.5:
                    rw.downgrade()

    def user_sync(rng: random.Random) -> None:
        with rw.read() if rng.random() < 0.7 else rw.write():
            assert rw.locked()

    fight(user, user_sync)
    assert rw._owners == 0
    assert not rw._waiters


@pytest.mark.timeout(240)
def test_event(fight: Fight):
    """Each event is set once, by the thread that puts up the next one; nobody misses it."""
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

    def user_sync(rng: random.Random) -> None:
        if rng.random() < 0.3:
            latest[0].wait_sync(timeout=0.001)
        change()

    fight(user, user_sync, finish=change)


@pytest.mark.timeout(240)
def test_condition(fight: Fight):
    """Things are put and taken under one condition; each taker is told of a thing."""
    condition, things = homebound.Condition(), [0]
    put, taken = [0], [0]

    async def user(rng: random.Random) -> None:
        async with condition:
            if rng.random() < 0.5:
                things[0] += 1
                put[0] += 1
                condition.notify()
            else:
                await condition.wait_for(lambda: things[0])
                things[0] -= 1
                taken[0] += 1

    def user_sync(_: random.Random) -> None:
        with condition:
            things[0] += 1
            put[0] += 1
            condition.notify()
            if condition.wait_for_sync(lambda: things[0], timeout=0.001):
                things[0] -= 1
                taken[0] += 1

    def add() -> None:
        with condition:
            things[0] += 1
            put[0] += 1
            condition.notify()

    fight(user, user_sync, finish=add)
    assert not condition.locked()
    assert not condition._waiters
    assert put[0] - taken[0] == things[0]


@pytest.mark.timeout(240)
def test_barrier(fight: Fight):
    """Groups of three; what stalls is reset by a thread."""
    barrier = homebound.Barrier(3)

    async def user(_: random.Random) -> None:
        try:
            assert await barrier.wait() in (0, 1, 2)
        except asyncio.BrokenBarrierError:
            await asyncio.sleep(0)

    def user_sync(_: random.Random) -> None:
        try:
            assert barrier.wait_sync(timeout=0.01) in (0, 1, 2)
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
def test_queue(fight: Fight, stress: Stress, kind: type[homebound.Queue[float]], maxsize: int):
    """Every item that a put took is got once, or is still there."""
    queue = kind(maxsize)
    put: list[float] = []
    got: list[float] = []

    async def user(rng: random.Random) -> None:
        try:
            if rng.random() < 0.5:
                item = rng.random()
                await queue.put(item)
                put.append(item)
            else:
                got.append(await queue.get())
        except homebound.QueueShutDown:
            assert stress.over()

    def user_sync(rng: random.Random) -> None:
        try:
            if rng.random() < 0.5:
                item = rng.random()
                queue.put_sync(item, timeout=0.001)
                put.append(item)
            else:
                got.append(queue.get_sync(timeout=0.001))
        except (asyncio.QueueFull, asyncio.QueueEmpty, homebound.QueueShutDown):
            pass
        if maxsize:
            assert queue.qsize() <= maxsize

    fight(user, user_sync, finish=queue.shutdown)
    while not queue.empty():
        got.append(queue.get_nowait())
    assert len(got) == len(set(map(id, got))), "an item was got twice"
    assert set(map(id, put)) == set(map(id, got)), (len(put), len(got))
    assert not queue._getters
    assert not queue._putters
    if maxsize:
        assert queue._slots is not None
        assert queue._slots._value == maxsize
