"""NBDDisk used from several loops and threads, moved between homes, and left by its own."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import DiskClosed
from homebound.nbd import (
    NBDDisk,
)
from homebound.testing import settle

from .servers import on_server, serving_elsewhere

if TYPE_CHECKING:
    from pathlib import Path


def test_used_by_another_loop_and_by_threads():
    def use(disk: NBDDisk) -> bytearray:
        disk.write_sync(0, b"sync")
        return disk.read_sync(0, 4)

    async def from_elsewhere(disk: NBDDisk) -> None:
        await asyncio.gather(*(disk.write(4096 + n, bytes([n])) for n in range(100)))
        assert await disk.read(4096, 100) == bytes(range(100))

    async def main(uri: str) -> None:
        async with await NBDDisk.connect(uri) as disk:
            assert await homebound.to_worker(use, disk) == b"sync"
            await homebound.to_worker(asyncio.run, from_elsewhere(disk))
            with homebound.IOThread() as io:
                await io.spawn(from_elsewhere(disk))

    on_server(main)


def test_a_range_that_is_none_leaves_the_requests_beside_it_alone():
    """It is refused where it is made: its home, which packs them together, would stumble."""

    async def from_elsewhere(disk: NBDDisk) -> None:
        half: Any = 0.5
        wrong = disk.read(half, 1), disk.trim(0, half), disk.block_status(half, 1)
        outcomes = await asyncio.gather(
            disk.read(0, 1), *wrong, disk.flush(), return_exceptions=True
        )
        assert [type(each) for each in outcomes[1:4]] == [TypeError] * 3
        assert (outcomes[0], outcomes[4]) == (b"\0", None)

    async def main(uri: str) -> None:
        async with await NBDDisk.connect(uri) as disk:
            await homebound.to_worker(asyncio.run, from_elsewhere(disk))

    on_server(main)


def test_its_loop_may_end_before_it(tmp_path: Path):
    """The next loop that uses it becomes its home, with the same connection."""
    with serving_elsewhere(tmp_path / "s") as server:
        disk = asyncio.run(NBDDisk.connect(server.uris[0]))
        asyncio.run(disk.write(7, b"first"))
        assert homebound.run(disk.read(7, 5)) == b"first"
        disk.close()
        assert server.stats().connections == 1


def test_its_home_ends_while_another_waits(rude: Any, say: Any):
    async def talk(end: Any) -> None:
        await end.negotiate()
        _, cookie, *_ = await end.request()
        sent.set()
        await go_on.wait()
        end.send(say.simple(cookie, 0, b"x"))
        await end.reader.read()

    async def main() -> None:
        async with rude.talking(talk):
            with homebound.IOThread() as io:
                disk = await io.spawn(NBDDisk.connect(rude.uri))
                read = asyncio.create_task(disk.read(0, 1))
                await sent.wait()
            go_on.set()
            assert await read == b"x"
            disk.close()

    sent, go_on = asyncio.Event(), asyncio.Event()
    homebound.run(main())


def test_move_to_under_load():
    """The requests of one task come in their order, whichever home sends them."""
    over = False

    async def use(disk: NBDDisk, n: int) -> int:
        count = 0
        while not (over and count):
            data = bytes([count % 251]) * 512
            await asyncio.gather(disk.write(n * 512, data), disk.flush())
            assert await disk.read(n * 512, 512) == data
            count += 1
        return count

    async def main(uri: str) -> None:
        nonlocal over
        with homebound.IOThreadPool(2) as threads:
            pool = list(threads)
            async with await NBDDisk.connect(uri, connections=2) as disk:
                users: list[asyncio.Task[int]] = []
                users += [homebound.create_task(use(disk, n), home=pool[n % 2]) for n in range(6)]
                users += [asyncio.create_task(use(disk, n)) for n in range(6, 8)]
                for n in range(20):
                    await disk.move_to(pool[n % 2])
                    await asyncio.sleep(0.005)
                over = True
                assert all(await asyncio.gather(*users))

    on_server(main)


def test_move_to_keeps_the_order(rude: Any, say: Any):
    order: list[int] = []

    async def talk(end: Any) -> None:
        await end.negotiate()
        while True:
            _, cookie, offset, *_ = await end.request()
            order.append(offset)
            end.send(say.simple(cookie, 0, b"x"))

    async def main() -> None:
        with homebound.IOThread() as io:
            async with rude.talking(talk):
                with await NBDDisk.connect(rude.uri) as disk:
                    tasks: list[asyncio.Task[Any]] = []
                    for n in range(300):
                        tasks.append(asyncio.create_task(disk.read(n, 1)))
                        if n == 100:
                            tasks.append(asyncio.create_task(disk.move_to(io)))
                        await asyncio.sleep(0)
                    await asyncio.gather(*tasks)
        assert order == list(range(300))

    homebound.run(main())


def test_move_to_an_ended_home():
    async def main(uri: str) -> None:
        with homebound.IOThread() as io:
            pass
        with await NBDDisk.connect(uri) as disk:
            with pytest.raises(RuntimeError):
                await disk.move_to(io)
            assert await disk.read(0, 1) == b"\0"
            with pytest.raises(TypeError, match=r"NBDDisk.move_to\(\) takes an AioContext"):
                await disk.move_to("io")  # type: ignore[arg-type]

    on_server(main)


@pytest.mark.parametrize("wakes", [1, 3])
def test_a_read_whose_task_something_else_wakes(rude: Any, say: Any, wakes: int):
    """It still ends with its reply, not before."""

    async def talk(end: Any) -> None:
        await end.negotiate()
        _, cookie, *_ = await end.request()
        sent.set()
        await go_on.wait()
        end.send(say.simple(cookie, 0, b"x"))
        await end.reader.read()

    async def main() -> None:
        async with rude.talking(talk):
            with await NBDDisk.connect(rude.uri) as disk:
                read = homebound.create_task(disk.read(0, 1))
                await sent.wait()
                for _ in range(wakes):
                    with contextlib.suppress(homebound.NotSuspended, homebound.AlreadyScheduled):
                        read.wake()
                    await settle()
                assert not read.done()
                go_on.set()
                assert await read == b"x"

    sent, go_on = asyncio.Event(), asyncio.Event()
    homebound.run(main())


def test_many_connections_in_two_homes():
    """They come and go with requests in flight; nothing is left."""

    async def use(uri: str) -> None:
        for n in range(30):
            with await NBDDisk.connect(uri) as disk:
                reads = [asyncio.create_task(disk.read(0, 100_000)) for _ in range(8)]
                if n % 2:
                    await reads[0]
                disk.close()
                for outcome in await asyncio.gather(*reads, return_exceptions=True):
                    assert isinstance(outcome, DiskClosed) or outcome == bytes(100_000)

    async def main(uri: str) -> None:
        with homebound.IOThreadPool(2) as pool:
            await asyncio.gather(*(pool.spawn(use(uri)) for _ in range(4)))

    on_server(main)
