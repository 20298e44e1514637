"""Wrong uses of tools, packages, names and copies: a program as typed, and what that says."""

from __future__ import annotations

import asyncio
import copy
import io as io_module
import pickle
import re
import signal
import sys
import traceback
from typing import Any

import pytest

import homebound
import homebound.block
import homebound.debug
import homebound.testing
from homebound.block import OutOfRange
from homebound.nbd import URIError

from .wrong_uses import PRIVATE, Row, check_program

TOOLS: list[Row] = [
    ("watch_stalls('1')", TypeError, "watch_stalls: threshold is a number of seconds, not '1'"),
    ("watch_stalls(report='x')", TypeError, "watch_stalls: report takes a function, not 'x'"),
    ("dump('hang.txt')", TypeError, "dump takes an open file, not the path 'hang.txt'"),
    ("dump_on('SIGUSR1')", TypeError, "takes a signal's number, as signal.SIGUSR1 is, not"),
    ("block.MemoryDisk('1G')", TypeError, "the size is '1G'; it must be a number of bytes"),
    ("block.FileDisk('absent.img')", homebound.block.ImageError, "No such file or directory"),
    ("NBDServer('raw.img')", TypeError, "to serve an image, open it: FileDisk('raw.img')"),
    ("NBDDisk('nbd://localhost')", TypeError, "NBDDisk is made by `await NBDDisk.connect(uri)`"),
    (
        "async def main():\n    await NBDDisk.connect('http://localhost')\nrun(main())",
        URIError,
        "http:// is not one of nbd://, nbds://, nbd+unix://, nbds+unix://",
    ),
    ("dump(3)", TypeError, "dump takes an open file, not 3; without one it prints to standard"),
    (
        "IOThread('b', loop_factory=lambda: io.context.loop).start()",
        homebound.ContextError,
        "IOThread 'b': loop_factory gave a loop that another thread runs; it must make one at each",
    ),
]


@pytest.mark.parametrize(("program", "kind", "text"), TOOLS)
def test_it_says_what_is_wrong_and_what_to_do(
    program: str, kind: type[BaseException], text: str, io: homebound.IOThread
):
    check_program(program, kind, text, io)


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
