"""RWLock and Barrier: their own code, over all short interleavings.

waitqueue.pml models the wait queue itself. The explorer beside this file runs the code built on it;
the scenario that stands next to a planted bug must find it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound._sync import barrier, wait_queue

from .explored import fails, holds, keeps_what_it_was_given

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.exhaustive, pytest.mark.usefixtures("world")]

RWLock, Barrier = homebound.RWLock, homebound.Barrier


# RWLock.


class Shared:
    """The data that the lock guards: a version that writers change, and the actors inside."""

    def __init__(self, run: Any) -> None:
        self.rw = RWLock()
        self.run = run
        self.readers = self.writers = self.version = 0

    def read(self) -> int:
        """Read while inside: other actors have time to enter, too."""
        self.readers += 1
        self.run.until(bool_true)
        assert not self.writers
        self.readers -= 1
        return self.version

    def write(self) -> None:
        self.writers += 1
        self.run.until(bool_true)
        assert self.writers == 1
        assert not self.readers
        self.version += 1
        self.writers -= 1

    def reader(self) -> None:
        with self.rw.read():
            self.read()

    def writer(self) -> None:
        with self.rw.write():
            self.write()

    def check(self) -> None:
        assert self.rw._owners == 0
        assert not self.rw._waiters


def bool_true() -> bool:
    """A wait that is ready at once, but lets other actors go first."""
    return True


def rwlock_of_two_writers(run: Any) -> Any:
    shared = Shared(run)
    run.actor(shared.writer)
    run.actor(shared.writer, cancel="maybe")
    return shared.check


def rwlock_of_a_writer_that_leaves(run: Any) -> Any:
    """A reader inside, a writer that waits and is cancelled, a reader behind it."""
    shared = Shared(run)
    come: list[int] = []

    def stays() -> None:
        with shared.rw.read():
            come.append(1)
            run.until(lambda: len(come) == 2)  # only another reader ends the wait

    def follows() -> None:
        run.until(lambda: come and (shared.rw._waiters or writer.over))
        with shared.rw.read():
            come.append(2)

    def writes() -> None:
        run.until(lambda: come)
        shared.rw.acquire_write_sync()
        raise AssertionError("the readers wait for each other: it must leave")

    run.actor(stays)
    run.actor(follows)
    writer = run.actor(writes, cancel="surely")
    return shared.check


def rwlock_upgrade(run: Any) -> Any:
    """Two upgrade at once: each gets the lock, or is told that what it has read may be stale."""
    shared = Shared(run)

    def upgrades() -> bool:
        with shared.rw.read():
            seen = shared.read()
            unchanged = shared.rw.upgrade_sync()
            assert shared.rw._owners == -1
            if unchanged:
                assert shared.version == seen
            shared.write()
        return unchanged

    run.actor(upgrades)
    run.actor(upgrades, cancel="maybe")
    return shared.check


def rwlock_downgrade(run: Any) -> Any:
    """Readers enter as soon as the writer has become a reader, and no writer before them."""
    shared = Shared(run)
    come: list[int] = []

    def downgrades() -> None:
        with shared.rw.write():
            shared.write()
            shared.rw.downgrade()
            run.until(lambda: come)
            assert shared.version == 1

    def reads() -> None:
        with shared.rw.read():
            come.append(1)

    run.actor(downgrades)
    run.actor(reads)
    return shared.check


def release_serves_nobody(self: Any) -> None:
    with self._guard:
        self._owners = max(self._owners - 1, 0)


def downgrade_serves_nobody(self: Any) -> None:
    with self._guard:
        self._owners = 1


def acquires_without_guard(self: Any, want: str) -> bool:
    return not self._waiters and self._take_as(want)


def upgrades_among_readers(self: Any) -> bool:
    with self._guard:
        if self._waiters:
            return False
        self._owners = -1
        return True


def upgrade_is_always_clean(self: Any, timeout: float | None = None) -> bool:
    if not self._upgrade_now():
        waiter = None
        try:
            waiter = self._wait_parked(timeout, "write", self.release)
        finally:
            if waiter is None:
                self.acquire_read_sync()
    return True


def upgrade_forgets_to_read_again(self: Any, timeout: float | None = None) -> bool:
    return self._upgrade_now() or not self._wait_parked(timeout, "write", self.release)


def withdraws_and_serves_nobody(self: Any, waiter: Any) -> bool:
    with self._guard:
        if waiter.granted or waiter.left:
            return False
        waiter.left = True
        self._waiters.remove(waiter)
    return True


# Barrier.


def barrier_of_three_for_two(run: Any) -> Any:
    """Pairs pass, one actor may be cancelled, and the one left over gets BrokenBarrierError."""
    barrier = Barrier(2)
    passed: list[int] = []

    def comes() -> None:
        passed.append(barrier.wait_sync())

    def comes_or_is_told() -> None:
        try:
            comes()
        except asyncio.BrokenBarrierError:
            pass

    comers = [run.actor(comes_or_is_told), run.actor(comes_or_is_told)]
    comers.append(run.actor(comes_or_is_told, cancel="maybe"))

    run.actor(aborts_when_one_is_left(run, barrier, comers))

    def check() -> None:
        cancelled = comers[-1].result == "cancelled"  # perhaps after its partner was released
        assert sorted(passed) == [0, 1] or (cancelled and len(passed) == 1)
        assert barrier._count == 0
        assert not barrier._waiters

    return check


def barrier_with_a_reset(run: Any) -> Any:
    """Two come, and a third resets the barrier: those inside get an error, later ones wait."""
    barrier = Barrier(2)

    def comes() -> None:
        try:
            assert barrier.wait_sync() in (0, 1)
        except asyncio.BrokenBarrierError:
            pass

    comers = [run.actor(comes), run.actor(comes)]
    run.actor(barrier.reset_sync)
    run.actor(aborts_when_one_is_left(run, barrier, comers))

    def check() -> None:
        assert barrier._count == 0
        assert not barrier._waiters

    return check


def aborts_when_one_is_left(run: Any, barrier: Any, comers: list[Any]) -> Callable[[], None]:
    """Break the barrier for the last actor, which has no partner left."""

    def body() -> None:
        run.until(lambda: sum(not each.over for each in comers) <= barrier.n_waiting <= 1)
        barrier.abort_sync()

    return body


def cancelled_one_counts_on(self: Any, waiter: Any) -> bool:
    return wait_queue.WaitQueue._withdraw(self, waiter)


def last_one_wakes_nobody(self: Any, waiter: Any) -> str:
    with self._guard:
        state: str = self._state
        if waiter.want is barrier.INSIDE:
            self._count -= 1
            if not self._count and state in (barrier.DRAINING, barrier.RESETTING):
                self._state = barrier.FILLING
    return state


def reset_forgets_who_is_inside(self: Any) -> None:
    with self._guard:
        self._state = barrier.FILLING
        self._count = 0


SCENARIOS = [
    rwlock_of_two_writers,
    rwlock_of_a_writer_that_leaves,
    rwlock_upgrade,
    rwlock_downgrade,
    barrier_of_three_for_two,
    barrier_with_a_reset,
]

# (scenario, class, the method replaced, its replacement)
CAUGHT: list[tuple[Any, Any, str, Any]] = [
    (rwlock_of_two_writers, RWLock, "release", release_serves_nobody),
    (rwlock_of_two_writers, RWLock, "_acquire_now", acquires_without_guard),
    (rwlock_of_two_writers, RWLock, "_give_back", keeps_what_it_was_given),
    (rwlock_of_a_writer_that_leaves, RWLock, "_withdraw", withdraws_and_serves_nobody),
    (rwlock_upgrade, RWLock, "_upgrade_now", upgrades_among_readers),
    (rwlock_upgrade, RWLock, "upgrade_sync", upgrade_is_always_clean),
    (rwlock_upgrade, RWLock, "upgrade_sync", upgrade_forgets_to_read_again),
    (rwlock_downgrade, RWLock, "downgrade", downgrade_serves_nobody),
    (barrier_of_three_for_two, Barrier, "_withdraw", cancelled_one_counts_on),
    (barrier_of_three_for_two, Barrier, "_exit", last_one_wakes_nobody),
    (barrier_of_three_for_two, Barrier, "_give_back", keeps_what_it_was_given),
    (barrier_with_a_reset, Barrier, "_reset", reset_forgets_who_is_inside),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
def test_holds_in_every_short_interleaving(scenario: Any):
    holds(scenario)


@pytest.mark.parametrize(
    ("scenario", "owner", "name", "bug"),
    CAUGHT,
    ids=[f"{scenario.__name__}-{bug.__name__}" for scenario, _, _, bug in CAUGHT],
)
def test_planted_bug_is_caught(
    scenario: Any, owner: Any, name: str, bug: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(owner, name, bug)
    fails(scenario)
