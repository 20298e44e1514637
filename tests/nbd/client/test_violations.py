"""What a server may say wrong, in the handshake and in replies: an error, never wrong data."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import struct
import tracemalloc
from typing import Any

import pytest

import homebound
from homebound.block import DiskError
from homebound.nbd import (
    ConnectError,
    ConnectionLost,
    NBDDisk,
    RemoteProtocolError,
    ServerViolation,
)
from homebound.nbd._protocol.wire import Option, ReplyType

GO, LIST = Option.GO, Option.LIST


def handshakes(say: Any) -> dict[str, tuple[dict[int, bytes], str]]:
    """What a server answers to options, and a part of the error that tells of it."""
    info, reply = say.info_export, say.option_reply
    ack = reply(GO, ReplyType.ACK)

    def go(*infos: bytes) -> dict[int, bytes]:
        return {GO: b"".join(reply(GO, ReplyType.INFO, each) for each in infos) + ack}

    def sizes(*numbers: int) -> dict[int, bytes]:
        return go(info(), struct.pack(">HIII", 3, *numbers))

    endless = reply(GO, ReplyType.INFO, struct.pack(">H", 99)) * 101
    return {
        "size 2^63": (go(info(size=1 << 63)), "which no disk has"),
        "flags without HAS_FLAGS": (go(info(flags=2)), "invalid ones"),
        "a block size of 0": (sizes(0, 4096, 1 << 25), "invalid block sizes"),
        "a block size of 3": (sizes(3, 4096, 1 << 25), "invalid block sizes"),
        "a preferred size of 0": (sizes(1, 0, 1 << 25), "invalid block sizes"),
        "a minimum above the limit": (sizes(1 << 17, 1 << 17, 1 << 25), "invalid block sizes"),
        "a maximum below the minimum": (sizes(512, 4096, 256), "invalid block sizes"),
        "a reply for another option": ({GO: reply(LIST, ReplyType.ACK)}, "LIST was answered"),
        "a reply without the magic": ({GO: bytes(20)}, "begins with"),
        "a string of 4 GiB": ({GO: reply(GO, ReplyType.INFO, length=0xFFFFFFFF)}, "4294967295 b"),
        "an error of 64 KiB": ({GO: reply(GO, ReplyType.ERR_POLICY, length=1 << 16)}, "65536 b"),
        "INFO without EXPORT": (go(), "without the export's size"),
        "INFO_EXPORT too short": (go(info()[:-1]), "has 11 bytes"),
        "INFO_BLOCK_SIZE too long": (go(info(), bytes(1) + b"\3" + bytes(13)), "has 15 bytes"),
        "INFO without end": ({GO: endless}, "does not end"),
        "ACK with data": ({GO: reply(GO, ReplyType.INFO, info()) + reply(GO, 1, b"x")}, "1 bytes"),
        "a reply of another type": ({GO: reply(GO, ReplyType.SERVER)}, "a reply of type 2"),
        "a name that is no UTF-8": (go(info(), b"\0\1\xff"), "no UTF-8"),
    }


HANDSHAKES = [
    "size 2^63",
    "flags without HAS_FLAGS",
    "a block size of 0",
    "a block size of 3",
    "a preferred size of 0",
    "a minimum above the limit",
    "a maximum below the minimum",
    "a reply for another option",
    "a reply without the magic",
    "a string of 4 GiB",
    "an error of 64 KiB",
    "INFO without EXPORT",
    "INFO_EXPORT too short",
    "INFO_BLOCK_SIZE too long",
    "INFO without end",
    "ACK with data",
    "a reply of another type",
    "a name that is no UTF-8",
]


@pytest.mark.parametrize("case", HANDSHAKES)
def test_a_wrong_answer_ends_the_handshake(rude: Any, say: Any, case: str):
    answers, text = handshakes(say)[case]

    async def talk(end: Any) -> None:
        await end.negotiate(answers)
        await end.reader.read()

    async def main() -> None:
        async with rude.talking(talk):
            with pytest.raises(ServerViolation, match="cannot connect to nbd") as caught:
                await NBDDisk.connect(rude.uri)
            assert text in str(caught.value)
            assert isinstance(caught.value, (RemoteProtocolError, OSError))
            assert caught.value.errno == errno.EPROTO

    assert set(HANDSHAKES) == set(handshakes(say))
    homebound.run(main())


@pytest.mark.parametrize(
    ("greeting", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "no NBD server"),
        (b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53\0\0", "only the old handshake"),
        (b"NBDMAGIC" + bytes(10), "no NBD server"),
    ],
)
def test_a_wrong_greeting(rude: Any, greeting: bytes, text: str):
    async def talk(end: Any) -> None:
        await end.greet(greeting)

    async def main() -> None:
        async with rude.talking(talk):
            with pytest.raises(ServerViolation, match=text):
                await NBDDisk.connect(rude.uri)

    homebound.run(main())


def test_endless_contexts_take_little_memory(rude: Any, say: Any):
    name = struct.pack(">I", 1) + b"x" * 4000

    async def talk(end: Any) -> None:
        await end.greet()
        number, _ = await end.option()
        end.send(say.option_reply(number, ReplyType.ACK))
        number, _ = await end.option()
        while True:
            end.send(say.option_reply(number, ReplyType.META_CONTEXT, name) * 10)
            await end.writer.drain()

    async def main() -> None:
        async with rude.talking(talk):
            tracemalloc.start()
            try:
                with pytest.raises(ServerViolation, match="does not end"):
                    await NBDDisk.connect(rude.uri)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 64 << 20

    homebound.run(main())


@pytest.mark.parametrize("says", [b"", b"NBDMAGICIHAVEOPT\0\3"])
def test_a_silent_server_is_given_up(rude: Any, says: bytes):
    async def talk(end: Any) -> None:
        end.send(says)
        await end.reader.read()

    async def main() -> None:
        async with rude.talking(talk):
            with pytest.raises(ConnectError, match="does not answer in time") as caught:
                await NBDDisk.connect(rude.uri, open_timeout=0.3)
            assert caught.value.errno == errno.ETIMEDOUT

    homebound.run(main())


def test_a_refused_export_says_why(rude: Any, say: Any):
    refusal = say.option_reply(GO, ReplyType.ERR_UNKNOWN, b"no \x1b[31msuch\nexport")

    async def talk(end: Any) -> None:
        await end.negotiate({GO: refusal})

    async def main() -> None:
        async with rude.talking(talk):
            with pytest.raises(ConnectError, match=r"ERR_UNKNOWN: no  .31msuch export") as caught:
                await NBDDisk.connect(rude.uri)
            assert caught.value.errno == errno.ENOENT
            assert not isinstance(caught.value, ServerViolation)

    homebound.run(main())


# Replies.

READ, AT, LENGTH = 0, 4096, 1000
EXTENT = struct.pack(">II", 500, 0)


def replies(say: Any, cookie: int) -> dict[str, bytes]:
    """Wrong replies to a READ of 1000 bytes at 4096, structured ones."""
    data, chunk = say.data_chunk, say.chunk
    whole = data(cookie, AT, b"x" * LENGTH)
    error = struct.pack(">IH", 5, 0)
    return {
        "unknown cookie": data(cookie + 7, AT, b"x" * LENGTH),
        "DONE twice": whole + whole,
        "chunk before": data(cookie, AT - 1, b"xx", done=False),
        "chunk beyond": data(cookie, AT + LENGTH - 1, b"xx", done=False),
        "chunk of 4 GiB": chunk(cookie, 1, struct.pack(">Q", AT), length=0xFFFFFFFF),
        "empty chunk": data(cookie, AT, b"", done=False),
        "overlap": data(cookie, AT, b"x" * 500, done=False) + data(cookie, AT + 499, b"x" * 501),
        "the same twice": data(cookie, AT, b"x" * 5, done=False) * 2,
        "incomplete": data(cookie, AT, b"x" * 999),
        "incomplete, then NONE": data(cookie, AT, b"x" * 999, done=False) + chunk(cookie, 0),
        "a hole in the middle": data(cookie, AT, b"x", done=False)
        + data(cookie, AT + 2, b"x" * 998),
        "a hole beyond": chunk(cookie, 2, struct.pack(">QI", AT, 1001)),
        "a hole of nothing": chunk(cookie, 2, struct.pack(">QI", AT, 0)),
        "a hole too short": chunk(cookie, 2, bytes(11)),
        "a simple reply": say.simple(cookie, 0, b"x" * LENGTH),
        "a simple error": say.simple(cookie, 5),
        "NONE with data": chunk(cookie, 0, b"x"),
        "NONE that is not the last": chunk(cookie, 0, done=False),
        "an unknown type": chunk(cookie, 77),
        "extents": chunk(cookie, 5, struct.pack(">I", 1) + EXTENT),
        "an error of 64 KiB": chunk(cookie, 1 << 15 | 1, length=6 + (64 << 10)),
        "an error text beyond": chunk(cookie, 1 << 15 | 1, struct.pack(">IH", 5, 10) + b"x"),
        "an error of 0": chunk(cookie, 1 << 15 | 1, struct.pack(">IH", 0, 0)),
        "an error too short": chunk(cookie, 1 << 15 | 1, b"xxx"),
        "an error outside": chunk(cookie, 1 << 15 | 2, error + struct.pack(">Q", 0)),
        "no magic": b"GET / HTTP/1.1\r\n" * 4,
    }


REPLIES = [
    "unknown cookie",
    "DONE twice",
    "chunk before",
    "chunk beyond",
    "chunk of 4 GiB",
    "empty chunk",
    "overlap",
    "the same twice",
    "incomplete",
    "incomplete, then NONE",
    "a hole in the middle",
    "a hole beyond",
    "a hole of nothing",
    "a hole too short",
    "a simple reply",
    "a simple error",
    "NONE with data",
    "NONE that is not the last",
    "an unknown type",
    "extents",
    "an error of 64 KiB",
    "an error text beyond",
    "an error of 0",
    "an error too short",
    "an error outside",
    "no magic",
]


@pytest.mark.parametrize("case", REPLIES)
def test_a_wrong_reply_ends_the_connection(rude: Any, say: Any, case: str):
    """The request fails, and so does another one in flight, unless it was answered before."""

    async def talk(end: Any) -> None:
        await end.negotiate(structured=True)
        _, first, *_ = await end.request()
        _, second, *_ = await end.request()
        end.send(replies(say, first)[case])
        assert await end.reader.read() == b""  # the client disconnects
        del second

    async def main() -> None:
        async with rude.talking(talk):
            with await NBDDisk.connect(rude.uri) as disk:
                reads = [asyncio.create_task(disk.read(AT, LENGTH)) for _ in range(2)]
                outcomes = await asyncio.gather(*reads, return_exceptions=True)
        if case == "DONE twice":
            assert outcomes[0] == b"x" * LENGTH
            del outcomes[0]
        for outcome in outcomes:
            assert isinstance(outcome, ConnectionLost)
            assert isinstance(outcome.__cause__, RemoteProtocolError)

    assert set(REPLIES) == set(replies(say, 1))
    homebound.run(main())


@pytest.mark.parametrize("case", REPLIES)
def test_after_a_wrong_reply_the_request_is_made_again(rude: Any, say: Any, case: str):
    async def talk(end: Any) -> None:
        await end.negotiate(structured=True)
        _, cookie, *_ = await end.request()
        if rude.accepted == 1:
            end.send(replies(say, cookie)[case])
            await end.reader.read()
        else:
            end.send(say.data_chunk(cookie, AT, b"y" * LENGTH))
            await end.request()

    async def main() -> None:
        async with rude.talking(talk):
            with await NBDDisk.connect(rude.uri, reconnect_delay=20) as disk:
                found = await disk.read(AT, LENGTH)
                assert found == (b"x" if case == "DONE twice" else b"y") * LENGTH

    homebound.run(main())


def statuses(say: Any, cookie: int) -> dict[str, bytes]:
    def extents(number: int, *all_of_them: tuple[int, int], length: int | None = None) -> bytes:
        body = struct.pack(">I", number) + b"".join(struct.pack(">II", *e) for e in all_of_them)
        return bytes(say.chunk(cookie, 5, body, length=length))

    return {
        "no extent": extents(7),
        "half an extent": extents(7, (500, 0), length=11) + bytes(1),
        "an empty extent": extents(7, (0, 0), (500, 0)),
        "an extent that begins beyond": extents(7, (LENGTH, 0), (1, 0)),
        "too many": extents(7, length=4 + 8 * (2**20 + 1)),
        "another context": extents(8, (500, 0)),
        "the same context twice": extents(7, (500, 0)).replace(b"\0\1\0\5", b"\0\0\0\5") * 2,
        "nothing": bytes(say.chunk(cookie, 0)),
        "a simple reply": bytes(say.simple(cookie)),
        "data": bytes(say.data_chunk(cookie, AT, b"x")),
    }


STATUSES = [
    "no extent",
    "half an extent",
    "an empty extent",
    "an extent that begins beyond",
    "too many",
    "another context",
    "the same context twice",
    "nothing",
    "a simple reply",
    "data",
]


@pytest.mark.parametrize("case", STATUSES)
def test_a_wrong_status_ends_the_connection(rude: Any, say: Any, case: str):
    async def talk(end: Any) -> None:
        await end.negotiate(structured=True, contexts={7: b"base:allocation"})
        _, cookie, *_ = await end.request()
        end.send(statuses(say, cookie)[case])
        await end.reader.read()

    async def main() -> None:
        async with rude.talking(talk):
            with await NBDDisk.connect(rude.uri) as disk, pytest.raises(ConnectionLost):
                await disk.block_status(AT, LENGTH)

    assert set(STATUSES) == set(statuses(say, 1))
    homebound.run(main())


@pytest.mark.parametrize("kind", [1 << 15 | 1, 0xFFFF])
def test_errors_without_end_end_the_connection(rude: Any, say: Any, kind: int):
    async def talk(end: Any) -> None:
        await end.negotiate(structured=True)
        _, cookie, *_ = await end.request()
        error = say.chunk(cookie, kind, struct.pack(">IH", 5, 0), done=False)
        with contextlib.suppress(ConnectionError):  # the client disconnects
            while True:
                end.send(error * 1000)
                await end.writer.drain()

    async def main() -> None:
        async with rude.talking(talk):
            with (
                await NBDDisk.connect(rude.uri) as disk,
                pytest.raises(ConnectionLost, match="does not end: 65537 errors came"),
            ):
                await disk.read(AT, LENGTH)

    homebound.run(main())


def test_an_error_in_one_request_is_of_that_one(rude: Any, say: Any):
    async def talk(end: Any) -> None:
        await end.negotiate(structured=True)
        requests = [await end.request() for _ in range(64)]
        for _, cookie, offset, length, _ in reversed(requests):
            if offset == 7 * LENGTH:
                body = struct.pack(">IH", 5, 7) + b"sector?" + struct.pack(">Q", offset + 10)
                end.send(say.data_chunk(cookie, offset, b"x" * 10, done=False))
                end.send(say.chunk(cookie, 1 << 15 | 2, body))
            else:
                half = length // 2
                end.send(say.data_chunk(cookie, offset + half, b"b" * half, done=False))
                end.send(say.data_chunk(cookie, offset, b"a" * half))
        await end.reader.read()

    async def main() -> None:
        async with rude.talking(talk):
            with await NBDDisk.connect(rude.uri) as disk:
                reads = [disk.read(n * LENGTH, LENGTH) for n in range(64)]
                outcomes = await asyncio.gather(*reads, return_exceptions=True)
        error = outcomes.pop(7)
        assert isinstance(error, DiskError)
        assert error.errno == errno.EIO
        assert "READ of 1000 bytes at 7000" in str(error)
        assert "sector? (at 7010)" in str(error)
        assert outcomes == [b"a" * 500 + b"b" * 500] * 63

    homebound.run(main())
