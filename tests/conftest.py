"""What every test gets: a check that it leaves nothing behind, its time box and its random seed."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from homebound._park import my_parker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STRESS_SECONDS = float(os.environ.get("HOMEBOUND_STRESS_SECONDS", "1.0"))
SEED = int(os.environ.get("HOMEBOUND_SEED") or random.SystemRandom().getrandbits(32))
OPEN_FILES = Path("/proc/self/fd")
SECONDS_TO_END = 1.0  # for a thread whose work is done but which the interpreter has not left yet

# No deadline: on a machine with two cores an example is slow because another thread had the core.
hypothesis.settings.register_profile("homebound", deadline=None)
hypothesis.settings.load_profile("homebound")


def pytest_report_header() -> str:
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return (
        f"HOMEBOUND_SEED={SEED} HOMEBOUND_STRESS_SECONDS={STRESS_SECONDS} "
        f"GIL={'on' if gil else 'off'}"
    )


@pytest.fixture
def stress_seconds() -> float:
    """How long a stress test runs; HOMEBOUND_STRESS_SECONDS sets it."""
    return STRESS_SECONDS


@pytest.fixture
def seed() -> int:
    """For random.Random. HOMEBOUND_SEED sets it, the report's header and a failure show it."""
    print(f"HOMEBOUND_SEED={SEED}")  # noqa: T201 - what a failed test printed is in its report
    return SEED


_kept_by_rloop: dict[str, str] = {}  # descriptor number to what it is open on


def _tidy_rloop() -> Callable[[], Any]:
    """rloop's loop, with what it leaves behind put away.

    It closes the descriptors of its sockets, and then has the socket objects close them again. Its
    watcher of children, and the handles that it has not run, refer back to it in circles that the
    garbage collector does not see: it is never gone, nor are the two descriptors that it waits on.
    """
    rloop = importlib.import_module("rloop")

    class TidyLoop(rloop.RLoop):  # type: ignore[name-defined, misc]
        def _ssock_stop(self) -> None:
            sockets = self._ssock_r, self._ssock_w
            super()._ssock_stop()
            for each in sockets:
                each.detach()

    def make() -> Any:
        files = _open_files()
        loop = TidyLoop()
        new = _open_files().items() - files.items()
        _kept_by_rloop.update(dict(each for each in new if each[1].startswith("anon_inode")))
        return loop

    return make


@pytest.fixture(scope="session")
def loop_factory() -> Callable[[str], Callable[[], Any]]:
    """`loop_factory("uvloop")` makes loops of others; skips the test where it cannot."""

    def factory(name: str) -> Callable[[], Any]:
        if name == "asyncio":
            return asyncio.SelectorEventLoop
        if name == "rloop":
            if not getattr(sys, "_is_gil_enabled", lambda: True)():
                pytest.skip("without a GIL rloop loses wake-ups")
            pytest.importorskip("rloop")
            return _tidy_rloop()
        made: Callable[[], Any] = pytest.importorskip(name).new_event_loop
        return made

    return factory


@pytest.fixture(scope="session", autouse=True)
def _steady_process() -> None:
    my_parker()  # the main thread's own descriptor, made at first use, lives as long as the thread
    gc.collect()
    gc.freeze()  # makes the collection after each test look at that test's objects only


@pytest.fixture(autouse=True)
def _leaves_nothing(_steady_process: None) -> Iterator[None]:
    """Fail a test that leaves a thread, a descriptor or an exception that nobody saw.

    The last is pytest's: what a thread or a finaliser raises becomes a warning, warnings are
    errors here, and the collection below makes a finaliser run in the test that it belongs to.
    """
    threads = set(threading.enumerate())
    files = _open_files()
    yield
    left = _still_running(set(threading.enumerate()) - threads)
    gc.collect()
    files |= _kept_by_rloop
    opened = {fd: target for fd, target in _open_files().items() if files.get(fd) != target}
    assert not left, f"threads left running: {left}"
    assert not opened, f"file descriptors left open: {opened}"


def _still_running(threads: set[threading.Thread]) -> list[threading.Thread]:
    deadline = time.monotonic() + SECONDS_TO_END
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [thread for thread in threads if thread.is_alive()]


def _open_files() -> dict[str, str]:
    """Descriptor number to what it is open on; empty where the system does not tell."""
    files = {}
    for entry in OPEN_FILES.iterdir() if OPEN_FILES.exists() else ():
        try:
            files[entry.name] = str(entry.readlink())
        except FileNotFoundError:
            continue  # the descriptor that reads this very directory
    return files
