"""The peers that homebound is compared with, where they are installed."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import os
import platform
import sys
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Self

    LoopFactory = Callable[[], asyncio.AbstractEventLoop]

T = TypeVar("T")

PEERS = ("uvloop", "rloop", "anyio", "trio", "aiologic", "culsans", "janus", "nest_asyncio2")


def gil() -> bool:
    """Tell whether this process has a GIL now: an extension module may have turned it on."""
    enabled: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
    return enabled


# rloop decides that it may sleep before its last look at its queue: without a GIL it loses
# wake-ups, and the benchmark hangs.
_BROKEN = frozenset() if gil() else frozenset({"rloop"})


def peer(name: str) -> Any:
    """Return the module, or None where it is not installed or not reliable."""
    if name in _BROKEN:
        return None
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def skipped() -> list[str]:
    """Return the peers that are left out, and why."""
    broken = [f"{name} loses wake-ups without a GIL" for name in PEERS if name in _BROKEN]
    absent = [name for name in PEERS if name not in _BROKEN and peer(name) is None]
    return broken + [f"{name} is not installed" for name in absent]


def loop_factories() -> dict[str, LoopFactory]:
    """Return the factories of the installed asyncio loops by name: stock first, without ours."""
    factories: dict[str, LoopFactory] = {"asyncio": asyncio.SelectorEventLoop}
    for name in ("uvloop", "rloop"):
        module = peer(name)
        if module is not None:
            factories[name] = module.new_event_loop
    return factories


def on_loops(
    work: Callable[[int], Coroutine[Any, Any, Any]], *, ours: bool = False
) -> dict[str, Callable[[int], Any]]:
    """Make variants: `work(n)` on every installed loop; with `ours`, on homebound's first."""
    variants: dict[str, Callable[[int], Any]] = {}
    if ours:
        variants["homebound"] = with_homebound(work)
    for name, factory in loop_factories().items():
        variants[name] = with_loop(factory, work)
    return variants


def with_homebound(work: Callable[[int], Coroutine[Any, Any, Any]]) -> Callable[[int], Any]:
    """Make a variant: `work(n)` in `homebound.run`."""
    return lambda n: homebound.run(work(n))


def with_loop(
    factory: LoopFactory, work: Callable[[int], Coroutine[Any, Any, Any]]
) -> Callable[[int], Any]:
    """Make a variant: `work(n)` on a loop that `factory` makes."""

    def variant(n: int) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(work(n))

    return variant


@contextmanager
def loop_thread(factory: LoopFactory) -> Iterator[asyncio.AbstractEventLoop]:
    """Run a loop in a thread of its own."""
    loop = factory()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def in_thread(fn: Callable[[], T]) -> T:
    """Run `fn` in a plain thread of its own and return its result; this loop is free meanwhile.

    The thread posts once, at the end, and is not polled: the loop sleeps while nothing is posted.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        try:
            result = fn()
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            loop.call_soon_threadsafe(ended.set_exception, error)
        else:
            loop.call_soon_threadsafe(ended.set_result, result)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        return await ended
    finally:
        thread.join()


class Bell:
    """A bell that a task rings and a plain thread sleeps on: an eventfd, or a pipe without one."""

    ring: Callable[[], object]
    wait: Callable[[], object]
    _fds: tuple[int, ...]

    def __init__(self) -> None:
        # partial, not a method: a frame here would be measured as well.
        if hasattr(os, "eventfd"):
            fd = os.eventfd(0, os.EFD_CLOEXEC)
            self._fds = (fd,)
            self.ring = partial(os.eventfd_write, fd, 1)
            self.wait = partial(os.eventfd_read, fd)
        else:
            self._fds = out, into = os.pipe()
            self.ring = partial(os.write, into, b"\0")
            self.wait = partial(os.read, out, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for fd in self._fds:
            os.close(fd)


def environment() -> dict[str, Any]:
    """Return the machine, the Python and the versions: a ratio without them says little."""
    versions: dict[str, str | None] = {}
    for name in ("homebound", *PEERS):
        try:
            versions[name] = importlib.metadata.version(name.replace("_", "-"))
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version,
        "gil": gil(),
        "versions": versions,
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - it is no path of ours
            return next(
                line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor()
