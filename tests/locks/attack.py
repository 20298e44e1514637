"""Raise an exception at each point of an operation at which the interpreter can raise one, in turn.

An exception that is no fault of the code comes in two ways, and this raises both:

* a Python signal handler raises (Ctrl-C, SystemExit). CPython calls handlers where it looks at its
  eval breaker: as a Python function begins or a coroutine goes on (`RESUME`), before a jump back,
  and after a call of a C function, whose result is lost then;
* a call fails because there is no memory or no stack left. Nothing has happened then.

So a few bytecodes are left out at which an attack would be stricter than any interpreter is, and
no Python code could keep a promise: those between a C call and the one that stores its result;
after `FOR_ITER`, `BEFORE_WITH` and `LOAD_ATTR`, which call C code and look at nothing afterwards;
and those after a Python function has returned, which looks at nothing either. Nor does the call of
a lock's `__exit__` fail: its `__enter__` has found room on the stack, and it needs no memory.
"""

from __future__ import annotations

import dis
import sys
import threading
import traceback
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import homebound
from homebound._os.parking import my_parker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

PACKAGE = str(Path(homebound.__file__).parent)
TOOL = 4  # our number to sys.monitoring
PATIENCE = 20.0  # seconds until an operation is taken to hang
# Of the points in a row, each third without a GIL, where an operation takes several times as long:
# they are the same as with one, and the builds that have one take them all.
STRIDE = 1 if getattr(sys, "_is_gil_enabled", lambda: True)() else 3


@cache
def _exits(code: CodeType) -> set[int]:
    """Where it calls the `__exit__` of a `with` whose body has ended well: with three Nones."""
    exits = set()
    nones = 0
    for each in dis.get_instructions(code):
        if each.opname in {"LOAD_CONST", "LOAD_COMMON_CONSTANT"} and each.argval is None:
            nones += 1
        elif each.opname != "PRECALL":
            if each.opname == "CALL" and nones == 3:
                exits.add(each.offset)
            nones = 0
    return exits


@cache
def _enters(code: CodeType) -> set[int]:
    """Where `with` calls an `__enter__`, and looks at nothing afterwards. 3.14 does look."""
    if sys.version_info < (3, 15):
        return set()  # up to 3.13 it has a bytecode of its own
    offsets = set()
    special = False
    for each in dis.get_instructions(code):
        if each.opname == "CALL" and special:
            offsets.add(each.offset)
        special = each.opname == "LOAD_SPECIAL"
    return offsets


class Interrupt(BaseException):
    """What a signal handler raises."""


def _is_ours(code: CodeType) -> bool:
    # Python drops what a finaliser raises, so `__del__` can keep no promise.
    return code.co_filename.startswith(PACKAGE) and code.co_name != "__del__"


class Attack:
    """One exception at the point of that number which `run` comes to."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.where = ""  # the point, once it has been reached
        self.result: Any = None
        self._after_call: dict[FrameType, str] = {}  # by frame, the bytecode before

    def run(self, act: Callable[[], Any]) -> bool:
        """Call `act` in a thread of its own; True if it raised what we raised."""
        self._raised = False
        self._other: BaseException | None = None
        thread = threading.Thread(target=self._act, args=(act,), daemon=True)
        thread.start()
        thread.join(PATIENCE)
        if thread.is_alive():
            frame = sys._current_frames().get(thread.ident or 0)
            stack = "".join(traceback.format_stack(frame)) if frame else ""
            raise AssertionError(f"hangs after an exception at {self.where}:\n{stack}")
        if self._other is not None:
            raise AssertionError(f"another exception after {self.where}") from self._other
        return self._raised

    def _act(self, act: Callable[[], Any]) -> None:
        homebound.current_context()  # what each thread makes once is no part of the operation
        my_parker()
        try:
            with self._watching():
                self.result = act()
        except (Interrupt, MemoryError):
            self._raised = True
        except BaseException as error:  # noqa: BLE001  (`run` raises it)
            self._other = error
        finally:
            self._after_call.clear()

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Hear of each bytecode of the calling thread: by `sys.monitoring`, where there is that."""
        if sys.version_info < (3, 12):
            sys.settrace(self._call)
            try:
                yield
            finally:
                sys.settrace(None)
            return
        monitoring = sys.monitoring
        events = monitoring.events
        me = threading.get_ident()

        def hear(opname: str | None) -> Callable[..., None]:
            def heard(code: CodeType, offset: int) -> None:
                if self.left >= 0 and threading.get_ident() == me and _is_ours(code):
                    frame = sys._getframe(1)
                    if opname is not None and frame.f_back is not None:
                        self._after_call.pop(frame.f_back, None)
                    self._bytecode(frame, offset, opname)

            return heard

        monitoring.use_tool_id(TOOL, "attack")
        monitoring.register_callback(TOOL, events.PY_START, hear("RESUME"))
        monitoring.register_callback(TOOL, events.INSTRUCTION, hear(None))
        monitoring.set_events(TOOL, events.PY_START | events.INSTRUCTION)
        try:
            yield
        finally:
            monitoring.set_events(TOOL, 0)
            monitoring.free_tool_id(TOOL)

    def _call(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        if self.left < 0 or not _is_ours(frame.f_code):
            return None
        if frame.f_back is not None:
            self._after_call.pop(frame.f_back, None)  # it calls a Python function, not a C one
        frame.f_trace_opcodes = True
        return self._opcode

    def _opcode(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "opcode" and self.left >= 0:
            self._bytecode(frame, frame.f_lasti, None)
        return self._opcode

    def _bytecode(self, frame: FrameType, offset: int, opname: str | None) -> None:
        code = frame.f_code
        opname = opname or dis.opname[code.co_code[offset]]
        before = self._after_call.pop(frame, "")
        if opname.startswith("CALL"):
            if offset not in _enters(code):
                self._after_call[frame] = opname
            if offset not in _exits(code):
                self._point(frame, opname, MemoryError)
        elif before or opname in {"RESUME", "JUMP_BACKWARD"}:
            self._point(frame, opname, Interrupt)

    def _point(self, frame: FrameType, opname: str, error: type[BaseException]) -> None:
        self.left -= 1
        if self.left < 0:
            code = frame.f_code
            self.where = (
                f"{code.co_qualname}, line {frame.f_lineno} of {Path(code.co_filename).name}, "
                f"bytecode {frame.f_lasti} ({opname}): {error.__name__}"
            )
            raise error
