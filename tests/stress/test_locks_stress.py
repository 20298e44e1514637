"""Locks, events and queues fought over by homes, a loop of others and threads, while some die."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONTEXTS = [2, 5]
PATIENCE = 30.0


class Fight:
    """Runs users of one thing everywhere until the time is over; some are cancelled, homes die."""

    def __init__(self, contexts: int, rng: random.Random, seconds: float) -> None:
        self.rng = rng
        self.deadline = time.monotonic() + seconds
        self.ios = [homebound.IOThread(f"io{number}") for number in range(contexts)]
        self.guests = [LoopThread(factory) for factory in guest_factories()]
        self.errors: list[BaseException] = []

    def over(self) -> bool:
        return time.monotonic() > self.deadline or bool(self.errors)

    async def guarded(self, user: Callable[[random.Random], Any], seed: float) -> None:
        rng = random.Random(seed)
        while not self.over():
            try:
                await user(rng)
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                self.errors.append(error)
                raise
            if rng.random() < 0.2:
                await asyncio.sleep(0)

    def in_thread(self, user: Callable[[random.Random], Any], seed: float) -> None:
        rng = random.Random(seed)
        while not self.over():
            try:
                user(rng)
            except BaseException as error:  # noqa: BLE001 - the test raises it
                self.errors.append(error)

    def run(
        self,
        user: Callable[[random.Random], Any],
        user_sync: Callable[[random.Random], Any],
        finish: Callable[[], object] = bool,
    ) -> None:
        """Everyone who is not cancelled ends by himself; `finish` is called until they have."""
        for io in self.ios:
            io.start()
        threads = [
            threading.Thread(target=self.in_thread, args=[user_sync, self.rng.random()])
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        try:
            tasks = self.keep_fighting(user)
            if not self.errors:
                wait_until_done(tasks, threads, finish)
        finally:
            self.deadline = 0.0
            self.end(threads)
        if self.errors:
            raise self.errors[0]

    def keep_fighting(self, user: Callable[[random.Random], Any]) -> list[Any]:
        rng = self.rng
        places = len(self.ios) + len(self.guests)
        tasks: list[list[Any]] = [[] for _ in range(places)]
        while not self.over():
            for number, group in enumerate(tasks):
                group[:] = [task for task in group if not task.done()]
                while len(group) < 4:
                    group.append(self.begin(number, user))
            rng.choice(rng.choice(tasks)).cancel()
            if rng.random() < 0.02:
                victim = rng.randrange(len(self.ios))
                self.ios[victim].stop(PATIENCE)
                self.ios[victim] = homebound.IOThread(f"io{victim}")
                self.ios[victim].start()
            time.sleep(0.0005)
        return [task for group in tasks for task in group]

    def begin(self, number: int, user: Callable[[random.Random], Any]) -> Any:
        coro = self.guarded(user, self.rng.random())
        if number < len(self.ios):
            return self.ios[number].spawn(coro)
        return asyncio.run_coroutine_threadsafe(coro, self.guests[number - len(self.ios)].loop)

    def end(self, threads: list[threading.Thread]) -> None:
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a thread hangs"
        for io in self.ios:
            io.stop(PATIENCE)
        for guest in self.guests:
            guest.end()


def wait_until_done(
    tasks: list[Any], threads: list[threading.Thread], finish: Callable[[], object]
) -> None:
    deadline = time.monotonic() + PATIENCE
    while any(thread.is_alive() for thread in threads) or not all(task.done() for task in tasks):
        assert time.monotonic() < deadline, f"these wait for ever: {tasks} {threads}"
        finish()
        time.sleep(0.001)


class LoopThread:
    """A loop of others."""

    def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.loop = factory()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def end(self) -> None:
        async def cancel_all() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(cancel_all(), self.loop).result(PATIENCE)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        self.loop.close()


def guest_factories() -> list[Callable[[], asyncio.AbstractEventLoop]]:
    if importlib.util.find_spec("uvloop"):
        import uvloop  # noqa: PLC0415

        return [uvloop.new_event_loop]
    return [asyncio.SelectorEventLoop]


@pytest.fixture(scope="session", autouse=True)
def _libuv_is_awake() -> None:
    """libuv opens a pipe at its first loop and keeps it: no test's leak."""
    for factory in guest_factories():
        loop = factory()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """A loop that closes with tasks says so; that is what happens here."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("asyncio").setLevel(logging.NOTSET)


@pytest.fixture(params=CONTEXTS)
def fight(request: pytest.FixtureRequest, seed: int, stress_seconds: float) -> Fight:
    return Fight(request.param, random.Random(seed), stress_seconds)


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

    fight.run(user, user_sync)
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

    fight.run(user, user_sync)
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

    fight.run(user, user_sync)
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

    fight.run(user, user_sync, change)


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

    fight.run(user, user_sync, add)
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

    fight.run(user, user_sync, barrier.abort_sync)
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
def test_queue(fight: Fight, kind: type[homebound.Queue[float]], maxsize: int):
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
            assert fight.over()

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

    fight.run(user, user_sync, queue.shutdown)
    while not queue.empty():
        got.append(queue.get_nowait())
    assert len(got) == len(set(map(id, got))), "an item was got twice"
    assert set(map(id, put)) == set(map(id, got)), (len(put), len(got))
    assert not queue._getters
    assert not queue._putters
    if maxsize:
        assert queue._slots is not None
        assert queue._slots._value == maxsize
