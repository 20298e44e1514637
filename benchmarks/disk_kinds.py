"""The servers of `disks.py` by kind of storage and of request, with IOPS beside the CPU time.

`python -m benchmarks.disk_kinds KIND [ROUNDS [SCALE]]`: a kind is one of KINDS, and takes less than
a minute with 3 rounds, so that it fits into a quiet minute of a machine. Each round runs every
server once, in turn; medians are reported. SCALE is a factor for the number of requests. The
directory of "ext4" is the current one.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from .disks import MIB, SERVERS, SIZE, _cpu_seconds, _wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Commands = dict[str, Callable[[Path, Path], list[str]]]

_LIBNBD = "/usr/bin/python3"  # of the distribution, which has libnbd's module
_FUA = """
import nbd, sys, time
h = nbd.NBD(); h.connect_uri(sys.argv[1]); data = b"x" * 4096
began = time.monotonic()
for n in range(int(sys.argv[2])):
    h.pwrite(data, n * 4096 % (1 << 26), nbd.CMD_FLAG_FUA)
print(time.monotonic() - began)
"""
_SCRIPT = """
size = 1 << 26
data = bytearray(1 << 26)
{0}def read_into(offset, buffer):
    buffer[:] = data[offset:offset + len(buffer)]
"""
_PLUGIN = """
API_VERSION = 2
data = bytearray(1 << 26)
def open(readonly): return 1
def get_size(h): return 1 << 26
def pread(h, buf, offset, flags): buf[:] = data[offset:offset + len(buf)]
"""


@dataclass(frozen=True)
class Load:
    """A piece of work for a server."""

    name: str
    options: dict[str, object]  # of fio
    requests: int
    cold: bool = False  # the page cache has none of the image


def _fio(
    name: str, rw: str, depth: int, requests: int, *, cold: bool = False, **more: object
) -> Load:
    return Load(name, {"rw": rw, "bs": 4096, "iodepth": depth, **more}, requests, cold)


CACHED = (
    _fio("read, depth 1", "randread", 1, 12_000),
    _fio("read, depth 32", "randread", 32, 50_000),
    _fio("write, depth 1", "randwrite", 1, 12_000),
    _fio("write, depth 32", "randwrite", 32, 40_000),
)
UNALIGNED = (
    _fio("unaligned write, depth 1", "randwrite", 1, 8_000, blockalign=512),
    _fio("unaligned write, depth 32", "randwrite", 32, 30_000, blockalign=512),
)
STABLE = (
    _fio("cold read, depth 1", "randread", 1, 3_000, cold=True),
    _fio("cold read, depth 32", "randread", 32, 8_000, cold=True),
    _fio("write and flush, depth 1", "randwrite", 1, 400, fsync=1),
    _fio("write and flush, depth 32", "randwrite", 32, 400, fsync=32),
    Load("FUA write, depth 1", {}, 400),
)


def _script(path: Path, text: str, command: list[str]) -> list[str]:
    path.write_text(text)
    return command


def _homebound(socket: Path, *what: str) -> list[str]:
    return [sys.executable, "-m", "homebound", "serve", *what, "--unix", str(socket)]


def _scripted(keyword: str, image: Path, socket: Path) -> list[str]:
    path = image.with_suffix(".py")
    return _script(path, _SCRIPT.format(keyword), _homebound(socket, "--script", str(path)))


def _nbdkit_python(image: Path, socket: Path) -> list[str]:
    path = image.with_suffix(".py")
    return _script(path, _PLUGIN, ["nbdkit", "-f", "-U", str(socket), "python", str(path)])


SCRIPTS: Commands = {
    "homebound def": partial(_scripted, ""),
    "homebound async def": partial(_scripted, "async "),
    "nbdkit python": _nbdkit_python,
}
SCRIPT_LOADS = (
    _fio("read, depth 1", "randread", 1, 4_000),
    _fio("read, depth 32", "randread", 32, 12_000),
)


def _data(path: Path) -> None:
    path.write_bytes(os.urandom(MIB) * (SIZE // MIB))
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _half(path: Path) -> None:
    with path.open("wb") as file:
        for n in range(0, 512, 2):
            file.seek(n * MIB)
            file.write(os.urandom(MIB))
        file.truncate(512 * MIB)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(4 << 30)


@contextlib.contextmanager
def _serving(
    command: Callable[[Path, Path], list[str]], make: Callable[[Path], None], place: str
) -> Iterator[tuple[int, Path]]:
    """Serve an image of its own: servers lock theirs."""
    with tempfile.TemporaryDirectory(dir=place) as name:
        directory = Path(name).resolve()
        make(directory / "image")
        with _running(command, directory) as process:
            yield process, directory / "s"


@contextlib.contextmanager
def _running(command: Callable[[Path, Path], list[str]], directory: Path) -> Iterator[int]:
    socket = directory / "s"
    process = subprocess.Popen(  # noqa: S603 - our own command line
        command(directory / "image", socket), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(socket, process)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _once(load: Load, uri: str) -> float:
    """Carry out a load; return the requests a second."""
    if not load.options:
        command = [_LIBNBD, "-c", _FUA, uri, str(load.requests)]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        return load.requests / float(_run(command, env=clean))
    options = {"name": "load", "ioengine": "nbd", "uri": uri, "size": SIZE, "norandommap": 1}
    options |= {"randrepeat": 1, "thread": 1, "io_size": load.requests * 4096, **load.options}
    command = [
        "fio",
        "--output-format=json",
        *(f"--{key}={value}" for key, value in options.items()),
    ]
    text = _run(command)
    (job,) = json.loads(text[text.index("{") :])["jobs"]  # notes come first
    return float(job["read"]["iops"] + job["write"]["iops"])


def _uri(socket: Path) -> str:
    return f"nbd+unix:///?socket={quote(str(socket))}"


def _run(command: list[str], **options: dict[str, str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout  # type: ignore[call-overload, no-any-return]  # noqa: S603


def _drop(image: Path) -> None:
    with image.open("rb") as file:
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _compare(running: dict[str, tuple[int, Path]], loads: list[Load], rounds: int) -> None:
    for load in loads:
        figures: dict[str, list[tuple[float, float]]] = {who: [] for who in running}
        for _ in range(rounds):
            for who, (process, socket) in running.items():
                if load.cold:
                    _drop(socket.with_name("image"))
                began = _cpu_seconds(process)
                iops = _once(load, _uri(socket))
                cpu = (_cpu_seconds(process) - began) / load.requests * 1e6
                figures[who].append((cpu, iops))
        _tell(load.name, figures, "us", "IOPS")


def _copies(name: str, running: dict[str, tuple[int, Path]], rounds: int) -> None:
    figures: dict[str, list[tuple[float, float]]] = {who: [] for who in running}
    for _ in range(rounds):
        for who, (process, socket) in running.items():
            cpu, began = _cpu_seconds(process), time.monotonic()
            _run(["nbdcopy", _uri(socket), "null:"])
            took = time.monotonic() - began
            figures[who].append(((_cpu_seconds(process) - cpu) * 1e3, took * 1e3))
    _tell(name, figures, "ms CPU", "ms")


def _tell(
    name: str, figures: dict[str, list[tuple[float, float]]], first: str, second: str
) -> None:
    cells = [
        f"{who} {statistics.median(a for a, _ in each):.1f} {first} "
        f"{statistics.median(b for _, b in each):.0f} {second}"
        for who, each in figures.items()
    ]
    sys.stdout.write(f"{name}: {'; '.join(cells)}\n")
    sys.stdout.flush()


# Each makes the image, and says what is done with it: loads of servers, or None for nbdcopy.
KINDS: dict[str, tuple[str, Callable[[Path], None], Commands, tuple[Load, ...] | None]] = {
    "tmpfs": ("/dev/shm", _data, SERVERS, CACHED),  # noqa: S108
    "ext4": (".", _data, SERVERS, CACHED),
    "unaligned": (".", _data, SERVERS, UNALIGNED),
    "stable": (".", _data, SERVERS, STABLE),
    "script": ("/dev/shm", _data, SCRIPTS, SCRIPT_LOADS),  # noqa: S108
    "half-hole": (".", _half, SERVERS, None),
    "sparse": (".", _sparse, SERVERS, None),
}


def main(kind: str = "", rounds: str = "3", scale: str = "1") -> None:
    """Run a kind, and write its figures."""
    if kind not in KINDS:
        sys.exit(f"no kind {kind!r}; there are {', '.join(KINDS)}")
    place, make, servers, loads = KINDS[kind]
    with contextlib.ExitStack() as stack:
        running = {
            who: stack.enter_context(_serving(command, make, place))
            for who, command in servers.items()
        }
        if loads is None:
            _copies(kind, running, int(rounds))
        else:
            less = [replace(each, requests=round(each.requests * float(scale))) for each in loads]
            _compare(running, less, int(rounds))


if __name__ == "__main__":
    main(*sys.argv[1:])
