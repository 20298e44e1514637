"""The stacks of threads and tasks, as lines of text."""

from __future__ import annotations

import threading
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


def task_stack(task: Any) -> Iterator[str]:
    """Yield a line for a task's coroutine and for each one that it awaits in turn."""
    coro: Any = task.get_coro()
    for _ in range(100):
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None)
        if frame is None:
            return
        code = frame.f_code
        yield f'    File "{code.co_filename}", line {frame.f_lineno}, in {code.co_qualname}'
        coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None)


def stack(frame: FrameType | None) -> Iterator[str]:
    """Yield the stack of a thread, innermost call last, without threading's own frames."""
    if frame is None:
        return
    for line in traceback.format_list(traceback.extract_stack(frame)):
        if threading.__file__ not in line:
            yield from ("    " + each for each in line.rstrip().splitlines())
