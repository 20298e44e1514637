"""The transmission phase over a transport in memory."""

from __future__ import annotations

import asyncio
import errno
import struct
from typing import Any

import pytest

import homebound
from homebound.block import MemoryDisk
from homebound.nbd._protocol.wire import Command, CommandFlag, Error
from homebound.nbd._server.dispatcher import MAX_REFUSED
from homebound.nbd._server.in_flight import MAX_STARTED
from homebound.testing import settle

SIZE = 1 << 20
READ, WRITE, FLUSH, DISC = Command.READ, Command.WRITE, Command.FLUSH, Command.DISC
CACHE = Command.CACHE
TRIM, ZERO = Command.TRIM, Command.WRITE_ZEROES
FUA = int(CommandFlag.FUA)


def test_data_in_memory_is_answered_before_the_callback_returns(in_memory: Any):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            peer = in_memory.peer(disk)
            peer.ask(WRITE, 1, 4096, payload=b"hello")
            peer.ask(READ, 2, 4095, 7)
            assert peer.replies({2: 7}) == [(1, 0, b""), (2, 0, b"\0hello\0")]

    homebound.run(main())


def test_replies_to_requests_received_together_are_sent_together(in_memory: Any):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            peer = in_memory.peer(disk)
            peer.send(b"".join(peer.request(READ, n, n * 512, 512) for n in range(32)))
            assert peer.transport.writes == 1
            replies = peer.replies(dict.fromkeys(range(32), 512))
            assert replies == [(n, 0, bytes(512)) for n in range(32)]

    homebound.run(main())


def test_errors_go_back_and_the_connection_goes_on(in_memory: Any):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            peer = in_memory.peer(disk)
            peer.ask(READ, 1, SIZE - 1, 2)
            peer.ask(WRITE, 2, SIZE - 1, payload=b"ab")
            peer.ask(READ, 3, 0, 0xFFFFFFFF)
            peer.ask(99, 4)
            peer.ask(READ, 5, 0, 16, flags=1 << 7)
            peer.ask(WRITE, 6, 0, payload=b"ab", flags=1 << 1)
            peer.ask(TRIM, 7, SIZE, 1)
            peer.ask(ZERO, 8, SIZE, 1)
            peer.ask(READ, 9, SIZE, 0)
            assert [reply[:2] for reply in peer.replies()] == [
                (1, Error.EINVAL),
                (2, Error.ENOSPC),
                (3, Error.EINVAL),
                (4, Error.EINVAL),
                (5, Error.EINVAL),
                (6, Error.EINVAL),
                (7, Error.EINVAL),
                (8, Error.ENOSPC),
                (9, 0),
            ]
            assert peer.lane.errors == 8
            assert await disk.read(0, 2) == bytes(2)

    homebound.run(main())


@pytest.mark.parametrize("command", [WRITE, TRIM, ZERO])
def test_a_read_only_export_is_not_changed(in_memory: Any, command: int):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            peer = in_memory.peer(disk, read_only=True)
            payload = b"data" if command == WRITE else b""
            peer.ask(command, 1, 0, 4, payload)
            peer.ask(command, 2, 0, 4, payload, flags=FUA)
            peer.ask(READ, 3, 0, 4)
            assert peer.replies({3: 4}) == [
                (1, Error.EPERM, b""),
                (2, Error.EPERM, b""),
                (3, 0, bytes(4)),
            ]

    homebound.run(main())


def test_waiting_requests_are_answered_as_they_end_in_any_order(in_memory: Any):
    async def main() -> None:
        with in_memory.waiting_disk(SIZE) as disk:
            peer = in_memory.peer(disk)
            peer.ask(WRITE, 1, 10, payload=b"abc", flags=FUA)
            peer.ask(READ, 2, 11, 2)
            peer.ask(TRIM, 3, 1024, 512)
            peer.ask(ZERO, 4, 512, 512, flags=CommandFlag.NO_HOLE)
            peer.ask(FLUSH, 5)
            peer.ask(READ, 6, SIZE, 1)  # an error need not wait
            await settle()
            assert disk.asked == [
                ("write", 10, b"abc", True),
                ("read", 11, 2),
                ("trim", 1024, 512, False),
                ("zero", 512, 512, False, True),
                ("flush",),
            ]
            assert peer.replies() == [(6, Error.EINVAL, b"")]
            disk.go_on(4)
            disk.go_on(0)
            await settle()
            disk.go_on(0)
            disk.go_on(1, OSError(errno.ENOSPC, "full"))
            await settle()
            assert peer.replies({2: 2}) == [
                (5, 0, b""),
                (1, 0, b""),
                (2, 0, b"bc"),
                (4, Error.ENOSPC, b""),
            ]
            disk.go_on()
            await settle()
            assert peer.replies() == [(3, 0, b"")]

    homebound.run(main())


def test_the_payload_of_a_waiting_write_stays_as_it_was_sent(in_memory: Any):
    """Keep a payload while the receive buffer is reused."""

    async def main() -> None:
        with in_memory.waiting_disk(SIZE) as disk:
            peer = in_memory.peer(disk)
            for n in range(8):
                peer.ask(WRITE, n, n * 4, payload=bytes([n]) * 4)
            await settle()
            while disk.waiting:
                disk.go_on()
            await settle()
            data = bytearray(32)
            MemoryDisk.try_read_into(disk, 0, memoryview(data))
            assert data == b"".join(bytes([n]) * 4 for n in range(8))

    homebound.run(main())


def test_without_stable_storage_flush_and_fua_are_done_at_once(in_memory: Any):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            peer = in_memory.peer(disk)
            peer.ask(WRITE, 1, 0, payload=b"ab", flags=FUA)
            peer.ask(FLUSH, 2)
            peer.ask(READ, 3, 0, 2, flags=FUA)
            assert peer.replies({3: 2}) == [(1, 0, b""), (2, 0, b""), (3, 0, b"ab")]

    homebound.run(main())


@pytest.mark.parametrize("reads_ahead", [False, True])
def test_a_hint_to_a_disk_that_cannot_read_ahead_is_answered_at_once(
    in_memory: Any,
    reads_ahead: bool,  # noqa: FBT001
):
    hints = []

    class Ahead(MemoryDisk):
        async def cache(self, offset: int, length: int) -> None:
            hints.append((offset, length))

    async def main() -> None:
        with (Ahead if reads_ahead else MemoryDisk)(SIZE) as disk:
            peer = in_memory.peer(disk)
            peer.ask(CACHE, 1, 0, 2)
            replies = peer.replies()
            await settle()
            assert replies + peer.replies() == [(1, 0, b"")]
            assert (replies == [], hints) == (reads_ahead, [(0, 2)] * reads_ahead)

    homebound.run(main())


class TestEnding:
    def test_disconnect_waits_for_what_is_in_flight(self, in_memory: Any):
        async def main() -> None:
            with in_memory.waiting_disk(SIZE) as disk:
                peer = in_memory.peer(disk)
                peer.send(peer.request(FLUSH, 1) + peer.request(DISC) + peer.request(READ, 2))
                await settle()
                assert not peer.transport.closing
                assert not peer.transport.receiving
                disk.go_on()
                await settle()
                assert peer.replies() == [(1, 0, b"")]
                assert peer.transport.closing
                peer.lose()
                assert not peer.lane.members

        homebound.run(main())

    def test_end_of_file_waits_for_what_is_in_flight(self, in_memory: Any):
        async def main() -> None:
            with in_memory.waiting_disk(SIZE) as disk:
                peer = in_memory.peer(disk)
                peer.send(peer.request(FLUSH, 1) + peer.request(READ, 2)[:27])
                assert peer.connection.eof_received()  # the transport stays open for the reply
                await settle()
                assert not peer.transport.closing
                disk.go_on()
                await settle()
                assert peer.replies() == [(1, 0, b"")]
                assert peer.transport.closing

        homebound.run(main())

    def test_garbage_ends_the_connection_after_the_requests_before_it(self, in_memory: Any):
        async def main() -> None:
            with in_memory.waiting_disk(SIZE) as disk:
                peer = in_memory.peer(disk)
                peer.send(peer.request(FLUSH, 1) + b"GET / HTTP/1.1\r\n" * 4)
                await settle()
                assert not peer.transport.closing
                disk.go_on()
                await settle()
                assert peer.replies() == [(1, 0, b"")]
                assert peer.transport.closing

        homebound.run(main())

    @pytest.mark.parametrize("length", [0, 5, 3 << 20, 0xFFFFFFFF])
    def test_data_after_disconnect_is_ignored(self, in_memory: Any, length: int):
        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                for end in (b"garbage!" * 4, in_memory.peer.request(DISC)):
                    peer = in_memory.peer(disk)
                    after = struct.pack(">QQQI", 1, 2, 3, length) + bytes(100)
                    peer.send(peer.request(READ, 1, 0, 4) + end + after)
                    assert peer.replies({1: 4}) == [(1, 0, bytes(4))]
                    assert peer.transport.closing
                    assert len(peer.lane.pool._free) == 2  # both buffers are back

        homebound.run(main())

    def test_a_lost_connection_is_a_member_until_its_requests_end(self, in_memory: Any):
        async def main() -> None:
            with in_memory.waiting_disk(SIZE) as disk:
                peer = in_memory.peer(disk)
                peer.ask(WRITE, 1, 0, payload=b"half done")
                await settle()
                peer.lose()
                assert peer.lane.members
                disk.go_on()
                await settle()
                assert not peer.lane.members
                assert peer.lane.bytes_written == 9

        homebound.run(main())

    def test_a_lost_connection_asks_nothing_more(self, in_memory: Any):
        """What has begun is finished, and so are changes; the client will not hear the rest."""

        async def main() -> None:
            with in_memory.waiting_disk(SIZE) as disk:
                peer = in_memory.peer(disk)
                for n in range(40):
                    peer.ask(READ, n, n, 1)
                peer.ask(WRITE, 40, 0, payload=b"data")
                peer.ask(FLUSH, 41)
                await disk.until_waiting(MAX_STARTED)
                peer.lose()
                while peer.lane.members:
                    disk.go_on()
                    await settle()
                reads = [("read", n, 1) for n in range(MAX_STARTED)]
                assert disk.asked == [*reads, ("write", 0, b"data", False), ("flush",)]
                assert peer.lane.ended == 1

        homebound.run(main())

    @pytest.mark.parametrize("sent", [1, 27, 28, 29, 5000, 3 << 20, 5 << 20])
    def test_a_client_may_vanish_at_any_byte(self, in_memory: Any, sent: int):
        async def main() -> None:
            with MemoryDisk(32 << 20) as disk:
                peer = in_memory.peer(disk)
                peer.send(peer.request(WRITE, 1, 0, payload=bytes(6 << 20))[:sent])
                peer.lose()
                assert not peer.lane.members
                assert peer.lane.requests == 0

        homebound.run(main())

    def test_stop_refuses_waiting_requests_and_finishes_the_rest(self, in_memory: Any):
        async def main() -> None:
            with in_memory.waiting_disk(SIZE) as disk:
                peer = in_memory.peer(disk)
                peer.send(b"".join(peer.request(READ, n, 0, 1) for n in range(70)))
                await settle()
                peer.connection.stop()
                refused = peer.replies()
                assert refused == [(n, Error.ESHUTDOWN, b"") for n in range(64, 70)]
                assert not peer.transport.closing
                while disk.waiting:
                    disk.go_on()
                    await settle()
                assert peer.replies(dict.fromkeys(range(64), 1)) == [
                    (n, 0, b"\0") for n in range(64)
                ]
                assert peer.transport.closing

        homebound.run(main())

    def test_stop_with_nothing_to_do_hangs_up(self, in_memory: Any):
        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                peer = in_memory.peer(disk)
                peer.connection.stop()
                assert peer.transport.closing

        homebound.run(main())

    def test_abort_stops_waiting_for_the_disk(self, in_memory: Any):
        async def main() -> None:
            with in_memory.waiting_disk(SIZE) as disk:
                peer = in_memory.peer(disk)
                peer.ask(FLUSH, 1)
                await settle()
                peer.connection.abort()
                assert peer.transport.aborted
                peer.lose()
                await settle()
                assert not peer.lane.members

        homebound.run(main())


def test_a_disk_that_raises_nonsense_is_reported_and_survived(in_memory: Any):
    class Broken(MemoryDisk):
        def try_read_into(self, offset: int, buffer: memoryview) -> bool:
            del offset, buffer
            raise ZeroDivisionError("at once")

        async def flush(self) -> None:
            raise ZeroDivisionError("later")

        volatile = False

    async def main() -> None:
        reported: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(str(context["exception"])))
        with Broken(SIZE) as disk:
            peer = in_memory.peer(disk)
            peer.ask(READ, 1, 0, 16)
            peer.ask(FLUSH, 2)
            await settle()
            peer.ask(WRITE, 3, 0, payload=b"x")
            assert peer.replies() == [(1, Error.EIO, b""), (2, Error.EIO, b""), (3, 0, b"")]
            assert reported == ["at once", "later"]

    homebound.run(main())


def test_cookies_are_echoed_untouched(in_memory: Any):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            peer = in_memory.peer(disk)
            cookie = 0xFEDCBA9876543210
            peer.ask(READ, cookie, 0, 4)
            assert peer.raw() == struct.pack(">IIQ4x", 0x67446698, 0, cookie)

    homebound.run(main())


def test_a_stop_refuses_few_of_the_requests_of_a_flood(in_memory: Any):
    """A hundred thousand would hold the home up for a tenth of a second, times the clients."""

    async def main() -> None:
        with in_memory.waiting_disk(1 << 20) as disk:
            peer = in_memory.peer(disk)
            peer.send(peer.request(READ, 7, 0, 4) * (64 + 3 * MAX_REFUSED))
            peer.connection.stop()
            assert len(peer.replies({7: 4})) == MAX_REFUSED
            while not peer.transport.closing:
                while disk.waiting:
                    disk.go_on()
                await asyncio.sleep(0)
            assert len(peer.replies({7: 4})) == 64

    homebound.run(main())
