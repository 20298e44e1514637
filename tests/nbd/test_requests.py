"""The parser of requests, however the stream is split."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homebound.nbd import RemoteProtocolError
from homebound.nbd._protocol.buffers import BufferPool
from homebound.nbd._protocol.requests import MAX_SKIP, RECEIVE_MAX, RequestStream
from homebound.nbd._protocol.wire import MAX_PAYLOAD, Command, request_head
from homebound.nbd._server.budget import Account, Budget

SMALL = 512  # bytes of a window, so that everything happens at its edges


@dataclass(frozen=True)
class Asked:
    head: int
    cookie: int
    offset: int
    length: int
    payload: bytes = b""

    @property
    def wire(self) -> bytes:
        return struct.pack(">QQQI", self.head, self.cookie, self.offset, self.length) + self.payload


u64 = st.integers(0, 2**64 - 1)
others = st.builds(
    Asked,
    st.builds(request_head, st.sampled_from([0, 2, 3, 4, 5, 6, 7, 99]), st.integers(0, 0xFFFF)),
    u64,
    u64,
    st.integers(0, 2**32 - 1),
)
sizes = st.one_of(st.integers(0, 64), st.integers(0, 3 * SMALL))


@st.composite
def writes(draw: st.DrawFn) -> Asked:
    payload = draw(st.binary(min_size=8, max_size=8)) * (draw(sizes) // 8)
    head = request_head(Command.WRITE, draw(st.integers(0, 0xFFFF)))
    return Asked(head, draw(u64), draw(u64), len(payload), payload)


def account() -> Account:
    """Make an account that never waits."""
    loop: Any = None
    return Account(Budget(1 << 62), loop, lambda: None)


class Reader:
    """Feeds a stream and consumes everything."""

    def __init__(self, pool: BufferPool | None = None) -> None:
        self.stream = RequestStream(pool or BufferPool(SMALL), account())
        self.found: list[Asked] = []

    def feed(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            buffer = self.stream.get_buffer()
            assert len(buffer)
            taken, rest = rest[: len(buffer)], rest[len(buffer) :]
            buffer[: len(taken)] = taken
            self.stream.received(len(taken))
            self.take()

    def take(self, limit: int = 64) -> None:
        stream = self.stream
        while batch := stream.peek(limit):
            assert stream.peek(limit) == batch  # a look changes nothing
            assert len(batch) <= limit
            for head, cookie, offset, length, end in batch:
                payload = b""
                if head & 0xFFFF == Command.WRITE and length <= MAX_PAYLOAD:
                    payload = bytes(stream.payload(length, end))
                    assert stream.keep_payload(length, end) == payload
                self.found.append(Asked(head, cookie, offset, length, payload))
                stream.consume(end)
        assert not stream.settle(stalled=False)


@given(
    asked=st.lists(st.one_of(others, writes()), max_size=12),
    cuts=st.lists(st.integers(1, 2 * SMALL), min_size=1),
)
def test_any_splitting_gives_the_same_requests(asked: list[Asked], cuts: list[int]):
    wire = b"".join(request.wire for request in asked)
    reader = Reader()
    while wire:
        for cut in cuts:
            reader.feed(wire[:cut])
            wire = wire[cut:]
    assert reader.found == asked
    assert reader.stream.empty
    assert len(reader.stream._pool._free) == (1 if asked else 0)  # it has given its buffer back


@given(
    asked=st.lists(st.one_of(others, writes()), min_size=1, max_size=12),
    takes=st.lists(st.integers(0, 3), min_size=1, max_size=30),
)
def test_a_stalled_stream_loses_nothing(asked: list[Asked], takes: list[int]):
    """Consume a few requests at a time; receiving stops while there is no room."""
    wire = b"".join(request.wire for request in asked)
    stream = RequestStream(BufferPool(SMALL), account())
    found: list[Asked] = []
    full = False
    takes = [*takes, 99]
    while wire or len(found) < len(asked):
        if wire and not full:
            buffer = stream.get_buffer()
            size = min(len(buffer), len(wire))
            assert size
            buffer[:size] = wire[:size]
            stream.received(size)
            wire = wire[size:]
        count = takes.pop(0)
        takes.append(count)
        batch = stream.peek(64)
        for head, cookie, offset, length, end in batch[:count]:
            is_write = head & 0xFFFF == Command.WRITE
            payload = bytes(stream.payload(length, end)) if is_write else b""
            found.append(Asked(head, cookie, offset, length, payload))
            stream.consume(end)
        full = stream.settle(stalled=count < len(batch))
    assert found == asked


def test_idle_connections_hold_no_buffer():
    pool = BufferPool(SMALL)
    readers = [Reader(pool) for _ in range(50)]
    for reader in readers:
        reader.feed(Asked(request_head(Command.READ), 1, 2, 3).wire)
        reader.feed(Asked(request_head(Command.READ), 1, 2, 3).wire[:5])  # and a little more
        assert reader.stream._carry
    assert len(pool._free) == 1


def test_a_large_payload_takes_memory_as_it_comes():
    pool = BufferPool(SMALL)
    stream = RequestStream(pool, account())
    reader = Reader(pool)
    reader.stream = stream
    asked = Asked(request_head(Command.WRITE), 1, 2, MAX_PAYLOAD, bytes(MAX_PAYLOAD))
    reader.feed(asked.wire[:100])
    assert stream._big is not None
    assert len(stream._big) == MAX_PAYLOAD
    assert stream.get_buffer().obj is stream._big.obj  # it is received in place
    reader.feed(asked.wire[100:])
    assert reader.found == [asked]


@pytest.mark.parametrize("size", [MAX_PAYLOAD + 1, MAX_SKIP])
def test_a_payload_above_the_maximum_is_skipped(size: int):
    reader = Reader()
    after = Asked(request_head(Command.FLUSH), 7, 0, 0)
    before = Asked(request_head(Command.READ), 6, 0, 0)
    refused = Asked(request_head(Command.WRITE), 5, 0, size)
    reader.feed(before.wire + refused.wire[:20])
    reader.feed(refused.wire[20:])
    assert reader.found == [before, refused]  # it hears of it before it has sent it all
    piece = bytes(1 << 20)
    for sent in range(0, size, len(piece)):
        reader.feed(piece[: size - sent])
    reader.feed(after.wire)
    assert reader.found == [before, refused, after]


@pytest.mark.parametrize(
    "bad",
    [
        bytes(28),
        struct.pack(">QQQI", 0x25609514 << 32, 1, 2, 3),
        struct.pack(">QQQI", 0x12560953 << 32 | 1, 1, 2, 3),  # the magic of long ago
        Asked(request_head(Command.WRITE), 1, 0, MAX_SKIP + 1).wire,
        Asked(request_head(Command.WRITE), 1, 0, 0xFFFFFFFF).wire,
    ],
)
def test_an_invalid_request_ends_the_stream_after_those_before_it(bad: bytes):
    reader = Reader()
    before = Asked(request_head(Command.READ), 6, 0, 0)
    with pytest.raises(RemoteProtocolError):
        reader.feed(before.wire + before.wire + bad)
    assert reader.found == [before, before]


@given(st.binary(max_size=2 * SMALL))
def test_garbage_is_either_waited_for_or_refused(garbage: bytes):
    reader = Reader()
    try:
        reader.feed(garbage)
    except RemoteProtocolError:
        pass
    assert not [request for request in reader.found if request.head >> 32 != 0x25609513]


def test_released_in_the_middle_of_anything():
    pool = BufferPool(SMALL)
    for sent in (1, 27, 28, 100, 600):
        reader = Reader(pool)
        reader.feed(Asked(request_head(Command.WRITE), 1, 2, 700, bytes(700)).wire[:sent])
        reader.stream.release()
        assert reader.stream.empty
    assert len(pool._free) == 1


def test_receives_are_limited_in_size():
    stream = RequestStream(BufferPool(4 << 20), account())
    assert len(stream.get_buffer()) == RECEIVE_MAX
    wire = Asked(request_head(Command.WRITE), 1, 0, 6 << 20).wire
    stream.put(wire)
    stream.settle(stalled=False)
    assert len(stream.get_buffer()) == RECEIVE_MAX
    stream.put(bytes(6 << 20))
    ((_, cookie, _, length, end),) = stream.peek(10)
    assert (cookie, length) == (1, 6 << 20)
    assert bytes(stream.payload(length, end)) == bytes(6 << 20)
    stream.release()
