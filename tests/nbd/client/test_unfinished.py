"""Requests that are cancelled, or whose disk is closed, before their replies have come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import homebound
from homebound.block import DiskClosed
from homebound.nbd import (
    NBDDisk,
)
from homebound.testing import settle

from .servers import on_server


class TestCancelled:
    @pytest.mark.parametrize("iterations", range(6))
    def test_no_reply_reaches_another_request(self, iterations: int):
        async def main(uri: str) -> None:
            async with await NBDDisk.connect(uri) as disk:
                for n in range(64):
                    await disk.write(n * 4096, bytes([n]) * 4096)
                for _ in range(10):
                    reads = [asyncio.create_task(disk.read(n * 4096, 4096)) for n in range(64)]
                    for _ in range(iterations):
                        await asyncio.sleep(0)
                    for read in reads[::2]:
                        read.cancel()
                    outcomes = await asyncio.gather(*reads, return_exceptions=True)
                    for n, outcome in enumerate(outcomes):
                        if n % 2 or not isinstance(outcome, asyncio.CancelledError):
                            assert outcome == bytes([n]) * 4096

        on_server(main)

    def test_a_read_ends_at_once_and_its_buffer_is_free(self, rude: Any, say: Any):
        async def talk(end: Any) -> None:
            await end.negotiate()
            _, cookie, *_ = await end.request()
            end.send(say.simple(cookie, 0, b"x" * 100_000))
            await go_on.wait()
            end.send(b"x" * 100_000)
            _, cookie, *_ = await end.request()
            end.send(say.simple(cookie, 0, b"y"))

        async def main() -> None:
            async with rude.talking(talk):
                with await NBDDisk.connect(rude.uri) as disk:
                    buffer = bytearray(200_000)
                    read = asyncio.create_task(disk.read_into(0, memoryview(buffer)))
                    while buffer[99_999] == 0:
                        await asyncio.sleep(0)
                    read.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await read
                    buffer[:] = bytes(200_000)
                    go_on.set()
                    assert await disk.read(0, 1) == b"y"
                    assert not any(buffer)

        go_on = asyncio.Event()
        homebound.run(main())

    @pytest.mark.parametrize("where", ["here", "elsewhere"])
    def test_a_write_ends_with_its_reply(self, rude: Any, say: Any, where: str):
        async def talk(end: Any) -> None:
            await end.negotiate()
            _, cookie, *_ = await end.request()
            sent.set()
            await go_on.wait()
            end.send(say.simple(cookie))
            await end.reader.read()

        async def main() -> None:
            async with rude.talking(talk):
                with await NBDDisk.connect(rude.uri) as disk, homebound.IOThread() as io:
                    home = io.context if where == "elsewhere" else homebound.current_context()
                    write = homebound.create_task(disk.write(0, b"x"), home=home)
                    await sent.wait()
                    for _ in range(3):
                        write.cancel()
                        await settle()
                    assert not write.done()
                    go_on.set()
                    with pytest.raises(asyncio.CancelledError):
                        await write

        sent, go_on = asyncio.Event(), asyncio.Event()
        homebound.run(main())

    def test_connecting(self):
        """Whenever it is cancelled, no thread and no descriptor is left."""

        async def main(uri: str) -> None:
            for n in range(40):
                opening = asyncio.create_task(NBDDisk.connect(uri, connections=3))
                for _ in range(n):
                    await asyncio.sleep(n % 4 * 0.0002)
                opening.cancel()
                try:
                    (await opening).close()
                except asyncio.CancelledError:
                    pass

        on_server(main)


class TestClosed:
    @pytest.mark.parametrize("where", ["here", "elsewhere"])
    def test_what_waits_for_a_reply_fails(self, rude: Any, where: str):
        async def talk(end: Any) -> None:
            await end.negotiate()
            await end.request()
            sent.set()
            await end.reader.read()

        async def main() -> None:
            async with rude.talking(talk):
                disk = await NBDDisk.connect(rude.uri)
                read = asyncio.create_task(disk.read(0, 1))
                await sent.wait()
                if where == "elsewhere":
                    await homebound.to_worker(disk.close)
                else:
                    disk.close()
                with pytest.raises(DiskClosed):
                    await read
                with pytest.raises(DiskClosed):
                    await disk.read(0, 1)
                with pytest.raises(DiskClosed):
                    await disk.move_to(homebound.running_context())

        sent = asyncio.Event()
        homebound.run(main())

    def test_it_says_goodbye(self, rude: Any):
        async def talk(end: Any) -> None:
            await end.negotiate()
            said.append((await end.request())[0])
            said.append(await end.reader.read())
            over.set()

        async def main() -> None:
            async with rude.talking(talk):
                (await NBDDisk.connect(rude.uri)).close()
                await over.wait()
            assert said == [2, b""]

        said: list[object] = []
        over = asyncio.Event()
        homebound.run(main())
