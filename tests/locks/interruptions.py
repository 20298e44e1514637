"""Have something happen between two lines of the package, at each place in turn."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

PACKAGE = str(Path(homebound.__file__).parent)


@contextmanager
def no_more_threads() -> Iterator[None]:
    """Have no thread start, as if there were no room for its stack."""
    before = threading.stack_size(1 << 47)
    try:
        yield
    finally:
        threading.stack_size(before)


@contextmanager
def replaced_run() -> Iterator[None]:
    """Have threads end before their own code, as a library's Thread.run fails."""
    run = threading.Thread.run
    threading.Thread.run = _fail  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        threading.Thread.run = run  # type: ignore[method-assign]


@contextmanager
def failing_profiler() -> Iterator[None]:
    """Have threads end before their own code, as a profiler's hook fails."""
    before = threading.getprofile()
    threading.setprofile(_fail)
    try:
        yield
    finally:
        threading.setprofile(before)


def _fail(*_: object) -> Any:
    raise MemoryError


# They pin that threading calls Thread._bootstrap_inner, which NoticedThread overrides.
EARLY_ENDS = [replaced_run, failing_profiler]


class _Cycle:
    """Garbage for the collector."""

    def __init__(self) -> None:
        self.itself = self


class _Finalised(_Cycle):
    """Garbage whose finaliser acts."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self.act = act

    def __del__(self) -> None:
        self.act()


def in_finaliser(act: Callable[[], object]) -> None:
    """Have the collector find an object whose `__del__` acts, now."""
    _Finalised(act)
    gc.collect()


def in_weak_callback(act: Callable[[], object]) -> None:
    """Have the collector find an object for whose death a weak reference's callback waits, now."""
    reference = weakref.ref(_Cycle(), lambda _: act())
    gc.collect()
    assert reference() is None


def in_collection(act: Callable[[], object]) -> None:
    """Leave garbage whose finaliser acts; the next allocations start the collector."""
    _Finalised(act)
    gc.set_threshold(1)


@contextmanager
def collector() -> Iterator[None]:
    """Have no collection start by itself but after `in_collection`."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.set_threshold(0)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.collect()


class Interruption:
    """`what()` is called before line number `at` of the package that `run` comes to, once."""

    def __init__(self, at: int, what: Callable[[], object]) -> None:
        self.left = at
        self.what = what
        self.happened = False
        self.where = ""  # for the report of a failure

    def run(self, act: Callable[[], Any]) -> Any:
        """Call `act`; what it returns."""
        before = sys.gettrace()
        try:
            sys.settrace(self._call)
            return act()
        finally:
            sys.settrace(before)

    def _call(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        code = frame.f_code
        # `_Start` is a part of Thread.start: there a collection, left for the next allocation, may
        # run in the new thread, which holds threading's own lock.
        if (
            self.happened
            or not code.co_filename.startswith(PACKAGE)
            or code.co_qualname.startswith("_Start.")
        ):
            return None
        return self._line

    def _line(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "line" and not self.happened:
            self.left -= 1
            if self.left < 0:
                self.happened = True
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                self.what()
        return self._line
