"""Another client's read of 4 KiB, while clients flood the server with requests of one kind.

`python -m benchmarks.floods DISK [CLIENTS [ROUNDS [SECONDS [KIND...]]]]`: a disk is one of DISKS.
Each client keeps 64 requests in flight. A line has the p50 and p99 of the reads in ms; that of the
processor time that the server takes meanwhile, which tells on a busy machine what the server adds;
and the floods' requests a second. They are medians over the rounds, each of which has every kind
once, in turn. The directory of "ext4" is the current one.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import random
import selectors
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .disks import _cpu_seconds, _wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.sharedctypes import Synchronized

MIB = 1 << 20
SIZE = 192 * MIB
LARGE = 128 * MIB
IN_FLIGHT = 64
LEAST = 3  # reads in a round, however long they take
_PIECE = 64 << 10  # each other piece of the first 32 MiB has data
_IHAVEOPT = b"IHAVEOPT"
_FLUSH = 3
_LIST, _GO, _STRUCTURED, _SET_CONTEXT, _UNKNOWN = 3, 7, 8, 10, 99
_REPLY = 16  # bytes of a simple reply, and of a chunk's head without its length


@dataclass(frozen=True)
class Flood:
    """Requests of one kind, and the size of their replies."""

    command: int = 0
    length: int = 0
    flags: int = 0
    payload: int = 0
    reply: int = _REPLY  # 0: chunks
    option: int = 0  # in the handshake, in place of a request
    far: bool = False  # beyond the pieces of data, from which the reads come
    flushes: bool = False  # each other request is a flush

    def request(self, n: int) -> bytes:
        """Return a request: small ones are at different places."""
        if self.option:
            return struct.pack(">8sII", _IHAVEOPT, self.option, 0)
        if self.flushes and n % 2:
            return struct.pack(">IHHQQI", 0x25609513, 0, _FLUSH, n, 0, 0)
        at = (32 * MIB if self.far else 0) + (n * _PIECE if self.length < MIB else 0)
        head = struct.pack(">IHHQQI", 0x25609513, self.flags, self.command, n, at, self.length)
        return head + bytes(self.payload)


FUA, NO_HOLE = 1, 2
KINDS = {
    "option": Flood(option=_UNKNOWN, reply=0),
    "list": Flood(option=_LIST, reply=0),
    "read 1": Flood(0, 1, reply=_REPLY + 1),
    "invalid": Flood(99),
    "write 512": Flood(1, 512, payload=512, far=True),
    "flush": Flood(_FLUSH),
    "write, flush": Flood(1, 4096, payload=4096, far=True, flushes=True),
    "fua 4K": Flood(1, 4096, FUA, payload=4096, far=True),
    "trim 4K": Flood(4, 4096, far=True),
    "trim 128M": Flood(4, LARGE, far=True),
    "zeroes 4K": Flood(6, 4096, far=True),
    "zeroes 128M": Flood(6, LARGE, NO_HOLE, far=True),
    "status 32M": Flood(7, 32 * MIB, reply=0),
    "cache 4K": Flood(5, 4096),
    "cache 128M": Flood(5, LARGE),
}


class Client:
    """A connection, on which the kind's requests are kept in flight."""

    def __init__(self, path: Path, flood: Flood | None = None, number: int = 0) -> None:
        """Connect, and choose the export unless the flood is in the handshake."""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.flood = flood = flood or Flood()
        self._rest = b""
        first = number * IN_FLIGHT
        self._requests = [flood.request(n) for n in range(first, first + IN_FLIGHT)]
        self.receive(18)
        self.socket.sendall(struct.pack(">I", 3))
        if flood.option:
            return
        if flood.command == KINDS["status 32M"].command:
            self._option(_STRUCTURED, b"")
            name = b"base:allocation"
            self._option(_SET_CONTEXT, struct.pack(">III", 0, 1, len(name)) + name)
        self._option(_GO, bytes(6))

    def receive(self, size: int) -> bytes:
        """Receive exactly so many bytes."""
        data = b""
        while len(data) < size:
            got = self.socket.recv(size - len(data))
            if not got:
                raise EOFError
            data += got
        return data

    def _option(self, option: int, data: bytes) -> None:
        self.socket.sendall(struct.pack(">8sII", _IHAVEOPT, option, len(data)) + data)
        kind = 0
        while kind != 1:
            _, _, kind, length = struct.unpack(">QIII", self.receive(20))
            assert kind < 1 << 31, kind
            self.receive(length)

    def read(self, offset: int) -> None:
        """Read 4 KiB."""
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, offset, 4096))
        _, error, _ = struct.unpack(">IIQ", self.receive(_REPLY))
        assert not error
        self.receive(4096)

    def fill(self) -> None:
        """Give the first 32 MiB data and holes."""
        for at in range(0, 32 * MIB, 2 * _PIECE):
            head = struct.pack(">IHHQQI", 0x25609513, 0, 1, 1, at, _PIECE)
            self.socket.sendall(head + b"x" * _PIECE)
            self.receive(_REPLY)

    def send(self, number: int) -> None:
        """Send so many of the kind's requests."""
        self.socket.sendall(b"".join(self._requests[:number]))

    def replies(self) -> int:
        """Receive, and return how many replies have ended."""
        got = self.socket.recv(1 << 18)
        if not got:
            raise EOFError
        data = self._rest + got if self._rest else got
        if self.flood.reply:
            number, rest = divmod(len(data), self.flood.reply)
            self._rest = data[len(data) - rest :]
            return number
        number = at = 0
        head, done = (20, 0) if self.flood.option else (20, 1)
        while len(data) - at >= head:
            if done:
                _, flags, _, _, length = struct.unpack_from(">IHHQI", data, at)
                ends = flags & done
            else:
                _, _, kind, length = struct.unpack_from(">QIII", data, at)
                ends = kind == 1 or kind >> 31
            if len(data) - at < head + length:
                break
            at += head + length
            number += bool(ends)
        self._rest = data[at:]
        return number


def _flood(path: Path, kind: str, clients: int, answered: Synchronized[int]) -> None:
    selector = selectors.DefaultSelector()
    for n in range(clients):
        client = Client(path, KINDS[kind], n)
        client.send(IN_FLIGHT)
        selector.register(client.socket, selectors.EVENT_READ, client)
    while True:
        for key, _ in selector.select():
            number = key.data.replies()
            answered.value += number
            key.data.send(number)


@contextlib.contextmanager
def _flooded(path: Path, kind: str, clients: int) -> Iterator[Synchronized[int]]:
    processes = multiprocessing.get_context("fork")
    answered = processes.Value("q", 0, lock=False)
    process = processes.Process(target=_flood, args=(path, kind, clients, answered), daemon=True)
    if kind in KINDS:
        process.start()
        time.sleep(0.2)
    try:
        yield answered
    finally:
        if kind in KINDS:
            process.kill()
            process.join()


@dataclass(frozen=True)
class Sample:
    """A round's reads: seconds and the server's, in order; and the floods' requests a second."""

    wall: list[float]
    cpu: list[float]
    rate: float


def _sample(path: Path, server: int, kind: str, clients: int, seconds: float) -> Sample:
    wall: list[float] = []
    cpu: list[float] = []
    with _flooded(path, kind, clients) as answered:
        reader = Client(path)
        before, began = answered.value, time.perf_counter()
        while time.perf_counter() < began + seconds or len(wall) < LEAST:
            time.sleep(random.random() / 1000)  # noqa: S311
            used, start = _cpu_seconds(server), time.perf_counter()
            reader.read(random.randrange(32 * MIB // 4096) * 4096)  # noqa: S311
            wall.append(time.perf_counter() - start)
            cpu.append(_cpu_seconds(server) - used)
        rate = (answered.value - before) / (time.perf_counter() - began)
        reader.socket.close()
    return Sample(sorted(wall), sorted(cpu), rate)


def _line(samples: list[Sample]) -> str:
    def median(part: int, *columns: list[float]) -> str:
        return f"{statistics.median(each[len(each) * part // 100] for each in columns) * 1e3:.1f}"

    wall, cpu = [each.wall for each in samples], [each.cpu for each in samples]
    rate = statistics.median(each.rate for each in samples)
    took = f"{median(50, *wall)} / {median(99, *wall)} ms"
    return f"{took}, server {median(50, *cpu)} / {median(99, *cpu)} ms, {rate:.0f}/s"


_SCRIPT = f"""
size = {SIZE}
data = bytearray(size)
{{0}}def read_into(offset, buffer):
    buffer[:] = data[offset:offset + len(buffer)]
{{0}}def write(offset, piece):
    data[offset:offset + len(piece)] = piece
{{0}}def flush():
    pass
{{0}}def trim(offset, length):
    pass
{{0}}def zero(offset, length):
    pass
{{0}}def extents(offset, length):
    return [(length, False, False)]
"""


def _image(path: Path) -> None:
    with path.open("wb") as file:
        for at in range(0, 32 * MIB, 2 * _PIECE):
            file.seek(at)
            file.write(os.urandom(_PIECE))
        file.truncate(SIZE)
        os.fsync(file.fileno())


@contextlib.contextmanager
def _serving(what: list[str], path: Path) -> Iterator[int]:
    """Serve for one sample: requests that change the disk go on when their client has gone."""
    command = [sys.executable, "-m", "homebound", "serve", "--unix", str(path), *what]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet)  # noqa: S603 - our own
    try:
        _wait_for(path, process)
        yield process.pid
    finally:
        process.kill()
        process.wait()
        path.unlink(missing_ok=True)


def _raw(image: Path) -> list[str]:
    _image(image)
    return [str(image)]


def _qcow2(image: Path) -> list[str]:
    _image(image)
    made = image.with_suffix(".qcow2")
    command = ["qemu-img", "convert", "-Oqcow2", str(image), str(made)]
    subprocess.run(command, check=True)  # noqa: S603 - our own
    return [str(made)]


def _overlay(image: Path) -> list[str]:
    return [*_raw(image), "--overlay", str(image.with_suffix(".overlay"))]


def _scripted(keyword: str) -> Callable[[Path], list[str]]:
    def what(image: Path) -> list[str]:
        path = image.with_suffix(".py")
        path.write_text(_SCRIPT.format(keyword))
        return ["--script", str(path)]

    return what


DISKS: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "memory": ("/dev/shm", lambda _: ["--size", str(SIZE)]),  # noqa: S108
    "tmpfs": ("/dev/shm", _raw),  # noqa: S108
    "ext4": (".", _raw),
    "qcow2": (".", _qcow2),
    "overlay": (".", _overlay),
    "def": ("/dev/shm", _scripted("")),  # noqa: S108
    "async": ("/dev/shm", _scripted("async ")),  # noqa: S108
}


def main(
    disk: str = "", clients: str = "1", rounds: str = "3", seconds: str = "1", *kinds: str
) -> None:
    """Flood a disk, and write the figures."""
    if disk not in DISKS or set(kinds) - set(KINDS):
        sys.exit(f"no such disk or kind; there are {', '.join(DISKS)}; {', '.join(KINDS)}")
    place, what = DISKS[disk]
    samples: dict[str, list[Sample]] = {kind: [] for kind in ("none", *(kinds or KINDS))}
    with tempfile.TemporaryDirectory(dir=place) as name:
        directory = Path(name).resolve()
        path, arguments = directory / "s", what(directory / "image")
        for _, kind in itertools.product(range(int(rounds)), samples):
            with _serving(arguments, path) as server:
                if disk == "memory":
                    Client(path).fill()
                samples[kind].append(_sample(path, server, kind, int(clients), float(seconds)))
    for kind, each in samples.items():
        sys.stdout.write(f"{disk}, {clients} x {kind}: {_line(each)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
