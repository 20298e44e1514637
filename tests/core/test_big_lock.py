"""The big lock: fair, not recursive, with an owner; released by the main thread while it sleeps."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import WouldDeadlock, WrongThread, big_lock, current_context
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]


def wait_for_waiters(count: int) -> None:
    """Wait until so many threads queue; the lock's repr is the one public place that shows it."""
    until(lambda: f" {count} waiting" in repr(big_lock))


def test_acquire_release_held():
    assert not big_lock.held()
    assert big_lock.acquire() is True
    assert big_lock.held()
    big_lock.release()
    assert not big_lock.held()
    with big_lock:
        assert big_lock.held()
    with pytest.raises(ValueError), big_lock:  # noqa: PT011
        raise ValueError
    assert not big_lock.held()


def test_not_recursive():
    with big_lock:
        for act in (big_lock.acquire, lambda: big_lock.acquire(timeout=0), big_lock.__enter__):
            with pytest.raises(WouldDeadlock, match="holds the big lock already"):
                act()
        assert big_lock.held()


def test_the_main_thread_has_it_already():
    async def main() -> None:
        with pytest.raises(WouldDeadlock):
            big_lock.acquire()

    homebound.run(main())


def test_the_main_thread_may_release_it_by_hand(in_thread: InThread):
    """The main thread has the lock again at the latest when its loop has slept."""

    def work() -> bool:
        with big_lock:
            return True

    async def main() -> None:
        big_lock.release()
        assert in_thread(work).result(10)
        big_lock.acquire()
        big_lock.release()
        await asyncio.sleep(0.001)
        assert big_lock.held()

    homebound.run(main())
    assert not big_lock.held()


def test_only_its_owner_releases(in_thread: InThread):
    with pytest.raises(WrongThread, match="no thread does"):
        big_lock.release()
    with big_lock:
        done = in_thread(big_lock.release)
        with pytest.raises(WrongThread, match="thread 'MainThread' does"):
            done.result(10)
        assert in_thread(big_lock.held).result(10) is False
        assert big_lock.held()


def test_repr_names_the_owner():
    assert repr(big_lock) == "<homebound.big_lock, free, 0 waiting>"
    with big_lock:
        assert "held by thread 'MainThread'" in repr(big_lock)


def test_timeout(in_thread: InThread):
    def attempt(timeout: float) -> bool:
        got = big_lock.acquire(timeout=timeout)
        assert big_lock.held() is got
        if got:
            big_lock.release()
        return got

    with big_lock:
        assert in_thread(attempt, 0).result(10) is False
        assert in_thread(attempt, 0.002).result(10) is False
    assert in_thread(attempt, 0).result(10) is True
    assert in_thread(attempt, 10).result(10) is True


def test_first_come_first_served(in_thread: InThread):
    order: list[int] = []

    def work(number: int) -> None:
        with big_lock:
            order.append(number)

    with big_lock:
        threads = []
        for number in range(5):
            threads.append(in_thread(work, number))
            wait_for_waiters(number + 1)
    for thread in threads:
        thread.result(10)
    assert order == list(range(5))


def test_a_later_thread_queues_behind_the_waiters(in_thread: InThread):
    order: list[str] = []

    def work() -> None:
        with big_lock:
            order.append("the waiter")

    with big_lock:
        waiting = in_thread(work)
        wait_for_waiters(1)
    with big_lock:  # acquired again at once: the waiter comes first
        order.append("the late comer")
    waiting.result(10)
    assert order == ["the waiter", "the late comer"]


def test_a_waiter_that_gave_up_is_passed_over(in_thread: InThread):
    order: list[str] = []

    def give_up() -> None:
        if not big_lock.acquire(timeout=0.001):
            order.append("gave up")

    def wait() -> None:
        with big_lock:
            order.append("got it")

    with big_lock:
        first = in_thread(give_up)
        second = in_thread(wait)
        first.result(10)
        wait_for_waiters(1)
    second.result(10)
    assert order == ["gave up", "got it"]
    assert big_lock.acquire(timeout=0)
    big_lock.release()


def test_the_sleeping_main_thread_releases_it(in_thread: InThread):
    """Only the worker wakes the main loop here."""

    async def main() -> None:
        def work() -> bool:
            with big_lock:
                future.get_loop().call_soon_threadsafe(future.set_result, None)
                return True

        future = asyncio.get_running_loop().create_future()
        done = in_thread(work)
        await future
        assert done.result(10)

    homebound.run(main())


def test_a_busy_main_loop_gives_way(in_thread: InThread):
    async def main() -> None:
        done = in_thread(lambda: [big_lock.acquire(), big_lock.release()])
        while not done.done():
            await asyncio.sleep(0)

    homebound.run(main())


def test_a_busy_main_loop_gives_way_to_each_in_turn(in_thread: InThread):
    async def main() -> None:
        def work() -> None:
            for _ in range(50):
                with big_lock:
                    assert current_context() is context

        context = current_context()
        threads = [in_thread(work) for _ in range(3)]
        while not all(thread.done() for thread in threads):
            await asyncio.sleep(0)
        for thread in threads:
            thread.result(10)

    homebound.run(main())


def test_nothing_of_the_main_loop_runs_while_a_worker_has_it(in_thread: InThread):
    order: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        tick = loop.create_future()

        def callback() -> None:
            order.append("main loop")
            tick.set_result(None)

        def work() -> None:
            with big_lock:
                loop.call_soon_threadsafe(callback)
                for _ in range(100):
                    time.sleep(0)
                order.append("about to release")

        done = in_thread(work)
        await tick
        await asyncio.wrap_future(done)

    homebound.run(main())
    assert order == ["about to release", "main loop"]


def test_mutual_exclusion(in_thread: InThread):
    total = [0]

    def work() -> None:
        for _ in range(200):
            with big_lock:
                value = total[0]
                time.sleep(0)
                total[0] = value + 1

    for done in [in_thread(work) for _ in range(4)]:
        done.result(20)
    assert total == [800]


def test_an_io_thread_may_take_it(io: homebound.IOThread):
    async def work() -> bool:
        with big_lock:
            return big_lock.held()

    async def main() -> None:
        assert await io.spawn(work())

    homebound.run(main())
    assert homebound.block_on(io.spawn(work()))


def test_held_across_the_start_and_end_of_a_main_loop(in_thread: InThread):
    """A thread that waits for the lock while the main loop begins and ends gets it eventually."""
    seen: list[Any] = []

    async def main() -> None:
        def work() -> None:
            started.set()
            with big_lock:
                seen.append(current_context())

        started = threading.Event()
        in_thread(work)
        started.wait(10)

    homebound.run(main())
    with big_lock:
        pass
    assert len(seen) <= 1


@pytest.mark.parametrize("how", ["poll", "wait_while", "block_on"])
def test_an_io_thread_that_waits_releases_it(how: str, io: homebound.IOThread, in_thread: InThread):
    """The thread that ends the wait may need the lock."""
    held = threading.Event()
    done: list[int] = []

    async def look() -> None:
        while not done:
            await asyncio.sleep(0.001)

    async def work() -> None:
        with big_lock:
            held.set()
            if how == "poll":
                while not done:
                    io.context.poll()
            elif how == "wait_while":
                homebound.wait_while(lambda: not done, io.context)
            else:
                homebound.block_on(look())
            assert big_lock.held()
            assert current_context() is io.context
        assert not big_lock.held()

    def end_it() -> None:
        assert held.wait(10)
        assert big_lock.acquire(timeout=10)
        done.append(1)
        big_lock.release()
        io.context.notify()
        homebound.kick()

    task = io.spawn(work())
    in_thread(end_it).result(20)
    homebound.block_on(task)
