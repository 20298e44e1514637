"""The kit's fixtures for every test, and its check that a test leaves nothing behind."""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing.resource_tracker
import signal
import sys
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from homebound.testing import LoopThread, Stress, Threads, no_leaks, other_loops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    import homebound

pytest_plugins = ["homebound.testing.pytest_plugin"]

# No deadline: on a machine with two cores an example is slow because another thread had the core.
# Random choices take time for the same reason.
hypothesis.settings.register_profile(
    "homebound", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("homebound")

# Shells start background jobs with SIGINT ignored, which the programs of our tests would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _tidy_rloop() -> Callable[[], Any]:
    """rloop's loop, cleaned up after use.

    It closes the descriptors of its sockets, and then has the socket objects close them again. Its
    watcher of children, and the handles that it has not run, refer back to it in cycles that the
    garbage collector does not see: it is never freed, nor are the two descriptors that it waits on.
    """
    rloop = importlib.import_module("rloop")

    class TidyLoop(rloop.RLoop):  # type: ignore[name-defined, misc]
        def _ssock_stop(self) -> None:
            sockets = self._ssock_r, self._ssock_w
            super()._ssock_stop()
            for each in sockets:
                each.detach()

    def make() -> Any:
        files = no_leaks.open_files()
        loop = TidyLoop()
        new = no_leaks.open_files().items() - files.items()
        no_leaks.kept.update(each for each in new if each[1].startswith("anon_inode"))
        return loop

    return make


@pytest.fixture(scope="session")
def loop_factory() -> Callable[[str], Callable[[], Any]]:
    """`loop_factory("uvloop")` makes foreign loops; skips the test where it cannot."""

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
def _libraries_are_awake() -> None:
    """Open what foreign loops open at first use and keep (libuv a pipe): it is no test's leak."""
    for factory in other_loops().values():
        loop = factory()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    multiprocessing.resource_tracker.ensure_running()


@pytest.fixture
def io2(iothread: Callable[..., homebound.IOThread]) -> homebound.IOThread:
    return iothread("io2")


@pytest.fixture
def in_thread(threads: Threads) -> Callable[..., Future[Any]]:
    """`in_thread(fn, *args)` calls it in a plain thread of its own; the future has the outcome."""
    return threads.start


@pytest.fixture(params=["asyncio", "uvloop", "rloop"])
def factory(
    request: pytest.FixtureRequest, loop_factory: Callable[[str], Any]
) -> Callable[[], asyncio.AbstractEventLoop]:
    """A factory of foreign loops."""
    made: Callable[[], asyncio.AbstractEventLoop] = loop_factory(request.param)
    return made


@pytest.fixture
def stock(factory: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[LoopThread]:
    """A foreign loop in a thread of its own."""
    with LoopThread(factory, name="stock") as thread:
        yield thread


@pytest.fixture
def stress_seconds(stress: Stress) -> float:
    """The length of a race that uses nothing else of `stress`."""
    return stress.seconds


@pytest.fixture
def seed(stress: Stress) -> int:
    """The seed of a race's random choices."""
    return stress.seed
