"""A raw image in the page cache, served over NBD: the server's cost of a request.

The client is fio's NBD engine, on a Unix socket. The CPU time of the server's process is measured;
fio's own is the same for all. Peers: qemu-nbd, and nbdkit's file plugin.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ._harness import Case, Target

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
SIZE = 64 * MIB
_PATIENCE = 30  # seconds for a server to begin to listen, and to end

# The commands that serve `image` on the Unix socket `path`.
SERVERS: dict[str, Callable[[Path, Path], list[str]]] = {
    "homebound": lambda image, path: [
        *(sys.executable, "-m", "homebound", "serve", str(image), "--unix", str(path))
    ],
    "qemu-nbd": lambda image, path: [
        *("qemu-nbd", "--persistent", "--shared=0", "--format=raw", f"--socket={path}", str(image))
    ],
    "nbdkit": lambda image, path: [
        *("nbdkit", "--foreground", f"--unix={path}", "file", f"file={image}")
    ],
}


@dataclass(frozen=True)
class Load:
    """The parameters of a fio run."""

    name: str
    rw: str
    bytes: int  # of a request
    depth: int  # requests in flight on a connection
    connections: int
    requests: int  # in a sample, about a second's


LOADS = (
    Load("random read 4 KiB, one in flight", "randread", 4096, 1, 1, 20_000),
    Load("random read 4 KiB, 32 in flight", "randread", 4096, 32, 1, 80_000),
    Load("random read 4 KiB, 4 x 32 in flight", "randread", 4096, 32, 4, 80_000),
    Load("random write 4 KiB, one in flight", "randwrite", 4096, 1, 1, 20_000),
    Load("random write 4 KiB, 32 in flight", "randwrite", 4096, 32, 1, 80_000),
    Load("sequential read 256 KiB, 8 in flight", "read", 256 << 10, 8, 1, 4_000),
    Load("sequential write 256 KiB, 8 in flight", "write", 256 << 10, 8, 1, 4_000),
)


@functools.cache
def serve(who: str, size: int = SIZE) -> tuple[int, Path]:
    """Start a server for all samples; its start is not measured. Its process, and its address."""
    directory = Path(until_exit.enter_context(tempfile.TemporaryDirectory()))
    image, path = directory / "image", directory / "socket"
    image.write_bytes(os.urandom(MIB) * (size // MIB))
    process = subprocess.Popen(  # noqa: S603 - our own command line
        SERVERS[who](image, path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until_exit.callback(process.wait, _PATIENCE)
    until_exit.callback(process.terminate)
    _wait_for(path, process)
    return process.pid, path


until_exit = contextlib.ExitStack()
atexit.register(until_exit.close)


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _PATIENCE
    while not _is_listened_on(path):
        if process.poll() is not None or time.monotonic() > until:
            message = f"{process.args!r} does not listen at {path}"
            raise RuntimeError(message)
        time.sleep(0.01)


def _is_listened_on(path: Path) -> bool:
    """Tell whether a server accepts connections there; the file appears before that."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def _cpu_seconds(process: int) -> float:
    """Return the CPU time of all its threads, from Linux's clock (clock_getcpuclockid(3))."""
    return time.clock_gettime((~process << 3) | 2)


def _client(who: str, load: Load) -> Callable[[int], float]:
    """Return the server's CPU time a request."""

    def variant(n: int) -> float:
        each = max(1, n // load.connections)
        process, path = serve(who)
        began = _cpu_seconds(process)
        _drive(path, load, each)
        return (_cpu_seconds(process) - began) / (each * load.connections)

    return variant


def _drive(path: Path, load: Load, each: int) -> None:
    options = {
        "name": "load",
        "ioengine": "nbd",
        "uri": f"nbd+unix:///?socket={path}",
        "rw": load.rw,
        "bs": load.bytes,
        "iodepth": load.depth,
        "numjobs": load.connections,
        "size": SIZE,
        "io_size": each * load.bytes,
        "norandommap": 1,
        "randrepeat": 1,
        "thread": 1,
    }
    command = ["fio", *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        message = f"fio failed: {done.stdout}{done.stderr}"
        raise RuntimeError(message)


def cases() -> list[Case]:
    """Return the cases to run: none without fio and its NBD engine."""
    if "nbd" not in _fio_engines():
        sys.stdout.write("skipped: there is no fio with an NBD engine\n")
        return []
    servers = [who for who in SERVERS if who == "homebound" or shutil.which(who)]
    return [
        Case(
            name=load.name,
            what="CPU time of the server a request",
            variants={who: _client(who, load) for who in servers},
            n=load.requests,
            targets=tuple(Target(peer, at_most=1) for peer in servers[1:]),
        )
        for load in LOADS
    ]


def _fio_engines() -> list[str]:
    if sys.platform != "linux" or shutil.which("fio") is None:
        return []
    listing = subprocess.run(["fio", "--enghelp"], capture_output=True, text=True, check=False)  # noqa: S607
    return listing.stdout.split()
