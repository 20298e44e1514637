"""No loop in a `try` ends in a jump that the `try` does not cover.

CPython runs signal handlers at jumps back. From 3.13 on it leaves one that depends on a condition
(at the end of `while condition:`, or of a loop whose last statement is an `if`) out of the table of
what handles exceptions: what a handler raises there passes by `except` and `finally`.
"""

from __future__ import annotations

import dis
from typing import TYPE_CHECKING, Any

import pytest

from homebound import _block_on, _home, _wait, _waitqueue
from homebound._core.big_lock import BigLock, big_lock_let_go
from homebound._core.chain import Chain
from homebound._core.guest_context import GuestContext
from homebound._core.loop import Loop

if TYPE_CHECKING:
    from types import CodeType

# Where a signal handler may raise, and what is in the `try` must be undone or done.
FUNCTIONS = [
    BigLock.acquire,
    BigLock.release,
    BigLock._wait,
    BigLock._take_back,
    big_lock_let_go,
    Chain._run_chain,
    GuestContext._run_entries,
    Loop._run_once,
    Loop._run_with_care,
    _home.LoopContext.inhabit,
    _block_on._turn_until_done,
    _block_on._sleep_until_done,
    _block_on._block_elsewhere,
    _wait._turn_while,
    _waitqueue.WaitQueue._wait_parked,
]


def jumps_out(code: CodeType) -> list[int]:
    """The lines of jumps back to what a `try` covers, from where it does not."""
    bytecode: Any = dis.Bytecode(code)
    covered = [range(entry.start, entry.end) for entry in bytecode.exception_entries]

    def is_covered(offset: int) -> bool:
        return any(offset in each for each in covered)

    return [
        each.positions.lineno
        for each in bytecode
        if each.opname.startswith("JUMP_BACKWARD")
        and not is_covered(each.offset)
        and is_covered(each.argval)
    ]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda each: each.__qualname__)
def test_a_try_covers_the_loops_in_it(function: Any):
    assert jumps_out(getattr(function, "__wrapped__", function).__code__) == []
