"""READs with structured replies, for clients that negotiate them."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

import homebound
from homebound.block import MemoryDisk
from homebound.nbd import Chosen, ExportInfo, ExportTable, ServerHandshake, TransmissionFlag
from homebound.nbd._protocol.wire import (
    IHAVEOPT,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ChunkType,
    Command,
    CommandFlag,
    Error,
    Option,
    ReplyType,
)
from homebound.nbd._server.outbox import INLINE_MAX
from homebound.testing import settle

READ, WRITE, FLUSH = Command.READ, Command.WRITE, Command.FLUSH
SIZE = 8 << 20
DONE = 1


def replies(peer: Any) -> dict[int, tuple[object, ...]]:
    """Return by cookie: "simple" and the error, or the chunk's type and its contents."""
    data, at = peer.raw(), 0
    found: dict[int, tuple[object, ...]] = {}
    while at < len(data):
        (magic,) = struct.unpack_from(">I", data, at)
        if magic == SIMPLE_REPLY_MAGIC:
            error, cookie = struct.unpack_from(">4xIQ", data, at)
            at += 16
            reply: tuple[object, ...] = ("simple", error)
        else:
            assert magic == STRUCTURED_REPLY_MAGIC
            flags, kind, cookie, length = struct.unpack_from(">4xHHQI", data, at)
            assert flags == DONE
            at += 20 + length
            reply = (ChunkType(kind), data[at - length : at])
        assert cookie not in found
        found[cookie] = reply
    assert at == len(data)
    return found


def data_chunk(offset: int, data: bytes | bytearray) -> tuple[object, ...]:
    return ChunkType.OFFSET_DATA, struct.pack(">Q", offset) + data


def error_chunk(error: int) -> tuple[object, ...]:
    return ChunkType.ERROR, struct.pack(">IH", error, 0)


def test_only_reads_are_answered_in_chunks(in_memory: Any):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            peer = in_memory.peer(disk, structured=True)
            peer.ask(WRITE, 1, 10, payload=b"hello")
            peer.ask(READ, 2, 9, 7)
            peer.ask(READ, 3, 0, 0)
            peer.ask(READ, 4, SIZE, 1)
            peer.ask(READ, 5, 10, 5, flags=CommandFlag.DF | CommandFlag.FUA)
            peer.ask(WRITE, 6, SIZE, payload=b"x")
            peer.ask(FLUSH, 7)
            peer.ask(READ, 8, 0, INLINE_MAX + 1, flags=CommandFlag.DF)
            peer.ask(READ, 9, 0, 4, flags=1 << 15)
            peer.ask(WRITE, 10, 0, payload=b"x", flags=CommandFlag.DF)
            peer.ask(99, 11)
            await settle()
            assert replies(peer) == {
                1: ("simple", 0),
                2: data_chunk(9, b"\0hello\0"),
                3: (ChunkType.NONE, b""),
                4: error_chunk(Error.EINVAL),
                5: data_chunk(10, b"hello"),
                6: ("simple", Error.ENOSPC),
                7: ("simple", 0),
                8: data_chunk(0, await disk.read(0, INLINE_MAX + 1)),
                9: error_chunk(Error.EINVAL),
                10: ("simple", Error.EINVAL),
                11: ("simple", Error.EINVAL),
            }

    homebound.run(main())


def test_waiting_reads_get_chunks_too(in_memory: Any):
    async def main() -> None:
        with in_memory.waiting_disk(SIZE) as disk:
            peer = in_memory.peer(disk, structured=True)
            for cookie, length in enumerate([100, 0, 1 << 20, 7]):
                peer.ask(READ, cookie, 5, length)
            peer.ask(FLUSH, 4)
            await settle()
            disk.go_on(3, OSError("medium error"))
            while disk.waiting:
                disk.go_on()
            await settle()
            assert replies(peer) == {
                0: data_chunk(5, bytes(100)),
                1: (ChunkType.NONE, b""),
                2: data_chunk(5, bytes(1 << 20)),
                3: error_chunk(Error.EIO),
                4: ("simple", 0),
            }

    homebound.run(main())


def test_a_failure_at_once_and_a_refusal_at_the_end(in_memory: Any):
    class Failing(in_memory.waiting_disk):  # type: ignore[misc]
        def try_read_into(self, offset: int, buffer: memoryview) -> bool:
            del buffer
            if offset:
                raise ZeroDivisionError
            return False

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        with Failing(SIZE) as disk:
            peer = in_memory.peer(disk, structured=True)
            peer.ask(READ, 1000, 1, 10)
            peer.send(b"".join(peer.request(READ, n, 0, 1) for n in range(64)))
            peer.send(peer.request(READ, 64, 0, 1) + peer.request(FLUSH, 65))
            await settle()
            peer.connection.stop()
            assert replies(peer) == {
                1000: error_chunk(Error.EIO),
                64: error_chunk(Error.ESHUTDOWN),
                65: ("simple", Error.ESHUTDOWN),
            }
            while disk.waiting:
                disk.go_on()
                await settle()
            assert len(replies(peer)) == 64

    homebound.run(main())


HAS_FLAGS = TransmissionFlag.HAS_FLAGS
EXPORTS = ExportTable([ExportInfo("", 512, HAS_FLAGS)])


def option(number: int, data: bytes = b"") -> bytes:
    return struct.pack(">QII", IHAVEOPT, number, len(data)) + data


def first_reply(data: bytes) -> int:
    return int(struct.unpack_from(">12xI", data)[0])


@pytest.mark.parametrize("agree", [False, True])
@pytest.mark.parametrize("choose", [Option.GO, Option.EXPORT_NAME])
def test_negotiating_sets_df_in_the_flags_of_the_export(choose: int, *, agree: bool):
    handshake = ServerHandshake(EXPORTS)
    handshake.receive(b"\0\0\0\3")
    if agree:
        for _ in range(2):  # once more does no harm
            handshake.receive(option(Option.STRUCTURED_REPLY))
            event: Any = handshake.next_event()
            assert first_reply(event.data) == ReplyType.ACK
    handshake.receive(option(choose, b"\0\0\0\0\0\0" if choose == Option.GO else b""))
    event = handshake.next_event()
    assert isinstance(event, Chosen)
    assert event.structured is agree
    at = 30 if choose == Option.GO else 8
    (flags,) = struct.unpack_from(">H", event.data, at)
    assert flags == (HAS_FLAGS | TransmissionFlag.SEND_DF if agree else HAS_FLAGS)


def test_with_data_it_is_invalid_and_not_agreed():
    handshake = ServerHandshake(EXPORTS)
    handshake.receive(b"\0\0\0\3" + option(Option.STRUCTURED_REPLY, b"x"))
    event: Any = handshake.next_event()
    assert first_reply(event.data) == ReplyType.ERR_INVALID
    handshake.receive(option(Option.GO, b"\0\0\0\0\0\0"))
    event = handshake.next_event()
    assert isinstance(event, Chosen)
    assert not event.structured
