"""A queue that is shut down: its own code, over all short interleavings.

waitqueue.pml models the wait queue itself. The explorer beside this file runs the code built on it;
the scenario that stands next to a planted bug must find it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound._sync import queue_ends
from homebound._sync.wait_queue import WaitQueue

from .explored import fails, holds, keeps_what_it_was_given

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.exhaustive, pytest.mark.usefixtures("world")]

Queue = homebound.Queue


class Traffic:
    """The items that each actor has put, and what has become of them."""

    def __init__(self, run: Any, maxsize: int, *, immediate: bool) -> None:
        self.queue: Any = Queue(maxsize)
        self.run = run
        self.immediate = immediate
        self.put: list[str] = []
        self.got: list[str] = []
        self.told = False  # a getter, which was told that nothing will come

    def puts(self, item: str) -> Callable[[], None]:
        def body() -> None:
            try:
                self.queue.put_sync(item)
            except homebound.QueueShutDown:
                return
            self.put.append(item)

        return body

    def gets(self) -> None:
        try:
            while True:
                self.got.append(self.queue.get_sync())
        except homebound.QueueShutDown:
            assert self.queue._is_shutdown
            self.told = True

    def shuts_down(self) -> None:
        self.queue.shutdown(self.immediate)

    def check(self) -> None:
        queue = self.queue
        left = list(queue._queue)
        assert len(set(self.got)) == len(self.got), "an item was got twice"
        if self.immediate:
            assert not left, "an item was put into a queue that was dropped"
            assert set(self.got) <= set(self.put)
        else:
            assert sorted(self.got + left) == sorted(self.put)
            assert not (self.told and left)
        assert queue._unfinished_tasks == len(self.got) + len(left)
        assert not queue._getters
        assert not queue._putters
        assert not queue._getters_queue._handed
        if queue._slots is not None:
            assert queue._slots._value == queue.maxsize - len(left)


def queue_with_a_getter(run: Any) -> Any:
    traffic = Traffic(run, 0, immediate=False)
    run.actor(traffic.puts("a"))
    run.actor(traffic.gets, cancel="maybe")
    run.actor(traffic.shuts_down)
    return traffic.check


def queue_with_putters(run: Any) -> Any:
    """One putter has the only slot, the other waits and may be cancelled."""
    traffic = Traffic(run, 1, immediate=False)
    run.actor(traffic.puts("a"))
    run.actor(traffic.puts("b"), cancel="maybe")
    run.actor(traffic.shuts_down)
    return traffic.check


def queue_with_two_getters(run: Any) -> Any:
    """An item that the first getter returns goes to the second, if that has not got another."""
    traffic = Traffic(run, 0, immediate=False)

    def puts_both() -> None:
        traffic.puts("a")()
        traffic.puts("b")()

    def gets_one() -> None:
        traffic.got.append(traffic.queue.get_sync())

    run.actor(gets_one, cancel="maybe")
    run.actor(gets_one)
    run.actor(puts_both)
    return traffic.check


def queue_dropped(run: Any) -> Any:
    traffic = Traffic(run, 0, immediate=True)
    run.actor(traffic.puts("a"))
    run.actor(traffic.gets, cancel="maybe")
    run.actor(traffic.shuts_down)
    return traffic.check


def shutdown_marks_last(self: Any, immediate: bool = False) -> None:  # noqa: FBT001, FBT002
    self._store.close()
    if self._slots is not None:
        self._slots.close()
    if immediate:
        self._getters_queue.drop_all()
    self._getters_queue.close()
    self._is_shutdown = True


def put_does_not_look_again(_self: Any, _item: Any) -> None:
    pass


def close_tells_nobody(self: Any) -> None:
    with self._guard:
        self._closed = True


def takes_what_is_not_there(self: Any, waiter: Any) -> bool:
    """The closed end tells the waiter before it looks for an item."""
    if self._closed:
        waiter.error = homebound.QueueShutDown()
        return True
    return bool(_take_item(self, waiter))


_take_item = queue_ends.Getters._take


def unpacks_and_leaves_it_there(_self: Any, waiter: Any) -> Any:
    if waiter.error is not None:
        raise waiter.error
    return waiter.value.item


def comes_back_into_a_dropped_queue(self: Any, waiter: Any) -> None:
    WaitQueue._go(self, waiter)


def told_gives_a_slot(self: Any, waiter: Any) -> None:
    self._permits.append(None)
    waiter.left = True


SCENARIOS = [
    queue_with_a_getter,
    queue_with_putters,
    queue_with_two_getters,
    queue_dropped,
]

# (scenario, class, the method replaced, its replacement)
CAUGHT: list[tuple[Any, Any, str, Any]] = [
    (queue_with_a_getter, Queue, "shutdown", shutdown_marks_last),
    (queue_with_a_getter, queue_ends.Getters, "close", close_tells_nobody),
    (queue_with_a_getter, queue_ends.Getters, "_give_back", keeps_what_it_was_given),
    (queue_with_putters, queue_ends.Slots, "close", close_tells_nobody),
    (queue_with_putters, queue_ends.Slots, "_give_back", told_gives_a_slot),
    (queue_with_two_getters, queue_ends.Getters, "unpack", unpacks_and_leaves_it_there),
    (queue_dropped, Queue, "shutdown", shutdown_marks_last),
    (queue_dropped, Queue, "_too_late", put_does_not_look_again),
    (queue_dropped, queue_ends.Getters, "_go", comes_back_into_a_dropped_queue),
    (queue_with_a_getter, queue_ends.Getters, "_take", takes_what_is_not_there),
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
