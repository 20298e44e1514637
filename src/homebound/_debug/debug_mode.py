"""Debug mode: one stall watch, while the loop of any home runs in asyncio's debug mode."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from .._os.guard import new_guard
from .._os.process import AtFork, at_fork
from .stall import StallWatch

if TYPE_CHECKING:
    from collections.abc import Iterator

_THRESHOLD = 1.0  # seconds, as that of watch_stalls


class _State:
    """The watch, and how many homes in debug mode run. Under the guard."""

    guard = new_guard()
    homes = 0
    watched = False  # there is a watch, or the thread that set this starts it
    watch: StallWatch | None = None


@contextmanager
def watching() -> Iterator[None]:
    """Watch for stalls during the block, in which the loop of a home in debug mode runs.

    Called from: home thread.
    """
    with _State.guard:
        _State.homes += 1
        start, _State.watched = not _State.watched, True
    try:
        if start:
            _start()
        yield
    finally:
        _leave()


def _start() -> None:
    # Outside of the guard: a finaliser that runs meanwhile may run a loop of its own. The home that
    # starts the watch counts, so no other can have ended it before it is known.
    watch = None
    try:
        watch = StallWatch(_THRESHOLD, None)
    except RuntimeError:
        pass  # no more threads, or the interpreter ends: run without it
    finally:
        with _State.guard:
            _State.watch = watch
            _State.watched = watch is not None


def _leave() -> None:
    with _State.guard:
        _State.homes = max(0, _State.homes - 1)  # 0: in a forked process
        if _State.homes:
            return
        watch, _State.watch, _State.watched = _State.watch, None, False
    if watch is not None:
        watch.stop()


def _begin_as_child() -> None:
    """Forget the parent's watch in a forked process: its thread is not here."""
    _State.guard = new_guard()
    _State.homes = 0
    _State.watched = False
    _State.watch = None


at_fork(AtFork.DEBUG_WATCH, _begin_as_child)
