"""An exception at any point of a hand-over: nothing has happened, or all of it has."""

from __future__ import annotations

import _thread
import sys
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound._os.snapshot import snapshot
from homebound.testing import until

from .attack import PATIENCE, Attack

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


async def nothing() -> None:
    """Come after what was queued before."""


def drive(coro: Coroutine[Any, Any, Any]) -> Any:
    """What it returns without having to wait."""
    try:
        coro.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


class Scene:
    """An operation: `act` is attacked, and `state` is what it changes.

    An attacked one is as before or as afterwards. `finish` does the rest, by ordinary operations,
    until each of the `waiters` has what it waits for.
    """

    act: Callable[[], object]
    state: Callable[[], tuple[Any, ...]]
    again: Callable[[], object]
    # Whether what `act` would have returned is still there, if it is lost when that raises.
    kept: Callable[[], bool] | None = None
    end: Callable[[], object] = int  # after `finish`: that all adds up

    def __init__(self, kind: str, io: homebound.IOThread) -> None:
        self.io = io
        self.waiters: list[Any] = []
        getattr(self, f"_{kind}")()
        self.settle()

    def wait(self, *coros: Coroutine[Any, Any, Any]) -> None:
        for coro in coros:
            self.waiters.append(self.io.spawn(coro))
            self.settle()

    def settle(self) -> None:
        """What is on its way, in a repair's thread as well, has arrived."""
        until(lambda: _thread._count() <= self.threads)
        # Without our ringing for it. One that was cancelled may lie there until somebody rings.
        until(lambda: all(each._cancelled for each in snapshot(self.io.context._ready)))
        for _ in range(3):
            homebound.block_on(nothing(), self.io.context, timeout=PATIENCE)

    threads = 0

    def seen(self) -> tuple[Any, ...]:
        return (sum(each.done() for each in self.waiters), *self.state())

    def finish(self) -> None:
        for _ in range(len(self.waiters) + 1):
            if all(each.done() for each in self.waiters):
                break
            self.again()
            self.settle()
        for each in self.waiters:
            homebound.block_on(each, self.io.context, timeout=PATIENCE)
        self.end()

    # The operations.

    # Posts to a home that sleeps.

    def _post(self, act: Callable[[], object]) -> None:
        self.act = self.again = act
        self.runs = 0
        self.state = lambda: (self.runs,)
        context: Any = self.io.context
        until(lambda: context._bell)

    def _ran(self) -> None:
        self.runs += 1

    async def _sleeper(self) -> None:
        await homebound.suspend()
        self.runs += 1

    def _call_soon(self) -> None:
        self._post(lambda: self.io.context.call_soon(self._ran))

    def _call_soon_threadsafe(self) -> None:
        self._post(lambda: self.io.context.loop.call_soon_threadsafe(self._ran))

    def _bottom_half_schedule(self) -> None:
        self._post(self.io.context.bottom_half(self._ran).schedule)

    def _task_wake(self) -> None:
        self.wait(self._sleeper())
        self._post(self.waiters[0].wake)

    def _context_schedule(self) -> None:
        self.wait(self._sleeper())
        self._post(lambda: self.io.context.schedule(self.waiters[0]))


HELPERS = ("_post", "_ran", "_sleeper")


KINDS = [
    name[1:] for name in vars(Scene) if name[0] == "_" and name[1] != "_" and name not in HELPERS
]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_or_all_of_it(kind: str):
    io = homebound.IOThread()
    io.start()
    Scene.threads = _thread._count()
    plain = Scene(kind, io)
    before = plain.seen()
    plain.finish()
    plain = Scene(kind, io)
    Attack(sys.maxsize).run(plain.act)
    plain.settle()
    after = plain.seen()
    plain.finish()
    points = attack_each(kind, io, before, after)
    io.stop()
    assert points > 0 or kind in {"queue_get", "queue_get_nowait"}  # where nothing can raise


def attack_each(kind: str, io: Any, before: Any, after: Any) -> int:
    at = 0
    while True:
        scene = Scene(kind, io)
        assert scene.seen() == before
        attack = Attack(at)
        raised = attack.run(scene.act)
        scene.settle()
        seen = scene.seen()
        if scene.kept is None:
            may_be = [before, after] if raised else [after]
            assert seen in may_be, (attack.where, raised, before, after)
        else:
            assert seen == after if not raised else scene.kept(), (attack.where, seen)
        try:
            scene.finish()
        except TimeoutError:
            raise AssertionError((attack.where, scene.seen(), scene.waiters)) from None
        if attack.left >= 0:
            return at
        at += 1
