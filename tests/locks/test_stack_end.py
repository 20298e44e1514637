"""A hand-over where the stack ends, at whatever depth: nothing has happened, or all of it."""

from __future__ import annotations

import _thread
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.testing import until

from ..core.test_stack_end import DEPTHS, act_at, again
from .attack import PATIENCE
from .test_attacked import KINDS, Scene

if TYPE_CHECKING:
    from collections.abc import Callable


def in_a_thread(_io: homebound.IOThread, frames: int, act: Callable[[], object]) -> Any:
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(act_at(frames, act)))
    thread.start()
    thread.join(PATIENCE)
    return results[0]


def at_home(io: homebound.IOThread, frames: int, act: Callable[[], object]) -> Any:
    async def acting() -> bool:
        return act_at(frames, act)

    return homebound.block_on(acting(), io.context, timeout=PATIENCE)


# One that finds no room is dropped, and never begins.
@pytest.mark.filterwarnings("ignore:coroutine 'Queue.* was never awaited")
@pytest.mark.parametrize("place", [in_a_thread, at_home])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_or_all_of_it(kind: str, place: Any, io: homebound.IOThread) -> None:
    if kind == "full_queue_get_sync" and place is at_home:
        pytest.skip("where the stack ends, a home cannot turn its loop")
    Scene.threads = _thread._count()
    scene = Scene(kind, io)
    before = scene.seen()
    place(io, 0, scene.act)
    scene.settle()
    after = scene.seen()
    scene.finish()
    raised = 0
    for frames in DEPTHS:
        scene = Scene(kind, io)
        assert scene.seen() == before
        if scene.waiters:
            scene.again = partial(again, scene.again)
        if place(io, frames, scene.act):
            raised += 1
            check_at_last(scene, frames, before, after)
        else:
            scene.settle()
            assert scene.seen() == after, frames
        scene.finish()
    assert 0 < raised < len(DEPTHS)


def check_at_last(scene: Scene, frames: int, before: Any, after: Any) -> None:
    """Wait for the repair: it may come in a thread of its own, and until then in part."""
    try:
        until(scene.kept or (lambda: scene.seen() in (before, after)))
    except AssertionError:
        raise AssertionError((frames, before, scene.seen(), after)) from None
