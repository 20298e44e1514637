"""Losing connections, and getting them back: as QEMU's client does it, or better."""

from __future__ import annotations

import asyncio
import errno
import signal
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import ContextClosed
from homebound.block import DiskClosed
from homebound.nbd import ConnectionLost, NBDDisk
from homebound.nbd._protocol.wire import Option, ReplyType

from .servers import SIZE, serving

if TYPE_CHECKING:
    from pathlib import Path


async def lost(disk: NBDDisk) -> None:
    """Wait until the client has seen that its connection is lost."""
    while disk._client.channels[0].state.value != "lost":
        await asyncio.sleep(0)


def test_losses_are_counted(rude: Any):
    async def main() -> None:
        memory = bytearray(SIZE)
        await rude.start(serving(memory))
        with await NBDDisk.connect(rude.uri, reconnect_delay=30) as disk:
            await disk.write(0, b"x")
            assert disk.interruptions == 0
            for count in (1, 2):
                await rude.stop()
                read = asyncio.create_task(disk.read(0, 1))
                await rude.start(serving(memory))
                assert await read == b"x"
                assert disk.interruptions == count
        await rude.stop()

    homebound.run(main())


class TestWithoutDelay:
    def test_a_request_fails_at_once(self, rude: Any):
        async def main() -> None:
            await rude.start(serving(bytearray(SIZE)))
            with await NBDDisk.connect(rude.uri) as disk:
                await rude.stop()
                with pytest.raises(ConnectionLost) as caught:
                    await disk.read(0, 1)
                assert caught.value.errno == errno.EIO

        homebound.run(main())

    def test_the_third_request_is_served_if_the_server_is_back(self, rude: Any):
        """The first finds the broken connection, the second begins to connect."""

        async def main() -> None:
            talk = serving(bytearray(b"x" * SIZE))
            await rude.start(talk)
            with await NBDDisk.connect(rude.uri) as disk:
                await rude.stop()
                await rude.start(talk)
                await lost(disk)
                await asyncio.sleep(0)
                assert rude.accepted == 1  # nothing happens until a request touches it
                for _ in range(2):
                    with pytest.raises(ConnectionLost):
                        await disk.read(0, 1)
                while rude.accepted == 1 or disk._client.channels[0].state.value != "live":
                    await asyncio.sleep(0.001)
                assert await disk.read(0, 1) == b"x"
                await disk.aclose()
            await rude.stop()

        homebound.run(main())

    def test_it_recovers_without_being_asked_again(self, rude: Any):
        async def main() -> None:
            talk = serving(bytearray(b"x" * SIZE))
            await rude.start(talk)
            with await NBDDisk.connect(rude.uri) as disk:
                await rude.stop()
                for _ in range(2):
                    with pytest.raises(ConnectionLost):
                        await disk.read(0, 1)
                await asyncio.sleep(0.3)
                await rude.start(talk)
                while disk._client.channels[0].state.value != "live":
                    await asyncio.sleep(0.001)
                assert await disk.read(0, 1) == b"x"
            await rude.stop()

        homebound.run(main())

    def test_all_in_flight_fail(self, rude: Any):
        async def talk(end: Any) -> None:
            await end.negotiate()
            for _ in range(8):
                await end.request()

        async def main() -> None:
            async with rude.talking(talk):
                with await NBDDisk.connect(rude.uri) as disk:
                    reads = [disk.read(n, 1) for n in range(8)]
                    outcomes = await asyncio.gather(*reads, return_exceptions=True)
            assert all(isinstance(each, ConnectionLost) for each in outcomes)

        homebound.run(main())


class TestWithDelay:
    def test_requests_wait_for_the_server(self, rude: Any):
        async def main() -> None:
            talk = serving(bytearray(b"x" * SIZE))
            await rude.start(talk)
            with await NBDDisk.connect(rude.uri, reconnect_delay=30) as disk:
                await rude.stop()
                reads = [asyncio.create_task(disk.read(n, 1)) for n in range(8)]
                await asyncio.sleep(0.3)
                assert not any(read.done() for read in reads)
                await rude.start(talk)
                assert await asyncio.gather(*reads) == [b"x"] * 8
                await disk.aclose()
            await rude.stop()

        homebound.run(main())

    def test_they_fail_when_the_delay_is_over_and_later_ones_at_once(self, rude: Any):
        async def main() -> None:
            talk = serving(bytearray(b"x" * SIZE))
            await rude.start(talk)
            with await NBDDisk.connect(rude.uri, reconnect_delay=0.5) as disk:
                await rude.stop()
                began = time.monotonic()
                with pytest.raises(ConnectionLost, match="no connection to nbd"):
                    await disk.read(0, 1)
                assert time.monotonic() - began >= 0.5
                with pytest.raises(ConnectionLost):
                    await disk.read(0, 1)
                await rude.start(talk)
                while disk._client.channels[0].state.value != "live":
                    await asyncio.sleep(0.001)
                assert await disk.read(0, 1) == b"x"
            await rude.stop()

        homebound.run(main())

    def test_what_was_sent_is_sent_again_in_order(self, rude: Any):
        memory = bytearray(SIZE)
        seen: list[int] = []

        async def talk(end: Any) -> None:
            await end.negotiate()
            if rude.accepted == 1:
                for _ in range(8):
                    await end.request()
                return
            for _ in range(8):
                _, cookie, offset, length, payload = await end.request()
                memory[offset : offset + length] = payload
                seen.append(offset)
                end.send(struct.pack(">IIQ", 0x67446698, 0, cookie))
            await end.request()

        async def main() -> None:
            async with rude.talking(talk):
                with await NBDDisk.connect(rude.uri, reconnect_delay=30) as disk:
                    await asyncio.gather(*(disk.write(n * 4096, b"%d" % n) for n in range(8)))
            assert seen == [n * 4096 for n in range(8)]
            assert memory[7 * 4096] == ord("7")

        homebound.run(main())

    def test_a_request_waits_no_longer_than_the_delay_whatever_accepts_it(self, rude: Any):
        """A server that accepts and drops each connection is no livelock."""

        async def talk(end: Any) -> None:
            await end.negotiate()
            await end.request()

        async def main() -> None:
            async with rude.talking(talk):
                disk = await NBDDisk.connect(rude.uri, reconnect_delay=1.5)
                with disk, pytest.raises(ConnectionLost):
                    await disk.read(0, 1)
                assert 2 <= rude.accepted < 20

        homebound.run(main())

    def test_a_refused_export_is_a_failed_try(self, rude: Any, say: Any):
        refusal = say.option_reply(Option.GO, ReplyType.ERR_UNKNOWN)

        async def talk(end: Any) -> None:
            await end.negotiate({} if rude.accepted == 1 else {Option.GO: refusal})
            if rude.accepted == 1:
                await end.request()

        async def main() -> None:
            async with rude.talking(talk):
                disk = await NBDDisk.connect(rude.uri, reconnect_delay=1.5)
                with disk, pytest.raises(ConnectionLost, match="ERR_UNKNOWN"):
                    await disk.read(0, 1)
                assert 2 <= rude.accepted < 20

        homebound.run(main())

    def test_a_server_that_says_it_stops_is_waited_for(self, rude: Any, say: Any):
        async def talk(end: Any) -> None:
            await end.negotiate()
            _, cookie, *_ = await end.request()
            stopping = rude.accepted == 1
            end.send(say.simple(cookie, 108) if stopping else say.simple(cookie, 0, b"x"))
            await end.reader.read()

        async def main() -> None:
            async with rude.talking(talk):
                with await NBDDisk.connect(rude.uri, reconnect_delay=30) as disk:
                    assert await disk.read(0, 1) == b"x"
                with await NBDDisk.connect(rude.uri) as disk:
                    assert await disk.read(0, 1) == b"x"

        homebound.run(main())

    def test_draining_waits_for_the_delay_and_close_does_not(self, rude: Any):
        async def main() -> None:
            await rude.start(serving(bytearray(SIZE)))
            disk = await NBDDisk.connect(rude.uri, reconnect_delay=0.4)
            other = await NBDDisk.connect(rude.uri, reconnect_delay=1000)
            await rude.stop()
            began = time.monotonic()
            read = asyncio.create_task(disk.read(0, 1))
            forever = asyncio.create_task(other.read(0, 1))
            await asyncio.sleep(0)
            await disk.aclose()
            assert time.monotonic() - began >= 0.4
            assert isinstance((await asyncio.gather(read, return_exceptions=True))[0], OSError)
            other.close()
            with pytest.raises(DiskClosed):
                await forever

        homebound.run(main())

    def test_closed_in_the_middle_of_a_handshake(self, rude: Any):
        """The worker that connects ends, whatever the server does."""

        async def talk(end: Any) -> None:
            if rude.accepted == 1:
                await end.negotiate()
                await end.request()
                return
            await end.greet()
            connecting.set()
            await end.reader.read()

        async def main() -> None:
            async with rude.talking(talk):
                disk = await NBDDisk.connect(rude.uri, reconnect_delay=1000)
                read = asyncio.create_task(disk.read(0, 1))
                await connecting.wait()
                disk.close()
                with pytest.raises(DiskClosed):
                    await read

        connecting = asyncio.Event()
        homebound.run(main())

    def test_it_ends_as_its_home_is_being_closed(
        self, rude: Any, in_thread: Any, monkeypatch: pytest.MonkeyPatch
    ):
        """The context refuses the news already, and the loop is not closed yet."""

        def refuse(*_: object) -> None:
            raise ContextClosed

        async def main() -> None:
            await rude.start(serving(bytearray(SIZE)))
            with await NBDDisk.connect(rude.uri) as disk, monkeypatch.context() as patched:
                loop = asyncio.get_running_loop()
                patched.setattr(loop, "call_soon_threadsafe", refuse, raising=False)
                told = in_thread(disk._client.post, refuse)
                while not told.done():
                    await asyncio.sleep(0.001)
                assert told.result() is None
            await rude.stop()

        homebound.run(main())

    def test_cancelled_while_waiting(self, rude: Any):
        """The task goes on at once; the connection is made for the next one."""

        async def main() -> None:
            memory = bytearray(b"x" * SIZE)
            await rude.start(serving(memory))
            with await NBDDisk.connect(rude.uri, reconnect_delay=1000) as disk:
                await rude.stop()
                read = asyncio.create_task(disk.read(0, 1))
                write = asyncio.create_task(disk.write(0, b"y"))
                await asyncio.sleep(0.05)
                for task in (read, write):
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                await rude.start(serving(memory))
                assert await disk.read(0, 1) == b"x"
            await rude.stop()

        homebound.run(main())


def test_a_stopped_server(tmp_path: Path, program: Any):
    """It accepts, and never answers."""
    (tmp_path / "image").write_bytes(b"x" * SIZE)

    async def main() -> None:
        program.start(
            "qemu-nbd", "-t", "-e", "9", "-f", "raw", "-k", program.socket, tmp_path / "image"
        )
        with await NBDDisk.connect(program.uri(), open_timeout=20, request_timeout=1.5) as disk:
            await homebound.to_worker(program.freeze)
            with pytest.raises(ConnectionLost, match=r"has not answered for 1[.]5 s") as caught:
                await disk.read(0, 1)
            assert caught.value.errno == errno.ETIMEDOUT
            with pytest.raises(
                ConnectionLost, match=r"^(?!.*\[Errno).*no connection to .* has not"
            ):
                await disk.read(0, 1)
            program.process.send_signal(signal.SIGCONT)
            while disk._client.channels[0].state.value != "live":
                await asyncio.sleep(0.01)
            assert await disk.read(0, 1) == b"x"

    homebound.run(main())


def test_what_was_not_late_is_sent_again(rude: Any):
    """Only the request that got no reply in time fails; the next one waits for a connection."""

    async def talk(end: Any) -> None:
        await end.negotiate()
        while rude.accepted == 1:
            await end.request()
        await end.serve(bytearray(b"x" * SIZE))

    async def main() -> None:
        async with rude.talking(talk):
            disk = await NBDDisk.connect(rude.uri, reconnect_delay=30, request_timeout=1.5)
            with disk:
                late = asyncio.create_task(disk.read(0, 1))
                await asyncio.sleep(0.7)
                later = asyncio.create_task(disk.read(1, 1))
                with pytest.raises(ConnectionLost, match="has not answered"):
                    await late
                assert await disk.read(2, 1) == b"x"
                outcome = (await asyncio.gather(later, return_exceptions=True))[0]
                assert outcome == b"x" or isinstance(outcome, ConnectionLost)  # on a slow machine

    homebound.run(main())


def test_a_broken_one_of_several_connections_is_replaced_alone(rude: Any):
    memory = bytearray(b"x" * SIZE)
    ends: list[Any] = []

    async def talk(end: Any) -> None:
        await end.negotiate()
        ends.append(end)
        await end.serve(memory)

    async def main() -> None:
        async with rude.talking(talk):
            with await NBDDisk.connect(rude.uri, connections=3) as disk:
                assert disk.connections == rude.accepted == 3
                ends[1].writer.close()
                while all(each.state.value == "live" for each in disk._client.channels):
                    await asyncio.sleep(0)
                reads = [disk.read(n, 1) for n in range(20)]
                assert await asyncio.gather(*reads) == [b"x"] * 20
                while not all(each.state.value == "live" for each in disk._client.channels):
                    await asyncio.sleep(0)
                assert rude.accepted == 4

    homebound.run(main())


@pytest.mark.parametrize("connections", [1, 4])
def test_a_server_that_is_killed_again_and_again(tmp_path: Path, program: Any, connections: int):
    """Whatever was acknowledged is there, and nothing is stuck."""
    (tmp_path / "image").write_bytes(bytes(SIZE))
    command = ("qemu-nbd", "-t", "-e", "9", "-f", "raw", "-k", program.socket, tmp_path / "image")

    over = False

    async def use(disk: NBDDisk, n: int) -> int:
        done = 0
        while not (over and done):
            data = bytes([done % 251 + 1]) * 4096
            await disk.write(n * 8192, data)
            assert await disk.read(n * 8192, 4096) == data
            done += 1
        return done

    async def main() -> None:
        nonlocal over
        program.start(*command)
        with await NBDDisk.connect(
            program.uri(), connections=connections, open_timeout=20, reconnect_delay=30
        ) as disk:
            users = [asyncio.create_task(use(disk, n)) for n in range(16)]
            for _ in range(5):
                await asyncio.sleep(0.3)
                program.kill()
                await asyncio.sleep(0.05)
                program.start(*command)
            over = True
            assert all(await asyncio.gather(*users))

    homebound.run(main())
