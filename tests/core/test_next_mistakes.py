"""More wrong uses, as test_first_mistakes.py: limits that pass, names, copies, a loop for two."""

from __future__ import annotations

import asyncio
import copy
import io as io_module
import pickle
import re
import signal
import sys
import textwrap
import traceback
from typing import Any

import pytest

import homebound
import homebound.block
import homebound.debug
import homebound.testing
from homebound.block import OutOfRange

from .wrong_uses import LONGEST, NOT_A_COROUTINE, PRIVATE, work

Row = tuple[str, type[BaseException], str]

WAITS: list[Row] = [
    ("block_on([work, work], io)", TypeError, "got a list of 2; `await asyncio.gather(*...)`"),
    ("io.spawn((1, 2, 3))", TypeError, "a coroutine was expected, got a tuple of 3; `await"),
    ("run(set())", NOT_A_COROUTINE, "run: a coroutine was expected, got a set of 0"),
    ("block_on(work)", TypeError, "got the function work: call it, work()"),
    ("block_on(io)", TypeError, "an awaitable was expected, got <IOThread 'io' running>"),
    ("create_task(work)", TypeError, "got the function work: call it, work()"),
    (
        "async def main():\n    wait_while(lambda: True, timeout=0)\nrun(main())",
        TimeoutError,
        "wait_while: the predicate is still true after 0 s",
    ),
    ("on()", TypeError, "missing 1 required positional argument: 'ctx'"),
    ("BigLock()", TypeError, "there is one big lock in a process: use homebound.big_lock"),
    ("AioContext(io.context.loop)", TypeError, "AioContext.attach(loop) makes one for a loop"),
    ("io.context.call_later(1, print)", AttributeError, "'AioContext' object has no attribute"),
]

LOCKS: list[Row] = [
    ("Lock(name='db').release()", RuntimeError, "Lock 'db' is not acquired, and cannot be rel"),
    ("RWLock(name='db').release()", RuntimeError, "RWLock 'db' is not acquired, and cannot be"),
    ("RWLock().downgrade()", RuntimeError, "no writer holds it; it comes after acquire_write()"),
    ("RWLock().upgrade_sync()", RuntimeError, "no reader holds it; it comes after acquire_read()"),
    (
        (
            "rw = RWLock(name='db'); rw.acquire_read_sync(); rw.acquire_read_sync()\n"
            "rw.upgrade_sync(timeout=0)"
        ),
        TimeoutError,
        "RWLock 'db' could not be upgraded in 0 s: others hold it or were first",
    ),
    (
        "BoundedSemaphore(2, name='slots').release()",
        ValueError,
        "BoundedSemaphore 'slots' released too many times: it has all 2 permits already",
    ),
    ("Condition(Lock)", TypeError, "Condition: the lock is the class Lock; call it: it makes one"),
    (
        "Condition(name='news').notify()",
        RuntimeError,
        "Condition 'news': cannot notify on un-acquired lock; call it in `async with condition:`",
    ),
    (
        "condition = Condition()\nwith condition: condition.wait_for_sync(work)",
        TypeError,
        "Condition.wait_for_sync takes a plain function, and work is async",
    ),
    (
        (
            "async def main():\n    condition = Condition()\n"
            "    async with condition: await condition.wait_for(True)\nrun(main())"
        ),
        TypeError,
        "Condition.wait_for takes a function, not True",
    ),
    (
        "Barrier(2, name='start').wait_sync(timeout=0)",
        TimeoutError,
        "Barrier 'start': 2 parties were not there after 0 s",
    ),
    (
        "start = Barrier(2, name='start'); start.abort_sync(); start.wait_sync()",
        asyncio.BrokenBarrierError,
        "Barrier 'start' aborted: nothing passes it before a reset()",
    ),
    ("Queue(float('nan'))", ValueError, "Queue: maxsize is NaN; it must be a number"),
    (
        "Queue(name='jobs').task_done()",
        ValueError,
        "Queue 'jobs': task_done() called too many times; call it once for each item",
    ),
]

REST: list[Row] = [
    ("dump(3)", TypeError, "dump takes an open file, not 3; without one it prints to standard"),
    (
        "IOThread('b', loop_factory=lambda: io.context.loop).start()",
        homebound.ContextError,
        "IOThread 'b': loop_factory gave a loop that another thread runs; it must make one at each",
    ),
]


@pytest.mark.parametrize(("program", "kind", "text"), WAITS + LOCKS + REST)
def test_it_says_what_is_wrong_and_what_to_do(
    program: str, kind: type[BaseException], text: str, io: homebound.IOThread
):
    names = {name: getattr(homebound, name) for name in homebound.__all__}
    with pytest.raises(kind) as caught:
        exec(textwrap.dedent(program), names | {"io": io, "work": work})
    said = str(caught.value)
    assert text in said
    assert len(said) <= LONGEST
    assert not PRIVATE.search(said)
    assert homebound.run(asyncio.sleep(0, "went on")) == "went on"


def things(io: homebound.IOThread) -> list[Any]:
    return [
        io,
        io.context,
        homebound.IOThreadPool(1),
        homebound.Background("b"),
        homebound.WorkerPool(1),
        homebound.VCPU(0, print),
        homebound.BottomHalf(io.context, print),
        homebound.big_lock,
    ]


def test_what_has_threads_is_not_copied(io: homebound.IOThread):
    """Half a copy would share the threads; the error of a process pool says what is wrong."""
    for thing in things(io):
        for do in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="and another process makes one of its own") as it:
                do(thing)
            assert f"cannot copy or pickle '{type(thing).__name__}' object" in str(it.value)
            assert not PRIVATE.search(str(it.value))


def test_a_context_of_a_foreign_loop_is_not_copied():
    async def main() -> None:
        context = homebound.AioContext.attach(asyncio.get_running_loop())
        with pytest.raises(TypeError, match="cannot copy or pickle 'AioContext' object"):
            copy.copy(context)

    asyncio.run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python suggests names from 3.12 on")
def test_a_name_that_is_nearly_right_is_suggested():
    with pytest.raises(AttributeError) as caught:
        _ = homebound.IoThread  # type: ignore[attr-defined]
    file = io_module.StringIO()
    traceback.print_exception(caught.value, file=file)
    assert re.search(r"Did you mean.*'\.?IOThread'", file.getvalue())


DISKS: list[Row] = [
    ("SliceDisk('a.img', 0, 512)", TypeError, "SliceDisk takes a Disk, got 'a.img'; to use an"),
    ("OverlayDisk('a.img')", TypeError, "to use an image, open it: FileDisk('a.img')"),
    ("ThrottleDisk(3)", TypeError, "ThrottleDisk takes a Disk, got 3"),
    ("ThrottleDisk(MemoryDisk(512), '9')", TypeError, "ThrottleDisk: iops is '9'; it must be a"),
    ("FaultDisk(MemoryDisk(512), 'EIO')", TypeError, "takes a list of rules, [Fault(error='EIO')]"),
    ("FaultDisk(MemoryDisk(512), Fault())", TypeError, "takes a list of rules"),
    ("LogDisk(MemoryDisk(512), 'a.log')", TypeError, "LogDisk writes to an open file, as open("),
    ("MemoryDisk(512).read_sync('0', 1)", TypeError, "a range is an offset and a length, in bytes"),
    ("MemoryDisk(512).read_sync(0, -1)", OutOfRange, "-1 bytes at 0 are not inside <MemoryDisk"),
    ("MemoryDisk(512).read_sync(0, 1 << 62)", OutOfRange, "are not inside <MemoryDisk of 512"),
    ("MemoryDisk(512).read_sync(0, None)", TypeError, "got 0 and None"),
    ("testing.check_lock(Lock())", TypeError, "check_lock takes a function that makes one"),
    ("debug.listen('/absent/top')", FileNotFoundError, "No such file or directory: '/absent/top'"),
]


@pytest.mark.parametrize(("program", "kind", "text"), DISKS)
def test_packages_say_it_too(program: str, kind: type[BaseException], text: str):
    disks = {name: getattr(homebound.block, name) for name in homebound.block.__all__}
    names = disks | {
        "Lock": homebound.Lock,
        "debug": homebound.debug,
        "testing": homebound.testing,
    }
    with pytest.raises(kind) as caught:
        exec(program, names)
    assert text in str(caught.value)
    assert not PRIVATE.search(str(caught.value).replace(" at 0x", ""))


@pytest.mark.parametrize("number", [0, signal.SIGKILL, 99999])
def test_a_signal_that_no_program_handles_has_a_note(number: int):
    with pytest.raises((ValueError, OSError)) as caught:
        homebound.dump_on(number)
    assert "for a signal that a program can handle, as signal.SIGUSR1" in caught.value.__notes__[0]
