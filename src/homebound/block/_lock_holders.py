"""The program that holds a lock of an image, in words; /proc shows processes of the same user."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")


def describe_holder(fd: int, byte: int, pid: int, *, is_homebound: bool) -> str:
    """Return the kind of program that locks `byte` of the open file, and if known which one.

    `pid` is what the kernel said of the lock, which it does for locks that belong to a process;
    `is_homebound` that there is the sign of a homebound.
    """
    process = pid if pid > 0 else next(_processes(fd, byte), None)
    name = _name(process) if process is not None else ""
    which = f"process {process}" if process is not None else "in a process that cannot be seen"
    if name.startswith("qemu"):
        return f"QEMU ({name}, {which})"
    if is_homebound:
        return (
            f"this process ({process})"
            if process == os.getpid()
            else f"another homebound ({which})"
        )
    if name:
        return f"another program ({name}, {which})"
    return f"another program, perhaps QEMU ({which}),"


def _name(process: int) -> str:
    try:
        return (_PROC / str(process) / "comm").read_text(errors="replace").strip()
    except OSError:
        return ""  # it has ended


def _processes(fd: int, byte: int) -> Iterator[int]:
    """Find the processes with a lock on the byte by a descriptor other than this one."""
    inode = os.fstat(fd).st_ino
    ours = _PROC / str(os.getpid()) / "fdinfo" / str(fd)
    for directory in _PROC.iterdir():
        if directory.name.isdecimal() and any(
            _has_lock(info, inode, byte) for info in _infos(directory) if info != ours
        ):
            yield int(directory.name)


def _infos(process: Path) -> list[Path]:
    try:
        return list((process / "fdinfo").iterdir())
    except OSError:
        return []  # it has ended, or is another user's


def _has_lock(info: Path, inode: int, byte: int) -> bool:
    try:
        lines = info.read_text(errors="replace").splitlines()
    except OSError:
        return False  # closed since
    return any(_covers(line, inode, byte) for line in lines if line.startswith("lock:"))


def _covers(line: str, inode: int, byte: int) -> bool:
    """Read a line such as `lock: 1: OFDLCK ADVISORY READ -1 fe:00:2180307 100 101`."""
    *_, file, first, last = line.split()
    same_file = file.rpartition(":")[2] == str(inode)
    return same_file and int(first) <= byte and (last == "EOF" or byte <= int(last))
