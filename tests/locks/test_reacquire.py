"""Waits that acquire again what they have released, whatever comes meanwhile."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.testing import until

if TYPE_CHECKING:
    from concurrent.futures import Future

    from homebound.testing import Threads


class InterruptedRWLock(homebound.RWLock):
    """A lock whose next reader in this thread presses Ctrl-C first, if there is an entry for it."""

    interrupts: list[None]

    def acquire_read_sync(self, timeout: float | None = None) -> bool:
        if self.interrupts:
            self.interrupts.pop()
            raise KeyboardInterrupt
        return super().acquire_read_sync(timeout)


class InterruptedLock(homebound.Lock):
    """A lock whose acquirer in a thread presses Ctrl-C first, if there is an entry for it."""

    interrupts: list[None]

    def acquire_sync(self, timeout: float | None = None) -> bool:
        if self.interrupts:
            self.interrupts.pop()
            raise KeyboardInterrupt
        return super().acquire_sync(timeout)


@pytest.mark.parametrize("times", [1, 3])
def test_an_upgrade_that_ctrl_c_ends_is_a_reader_again(threads: Threads, times: int):
    lock = InterruptedRWLock()
    lock.interrupts = [None] * times
    go_on = threading.Event()

    def read() -> None:
        with lock.read():
            reading.set()
            go_on.wait()

    reading = threading.Event()
    reader = threads.start(read)
    reading.wait()
    with pytest.raises(KeyboardInterrupt), lock.read():
        lock.upgrade_sync(timeout=0.001)
    assert "[readers:1]" in repr(lock)
    go_on.set()
    reader.result()
    assert not lock.locked()


def test_a_condition_wait_that_ctrl_c_ends_passes_its_notification_on(threads: Threads):
    lock = InterruptedLock()
    lock.interrupts = []
    condition = homebound.Condition(lock)

    def wait() -> bool:
        with condition:
            return condition.wait_sync()

    def notify() -> None:
        until(lambda: len(condition._waiters) == 2)
        with condition:
            lock.interrupts.append(None)
            condition.notify()
            until(lambda: not lock.interrupts)

    def interrupted() -> None:
        with condition:
            seconds.append(threads.start(wait))  # it queues behind this thread
            threads.start(notify)
            condition.wait_sync()

    seconds: list[Future[bool]] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (second,) = seconds
    assert second.result() is True
    assert not lock.locked()


def test_a_condition_wait_that_is_closed_passes_its_notification_on():
    """It was notified, and waited for the lock."""
    condition = homebound.Condition()

    async def wait() -> None:
        async with condition:
            await condition.wait()

    async def main() -> None:
        closed: Any = wait()
        closed.send(None)
        second = asyncio.create_task(wait())
        await asyncio.sleep(0)
        assert len(condition._waiters) == 2
        async with condition:
            condition.notify()
            await asyncio.sleep(0)
            closed.send(None)
            closed.close()
            assert condition.locked()
        await second

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())
    assert not condition.locked()


def test_an_upgrade_that_is_closed_in_a_plain_with_releases_nothing():
    lock = homebound.RWLock()

    async def upgrade() -> None:
        with lock.read():
            await lock.upgrade()

    async def main() -> None:
        async with lock.read():
            waiting: Any = upgrade()
            waiting.send(None)
            waiting.close()
            assert "[readers:1]" in repr(lock)
        assert not lock.locked()

    homebound.run(main())


class Terminated(homebound.Lock):
    """A lock whose next acquirer in a thread is terminated first, if there is an entry for it."""

    signals: list[None]

    def acquire_sync(self, timeout: float | None = None) -> bool:
        if self.signals:
            self.signals.pop()
            raise SystemExit
        return super().acquire_sync(timeout)


def test_a_condition_wait_that_a_signal_handler_ends_releases_nothing(threads: Threads):
    """The lock is another thread's by then."""
    lock = Terminated()
    lock.signals = []
    condition = homebound.Condition(lock)
    go_on = threading.Event()

    def hold() -> bool:
        with condition:
            lock.signals.append(None)
            condition.notify()
            go_on.wait()
            return condition.locked()

    def wait() -> None:
        with condition:
            holding.append(threads.start(hold))  # it has the lock once this thread waits
            condition.wait_sync()

    holding: list[Future[bool]] = []
    with pytest.raises(SystemExit):
        wait()
    assert condition.locked()
    go_on.set()
    (held,) = holding
    assert held.result() is True
    assert not condition.locked()


def test_a_cancellation_does_not_hide_ctrl_c():
    raised: list[BaseException] = [asyncio.CancelledError(), KeyboardInterrupt()]
    raised.append(asyncio.CancelledError())

    async def acquire() -> None:
        if raised:
            raise raised.pop()

    with pytest.raises(KeyboardInterrupt):
        homebound.run(homebound.Condition()._reacquire(acquire))
    assert not raised
