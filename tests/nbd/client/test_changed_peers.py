"""Other programs' servers that come back with an export that is not what it was."""

from __future__ import annotations

import errno
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import DiskError, OutOfRange
from homebound.nbd import ConnectionLost, NBDDisk

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.peers

SIZE = 1 << 20
SERVERS = ["qemu-nbd", "nbdkit"]


class Server:
    """A program that serves an image, whatever the image is at the moment."""

    def __init__(self, program: Any, place: Path) -> None:
        self.program = program
        self.image = place / "image"
        self.image.write_bytes(b"x" * SIZE)

    def start(self, server: str, *options: object) -> None:
        socket = self.program.socket
        commands = {
            "qemu-nbd": ("qemu-nbd", "-t", "-e", "9", "-f", "raw", "-k", socket),
            "nbdkit": ("nbdkit", "-f", "-U", socket),
        }
        plugin = ("file",) if server == "nbdkit" else ()
        self.program.start(*commands[server], *options, *plugin, self.image)

    async def restart(self, server: str, *options: object) -> None:
        await homebound.to_worker(self.program.kill)
        self.start(server, *options)

    async def connect(self, export: str = "", **options: Any) -> NBDDisk:
        settings = {"open_timeout": 20, "reconnect_delay": 30, **options}
        return await NBDDisk.connect(self.program.uri(export), **settings)


@pytest.fixture
def peer(program: Any, tmp_path: Path) -> Server:
    return Server(program, tmp_path)


@pytest.mark.parametrize("server", SERVERS)
def test_smaller(peer: Server, server: str):
    async def main() -> None:
        peer.start(server)
        with await peer.connect() as disk:
            peer.image.write_bytes(b"y" * 4096)
            await peer.restart(server)
            assert await disk.read(0, 4096) == b"y" * 4096
            for command in (disk.read(4096, 512), disk.write(4096, b"z" * 512)):
                with pytest.raises(DiskError, match="has come back smaller: 4096 bytes") as caught:
                    await command
                assert caught.value.errno == errno.EIO
            await disk.write(0, b"z" * 512)
            assert await disk.read(0, 1024) == b"z" * 512 + b"y" * 512

    homebound.run(main())


@pytest.mark.parametrize("server", SERVERS)
def test_larger(peer: Server, server: str):
    async def main() -> None:
        peer.start(server)
        with await peer.connect() as disk:
            peer.image.write_bytes(b"y" * 2 * SIZE)
            await peer.restart(server)
            assert await disk.read(SIZE - 512, 512) == b"y" * 512
            assert disk.size == SIZE
            with pytest.raises(OutOfRange):
                await disk.read(SIZE, 512)

    homebound.run(main())


@pytest.mark.parametrize("server", SERVERS)
def test_read_only(peer: Server, server: str):
    async def main() -> None:
        peer.start(server)
        with await peer.connect() as disk:
            await peer.restart(server, "-r")
            with pytest.raises(DiskError, match="has come back read-only") as caught:
                await disk.write(0, b"y" * 512)
            assert caught.value.errno == errno.EROFS
            assert await disk.read(0, 512) == b"x" * 512

    homebound.run(main())


def test_another_name(peer: Server):
    """It is waited for; then the request fails, and says that there is no such export."""

    async def main() -> None:
        peer.start("qemu-nbd", "-x", "one")
        with await peer.connect("one", reconnect_delay=3) as disk:
            assert await disk.read(0, 512) == b"x" * 512
            await peer.restart("qemu-nbd", "-x", "other")
            with pytest.raises(ConnectionLost, match="ERR_UNKNOWN"):
                await disk.read(0, 512)
            await peer.restart("qemu-nbd", "-x", "one")
            while True:
                try:
                    assert await disk.read(0, 512) == b"x" * 512
                    break
                except ConnectionLost:
                    await homebound.to_worker(peer.program.until_listening)

    homebound.run(main())


def test_another_number_of_a_context(peer: Server):
    """qemu-nbd gives base:allocation the number 0, nbdkit gives it 1."""

    async def main() -> None:
        with peer.image.open("r+b") as file:
            file.truncate(0)
            file.truncate(SIZE)
        peer.start("qemu-nbd")
        with await peer.connect() as disk:
            for server in ("nbdkit", "qemu-nbd"):
                (extent,) = await disk.block_status(0, SIZE)
                assert (extent.length, extent.zero) == (SIZE, True)
                await peer.restart(server)
            (extent,) = await disk.block_status(0, SIZE)
            assert extent.zero

    homebound.run(main())


def test_without_its_bitmap(peer: Server, program: Any, tmp_path: Path):
    path = tmp_path / "q"
    name = "qemu:dirty-bitmap:b0"
    command = ("qemu-nbd", "-t", "-e", "9", "-f", "qcow2", "-k", program.socket)

    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")
    for tool in (
        ("qemu-img", "create", "-q", "-f", "qcow2", path, "1M"),
        ("qemu-img", "bitmap", "--add", path, "b0"),
    ):
        subprocess.run(tool, check=True)

    async def main() -> None:
        program.start(*command, "-B", "b0", path)
        with await peer.connect(meta=[name]) as disk:
            assert await disk.status(name, 0, SIZE) == [(SIZE, 0)]
            await homebound.to_worker(program.kill)
            program.start(*command, path)
            with pytest.raises(DiskError, match=f"has lost its context {name!r}"):
                await disk.status(name, 0, SIZE)
            assert await disk.read(0, 512) == bytes(512)

    homebound.run(main())
