"""The client's protocol without I/O, split anywhere, against the server's and against a model."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homebound.nbd import (
    ExportInfo,
    ExportTable,
    OptionRefused,
    RemoteProtocolError,
    TransmissionFlag,
)
from homebound.nbd._protocol.client_handshake import ClientHandshake
from homebound.nbd._protocol.client_request import Request
from homebound.nbd._protocol.reply_reader import ReplyReader
from homebound.nbd._protocol.wire import Command, ReplyType

from .ends import Joined, feed

DF = TransmissionFlag.SEND_DF  # which the server adds where it replies in chunks
INFO = ExportInfo("disk", 12345, TransmissionFlag(1), "a disk", (512, 4096, 1 << 25))
EXPORTS = ExportTable([INFO, ExportInfo("other", 1, TransmissionFlag(3))])


@given(st.lists(st.integers(1, 40), max_size=40))
def test_both_ends_of_the_handshake_agree(sizes: list[int]):
    joined, client = Joined(EXPORTS, sizes), ClientHandshake()
    joined.run(client.greet())
    assert joined.run(client.structured_replies())
    assert joined.run(client.list_exports()) == [("disk", "a disk"), ("other", "")]
    joined.run(client.set_contexts("disk", ["base:allocation"]))
    described = joined.run(client.info("disk"))
    with pytest.raises(OptionRefused) as caught:
        joined.run(client.info("none"))
    assert caught.value.kind == ReplyType.ERR_UNKNOWN
    export = joined.run(client.go("disk"))
    assert joined.chosen is not None
    assert joined.chosen.structured
    assert export == described
    assert (export.name, export.size, export.flags) == ("disk", 12345, INFO.flags | DF)
    assert (export.block_sizes, export.sizes_told) == (INFO.block_sizes, True)
    assert not joined.to_client


@given(st.lists(st.integers(1, 40), max_size=40))
def test_both_ends_agree_by_the_old_option(sizes: list[int]):
    joined, client = Joined(EXPORTS, sizes), ClientHandshake()
    joined.run(client.greet())
    export = joined.run(client.export_name("other"))
    assert (export.size, export.flags) == (1, TransmissionFlag(3))
    assert not joined.to_client


def test_an_endless_list_is_refused():
    """Before it has taken much memory."""
    entry = struct.pack(">I", 4000) + b"x" * 4000
    head = struct.pack(">QIII", 0x0003E889045565A9, 3, ReplyType.SERVER, len(entry))
    client = ClientHandshake()
    client.fixed = True
    exchange = client.list_exports()
    next(exchange)
    replies = itertools.cycle([head, entry])
    size = exchange.send(b"")
    taken = 0
    with pytest.raises(RemoteProtocolError, match="does not end"):  # noqa: PT012
        for reply in replies:
            assert size == len(reply)
            taken += len(reply)
            size = exchange.send(reply)
    assert taken < 17 << 20


OFFSET = 1000


@st.composite
def replies(draw: Any) -> tuple[list[Request], bytes, list[bytes]]:
    """Requests, a right stream of replies to them in any order, and the data of each."""
    count = draw(st.integers(1, 6))
    requests, datas, queues = [], [], []
    for cookie in range(1, count + 1):
        length = draw(st.integers(1, 200))
        data = bytes((cookie * 7 + n) % 255 + 1 for n in range(length))
        request = Request(Command.READ, OFFSET, length, target=memoryview(bytearray(length)))
        request.cookie = cookie
        chunks, data = draw(chunks_of(cookie, data))
        requests.append(request)
        datas.append(data)
        queues.append(chunks)
    stream = b""
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        stream += queue.pop(0)
    return requests, stream, datas


@st.composite
def chunks_of(draw: Any, cookie: int, data: bytes) -> tuple[list[bytes], bytes]:
    """The chunks of one reply, in any order; some are holes."""
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=4)))
    edges = [0, *(cut for cut in cuts if cut < len(data)), len(data)]
    pieces = []
    for start, stop in itertools.pairwise(edges):
        if draw(st.booleans()):
            data = data[:start] + bytes(stop - start) + data[stop:]
            pieces.append((2, struct.pack(">QI", OFFSET + start, stop - start)))
        else:
            pieces.append((1, struct.pack(">Q", OFFSET + start) + data[start:stop]))
    pieces = draw(st.permutations(pieces))
    if draw(st.booleans()):
        pieces.append((0, b""))
    return [
        struct.pack(">IHHQI", 0x668E33EF, n == len(pieces) - 1, kind, cookie, len(body)) + body
        for n, (kind, body) in enumerate(pieces)
    ], data


@given(replies(), st.lists(st.integers(1, 60), max_size=60))
def test_replies_split_anywhere(case: Any, sizes: list[int]):
    requests, stream, datas = case
    reader = ReplyReader({}, structured=True, buffer_size=5000)
    reader.pending.update({request.cookie: request for request in requests})
    ended = feed(reader, stream, sizes)
    assert {request.cookie for request in ended} == {request.cookie for request in requests}
    assert not reader.pending
    for request, data in zip(requests, datas, strict=True):
        assert request.target == data
        assert not request.error


@given(replies(), st.integers(0, 10_000), st.integers(0, 255), st.lists(st.integers(1, 60)))
def test_a_damaged_stream_is_noticed_or_still_right(
    case: Any, at: int, value: int, sizes: list[int]
):
    """No byte outside the targets is touched, and nothing but the one error is raised."""
    requests, stream, _ = case
    arounds = []
    for request in requests:
        around = bytearray(b"|" * (request.length + 16))
        request.target = memoryview(around)[8:-8]
        arounds.append(around)
    at %= len(stream)
    damaged = stream[:at] + bytes([value]) + stream[at + 1 :]
    reader = ReplyReader({}, structured=True, buffer_size=5000)
    reader.pending.update({request.cookie: request for request in requests})
    try:
        feed(reader, damaged, sizes)
    except RemoteProtocolError:
        pass
    for around in arounds:
        assert around[:8] == around[-8:] == b"|" * 8


@given(st.binary(max_size=300), st.sampled_from([0, 1]), st.lists(st.integers(1, 60)))
def test_any_bytes(stream: bytes, structured: int, sizes: list[int]):
    reader = ReplyReader({}, structured=bool(structured), buffer_size=5000)
    reader.pending[0] = Request(Command.READ, 0, 10, target=memoryview(bytearray(10)))
    try:
        feed(reader, stream, sizes)
    except RemoteProtocolError:
        pass


def test_a_large_payload_is_received_into_its_target():
    """All but what came with the header."""
    request = Request(Command.READ, 0, 100_000, target=memoryview(bytearray(100_000)))
    reader = ReplyReader({}, structured=False, buffer_size=5000)
    reader.pending[0] = request
    data = bytes(n % 251 for n in range(100_000))
    stream = struct.pack(">IIQ", 0x67446698, 0, 0) + data
    sizes: list[int] = []
    ended: list[Request] = []
    while stream:
        buffer = reader.get_buffer()
        size = min(len(buffer), len(stream))
        sizes.append(size)
        buffer[:size] = stream[:size]
        stream = stream[size:]
        ended = reader.received(buffer, size)
    assert sizes == [5000, 100_016 - 5000]
    assert ended == [request]
    assert request.target == data


def test_the_end_of_a_large_payload_is_received_into_its_target_too():
    """However little is left: the short buffer for headers would take it in many parts."""
    length = 100_000
    target = memoryview(bytearray(length))
    reader = ReplyReader({}, structured=False)
    reader.pending[0] = Request(Command.READ, 0, length, target=target)
    header = struct.pack(">IIQ", 0x67446698, 0, 0)
    reader.get_buffer()[:16] = header
    assert reader.received(memoryview(reader._whole), 16) == []
    for part in (length - 50_000, 49_999):
        buffer = reader.get_buffer()
        assert buffer.obj is target.obj
        assert reader.midway
        assert reader.received(buffer, part) == []
    assert not reader.midway
    assert len(reader.get_buffer()) == 1


def test_too_many_pieces_are_refused():
    length = 1 << 16
    request = Request(Command.READ, 0, length, target=memoryview(bytearray(length)))
    reader = ReplyReader({}, structured=True)
    reader.pending[0] = request
    stream = b"".join(
        struct.pack(">IHHQI", 0x668E33EF, 0, 1, 0, 9) + struct.pack(">Q", at) + b"x"
        for at in range(1, length, 2)
    )
    with pytest.raises(RemoteProtocolError, match="more than 4096 separate pieces"):
        feed(reader, stream, [])
