"""Have something happen between two lines of the package, at each place in turn."""

from __future__ import annotations

import sys
import threading
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
        if self.happened or not frame.f_code.co_filename.startswith(PACKAGE):
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
