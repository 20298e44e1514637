"""The end of a server: requests it finishes, clients it disconnects, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import FileDisk, MemoryDisk
from homebound.nbd import Export, ListenError, NBDServer
from homebound.nbd._protocol.wire import Command
from homebound.testing import settle

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 1 << 20
READ, WRITE = Command.READ, Command.WRITE


def test_is_for_good(tmp_path: Path):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            server = NBDServer(disk)
            await server.stop()
            with pytest.raises(ListenError, match="was stopped; make another one"):
                await server.listen_unix(tmp_path / "socket")
            with pytest.raises(ListenError, match="was stopped; make another one"):
                await server.listen_tcp(port=0)

    homebound.run(main())


@pytest.mark.parametrize("grace", ["1", None, float("nan")])
def test_a_wrong_grace_changes_nothing(grace: Any, in_memory: Any, tmp_path: Path):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            async with NBDServer(disk) as server:
                await server.listen_unix(tmp_path / "socket")
                with pytest.raises((TypeError, ValueError), match="grace"):
                    await server.stop(grace)
                client = await in_memory.client.ready(server.uris[0])
                await client.close()

    homebound.run(main())


def test_a_socket_file_that_cannot_be_removed(in_memory: Any, tmp_path: Path):
    """As by a process that has given up its rights; the rest of `stop` was left out."""

    async def main() -> None:
        with in_memory.waiting_disk(SIZE) as disk:
            server = NBDServer(disk)
            place = tmp_path / "place"
            place.mkdir()
            await server.listen_unix(place / "socket")
            client = await in_memory.client.ready(server.uris[0])
            place.rename(tmp_path / "elsewhere")
            place.touch()
            stopping = asyncio.create_task(server.stop())
            await disk.until_waiting(1)
            assert disk.asked == [("flush",)]
            disk.go_on()
            await stopping
            assert await client.at_end()
            await client.close()

    homebound.run(main())


def test_a_second_call_waits_for_the_first(in_memory: Any, tmp_path: Path):
    async def main() -> None:
        with in_memory.waiting_disk(SIZE) as disk:
            server = NBDServer(disk)
            await server.listen_unix(tmp_path / "socket")
            stops = [asyncio.create_task(server.stop()) for _ in range(3)]
            await disk.until_waiting(1)
            stops[0].cancel()
            await settle()
            assert [stop.done() for stop in stops] == [True, False, False]
            disk.go_on()
            await asyncio.gather(*stops[1:])
            assert disk.asked == [("flush",)]

    homebound.run(main())


def test_finishes_what_is_in_flight_and_flushes(in_memory: Any, tmp_path: Path):
    async def main() -> None:
        with in_memory.waiting_disk(SIZE) as disk:
            server = NBDServer(disk)
            await server.listen_unix(tmp_path / "socket")
            client = await in_memory.client.ready(server.uris[0])
            client.send(WRITE, 1, payload=b"data")
            client.send(READ, 2, 0, 4)
            await disk.until_waiting(2)
            stopping = asyncio.create_task(server.stop())
            await settle()
            with pytest.raises(OSError, match=r"\[Errno"):
                await in_memory.client.connect(server.uris[0])
            disk.go_on()
            disk.go_on()
            assert sorted([await client.reply(), await client.reply(4)][:1]) == [(1, 0, b"")]
            assert await client.at_end()
            await disk.until_waiting(1)
            assert disk.asked[-1] == ("flush",)
            disk.go_on()
            await stopping
            await server.stop()
            await client.close()

    homebound.run(main())


@pytest.mark.usefixtures("virtual_clock")
def test_does_not_wait_forever(in_memory: Any, tmp_path: Path):
    """Stop with a client that does not read, one in its handshake, and a disk that hangs."""

    async def main() -> None:
        with in_memory.waiting_disk(16 * SIZE) as disk:
            server = NBDServer(Export(disk, read_only=True))
            await server.listen_unix(tmp_path / "socket")
            silent = await in_memory.client.connect(server.uris[0])
            await silent.greeted()
            hung = await in_memory.client.ready(server.uris[0])
            hung.send(READ, 1, 0, 4)
            deaf = await in_memory.client.ready(server.uris[0])
            deaf.reader._limit = 1  # its transport stops reading
            deaf.send(READ, 1, 0, 8 * SIZE)
            await disk.until_waiting(2)
            disk.go_on(1)
            await settle()
            disk.read_only = True
            await server.stop(grace=0.05)
            assert server.stats().clients == 0
            for client in (silent, hung, deaf):
                await client.close()

    homebound.run(main())


def test_says_that_data_could_not_be_flushed(tmp_path: Path):
    class Failing(MemoryDisk):
        async def flush(self) -> None:
            raise OSError(errno.EIO, "medium error")

    async def main() -> None:
        with Failing(SIZE) as disk:
            server = NBDServer(disk)
            await server.listen_unix(tmp_path / "socket")
            with pytest.raises(OSError, match="medium error"):
                await server.stop()
            assert not (tmp_path / "socket").exists()

    homebound.run(main())


def test_stop_of_an_io_thread_before_the_server(in_memory: Any, tmp_path: Path):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            io = homebound.IOThread("io")
            io.start()
            server = NBDServer(disk, io_threads=[io])
            await server.listen_unix(tmp_path / "socket")
            client = await in_memory.client.ready(server.uris[0])
            io.stop()
            assert await client.at_end()
            late = await in_memory.client.connect(server.uris[0])
            assert await late.at_end()
            await server.stop()
            await client.close()
            await late.close()

    homebound.run(main())


@pytest.mark.parametrize("threads", [0, 1])
def test_flushes_where_there_are_workers(
    run: Any, in_memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
):
    """The loop that listens may be any; with I/O threads it need not become a home."""
    if not threads and run is not homebound.run:
        pytest.skip("a foreign loop becomes the thread's home for good; see the next test")
    image = tmp_path / "image"
    image.write_bytes(bytes(SIZE))
    synced: list[int] = []
    monkeypatch.setenv("HOMEBOUND_IO_URING", "0")
    monkeypatch.setattr(os, "fdatasync", synced.append)

    async def main(io_threads: Any) -> None:
        with FileDisk(image) as disk:
            disk.blocking.volatile = False
            async with NBDServer(disk, io_threads=io_threads) as server:
                await server.listen_unix(tmp_path / "socket")
                client = await in_memory.client.ready(server.uris[0])
                client.send(WRITE, 1, 1, payload=b"a part of a page")
                assert await client.reply() == (1, 0, b"")
                await client.close()
            assert len(synced) == 1

    with contextlib.ExitStack() as stack:
        run(main(stack.enter_context(homebound.IOThreadPool(threads)) if threads else ()))


def test_slow_requests_on_a_foreign_loop(tmp_path: Path):
    """Run a process: the thread that ran such a loop remains its home."""
    (tmp_path / "image").write_bytes(bytes(SIZE))
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-W", "error", program, tmp_path],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "(7, 0)\n"), done.stderr


PROGRAM = """
import asyncio, struct, sys
from homebound.block import FileDisk
from homebound.nbd import NBDServer

async def main(where):
    with FileDisk(where + "/image", eager_writes=False) as disk:
        disk._read_flags = disk._write_flags = None  # nothing can be done at once
        async with NBDServer(disk) as server:
            await server.listen_unix(where + "/socket")
            reader, writer = await asyncio.open_unix_connection(where + "/socket")
            await reader.readexactly(18)
            writer.write(struct.pack(">IQII", 3, 0x49484156454F5054, 1, 0))
            await reader.readexactly(10)
            writer.write(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, 0, 512))
            _, error, cookie = struct.unpack(">IIQ", await reader.readexactly(16))
            assert await reader.readexactly(512) == bytes(512)
            print((cookie, error))
            writer.close()
            await writer.wait_closed()

asyncio.run(main(sys.argv[1]))
"""
