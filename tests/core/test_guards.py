"""Guards, which no exception of a signal handler leaves locked."""

from __future__ import annotations

import _thread
import ast
import contextlib
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound._os.guard import new_guard

if TYPE_CHECKING:
    from types import FrameType

PACKAGE = Path(homebound.__file__).parent

# Locks that no `with` takes: a parker sleeps on one, a handle acquires one within a `try`, the
# others are tried or passed to a thread.
RAW = {
    "_aio/generators.py",
    "_core/shared_handle.py",
    "_debug/stall.py",
    "_os/guard.py",
    "_os/parking.py",
    "_threads/sessions.py",
}


class _Raised(Exception):  # noqa: N818  (no error)
    pass


def _raise(_signal: int, _frame: FrameType | None) -> None:
    raise _Raised


def test_a_handler_that_raises_as_a_guard_is_acquired():
    """The signal comes while the main thread waits for the guard, and is handled once it has it."""
    guard: Any = new_guard()

    def hold(held: threading.Event) -> None:
        with guard:
            held.set()
            time.sleep(0.002)  # so that it waits; otherwise the handler raises before that
            _thread.interrupt_main(signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, _raise)
    try:
        for _ in range(20):
            held = threading.Event()
            holder = threading.Thread(target=hold, args=[held])
            with contextlib.suppress(_Raised):
                holder.start()
                held.wait(20)
                with guard:
                    pass
                holder.join(20)  # the handler has raised by now
            assert not guard._is_owned()
            holder.join(20)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="its handle has no lock")
@pytest.mark.parametrize("use", ["_run", "cancelled"])
def test_a_handler_that_raises_as_a_handle_is_used(use: str):
    """Again and again, wherever the signal comes: another thread can acquire its lock then."""
    loop = homebound.new_event_loop()
    handle: Any = loop.call_soon_threadsafe(int)
    act = getattr(handle, use)
    before = signal.signal(signal.SIGALRM, _raise)
    try:
        for number in range(1000):
            with contextlib.suppress(_Raised):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 5e-6 + number % 50 * 1e-6)
                    for _ in range(10_000):
                        act()
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            assert not handle._mutex._is_owned(), number
    finally:
        signal.signal(signal.SIGALRM, before)
        loop.close()


def test_no_other_lock_is_taken_by_with():
    """Python 3.14 may leave a lock of its own locked: guard.py says why."""
    names = {"Lock", "RLock", "allocate_lock"}
    raw: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Attribute(value=ast.Name(id="threading" | "_thread"), attr=name):
                    pass
                case ast.ImportFrom(module="threading" | "_thread", names=[ast.alias(name=name)]):
                    pass
                case _:
                    continue
            if name in names:
                raw.add(path.relative_to(PACKAGE).as_posix())
    assert raw == RAW
