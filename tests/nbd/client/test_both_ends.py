"""Our client's protocol against our server's, both in memory: any options, any requests, any split.

The server is compared with itself where nothing is split, and with a bytearray.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import homebound
from homebound.block import MemoryDisk
from homebound.nbd import (
    Chosen,
    Closed,
    ExportInfo,
    ExportTable,
    OptionRefused,
    Reply,
    ServerHandshake,
    TransmissionFlag,
)
from homebound.nbd._protocol.client_handshake import ClientHandshake
from homebound.nbd._protocol.client_request import Request
from homebound.nbd._protocol.handshake import StartTLS, Tls
from homebound.nbd._protocol.reply_reader import ReplyReader
from homebound.nbd._protocol.wire import IHAVEOPT, Command, CommandFlag, Error, Option, ReplyType
from homebound.testing import settle

from .ends import HungUpError, Joined, feed

NAMES = ["disk", "other"]
FLAGS = TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH
EXPORTS = ExportTable([ExportInfo(name, 12345 + n, FLAGS) for n, name in enumerate(NAMES)])
ALLOCATION = "base:allocation"

pieces = st.lists(st.integers(1, 40), max_size=60)
names = st.sampled_from([*NAMES, "none", ""])
queries = st.lists(st.sampled_from([ALLOCATION, "base:", "qemu:dirty-bitmap:b", ""]), max_size=3)
modes = st.sampled_from(list(Tls)[:3])

asked_options = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["structured_replies", "list_exports", "begin_tls"])),
        st.tuples(st.just("info"), names),
        st.tuples(st.sampled_from(["set_contexts", "list_contexts"]), names, queries),
    ),
    max_size=8,
)
choices = st.tuples(st.sampled_from(["go", "export_name"]), names)


class Told:
    """What a right server answers to each of the client's calls."""

    def __init__(self, tls: Tls) -> None:
        self.tls = tls

    def refusal(self, call: tuple[Any, ...], *, structured: bool) -> int | None:
        """Return the error that the option is refused with; None if it is granted."""
        name, *arguments = call
        if name == "begin_tls":
            if self.tls is Tls.NONE:
                return ReplyType.ERR_UNSUP
            return ReplyType.ERR_INVALID if self.tls is Tls.BEGUN else None
        if self.tls is Tls.REQUIRED:
            return ReplyType.ERR_TLS_REQD
        if name == "list_contexts" and not structured:
            return ReplyType.ERR_INVALID
        if arguments and arguments[0] not in NAMES:
            return ReplyType.ERR_UNKNOWN
        return None


@example(  # the client did not tell the server that none is wanted any more
    asked=[
        ("structured_replies",),
        ("set_contexts", "disk", [ALLOCATION]),
        ("set_contexts", "disk", []),
    ],
    choice=("go", "disk"),
    tls=Tls.NONE,
    sizes=[],
)
@given(asked=asked_options, choice=choices, tls=modes, sizes=pieces)
def test_any_options_mean_the_same_to_both_ends(
    asked: list[Any], choice: tuple[str, str], tls: Tls, sizes: list[int]
):
    joined, client, told = Joined(EXPORTS, sizes, tls), ClientHandshake(), Told(tls)
    joined.run(client.greet())
    for call in asked:
        name, *arguments = call
        refusal = told.refusal(call, structured=client.structured)
        if name in {"structured_replies", "set_contexts"}:  # which tell of no refusal
            joined.run(getattr(client, name)(*arguments))
            assert client.structured or not client.contexts
            continue
        if refusal is None:
            joined.run(getattr(client, name)(*arguments))
        else:
            with pytest.raises(OptionRefused) as caught:
                joined.run(getattr(client, name)(*arguments))
            assert caught.value.kind == refusal
        if name == "begin_tls" and refusal is None:
            told.tls = Tls.BEGUN
        assert not joined.to_client
    check_choice(joined, client, choice, told)


def check_choice(
    joined: Joined, client: ClientHandshake, choice: tuple[str, str], told: Told
) -> None:
    how, name = choice
    refusal = told.refusal(choice, structured=client.structured)
    if refusal is None:
        export = joined.run(getattr(client, how)(name))
        chosen = joined.chosen
        assert chosen is not None
        assert (chosen.export.name, chosen.export.size) == (name, export.size)
        assert chosen.structured == export.structured == client.structured
        assert chosen.contexts == set(export.contexts.values())
        assert joined.server.trailing() == b""
    else:
        with pytest.raises(OptionRefused if how == "go" else HungUpError) as caught:
            joined.run(getattr(client, how)(name))
        assert joined.chosen is None
        assert getattr(caught.value, "kind", refusal) == refusal
    assert not joined.to_client


# The server's table alone: options that no right client sends.

raw_options = st.builds(
    lambda number, data: struct.pack(">QII", IHAVEOPT, number, len(data)) + data,
    st.one_of(st.sampled_from(list(Option)), st.integers(0, 2**32 - 1)),
    st.one_of(
        st.binary(max_size=30),
        st.sampled_from(
            [b"\0\0\0\4disk", b"\0\0\0\4disk\0\0", b"\0\0\0\4disk\0\1\0\3", b"disk", b"other"]
        ),
        st.just(b"\0\0\0\4disk\0\0\0\1\0\0\0\x0f" + ALLOCATION.encode()),
    ),
)
streams = st.tuples(
    st.sampled_from([0, 1, 2, 3, 3, 3, 3, 3, 4]), st.lists(raw_options, max_size=8), st.binary()
).map(lambda parts: struct.pack(">I", parts[0]) + b"".join(parts[1]) + parts[2])


def events_of(stream: bytes, tls: Tls, sizes: list[int]) -> list[Any]:
    """Return what the server says to a stream, up to the begin of TLS."""
    server = ServerHandshake(EXPORTS, tls)
    found: list[Any] = []
    sizes = list(sizes)
    while stream:
        size = sizes.pop() if sizes else len(stream)
        server.receive(stream[:size])
        stream = stream[size:]
        while (event := server.next_event()) is not None:
            found.append(event)
            behind = isinstance(event, Closed) and "behind" in event.reason
            if behind or isinstance(event, StartTLS):  # which of them depends on the split
                return [*found[:-1], "TLS"]
    if server.state.name != "CLOSED" and not isinstance(found[-1] if found else None, Chosen):
        found.append(server.receive_eof())
    return found


@given(stream=streams, tls=modes, sizes=st.lists(st.integers(1, 20), max_size=200))
def test_a_handshake_split_anywhere_is_the_same(stream: bytes, tls: Tls, sizes: list[int]):
    assert events_of(stream, tls, sizes) == events_of(stream, tls, [])
    assert events_of(stream, tls, [1] * len(stream)) == events_of(stream, tls, [])


@given(stream=streams)
def test_without_tls_where_it_is_required_nothing_is_told(stream: bytes):
    """No export is chosen or named, and no option is granted but an abort."""
    for event in events_of(stream, Tls.REQUIRED, []):
        assert not isinstance(event, Chosen)
        if isinstance(event, Reply):
            assert not any(name.encode() in event.data for name in NAMES)
            _, option, kind = struct.unpack_from(">QII", event.data)
            invalid = option == Option.STARTTLS and kind == ReplyType.ERR_INVALID  # it has data
            assert invalid or kind == ReplyType.ERR_TLS_REQD


# The transmission phase.

SIZE = 1000
DF, FUA = CommandFlag.DF, CommandFlag.FUA
ranges = st.tuples(st.integers(0, SIZE), st.integers(1, 600))
together = st.lists(  # what is in flight at the same time
    st.one_of(
        st.tuples(st.just(Command.READ), st.sampled_from([0, FUA, DF]), ranges),
        st.tuples(st.just(Command.WRITE), st.sampled_from([0, FUA]), ranges),
        st.tuples(st.just(Command.TRIM), st.just(0), ranges),
        st.tuples(st.just(Command.WRITE_ZEROES), st.sampled_from([0, CommandFlag.NO_HOLE]), ranges),
        st.tuples(st.sampled_from([Command.CACHE, Command.BLOCK_STATUS]), st.just(0), ranges),
        st.tuples(st.just(Command.FLUSH), st.just(0), st.just((0, 0))),
        st.tuples(st.sampled_from([9, 99]), st.just(0), ranges),
    ),
    min_size=1,
    max_size=6,
)


class Model:
    """What each byte of a disk may be while requests are in flight, and when all have ended.

    Requests that are in flight at the same time are carried out in any order, one after the other.
    """

    def __init__(self, *, structured: bool) -> None:
        self.structured = structured
        self.data = bytes(SIZE)  # while nothing is in flight

    def error(self, request: Request) -> int:
        """Return the error that a request must be answered with."""
        status = request.command == Command.BLOCK_STATUS
        if request.command > Command.BLOCK_STATUS or (
            not self.structured and (status or request.flags & DF)
        ):
            return Error.EINVAL
        if request.offset + request.length > SIZE:
            full = request.command in {Command.WRITE, Command.WRITE_ZEROES}
            return Error.ENOSPC if full else Error.EINVAL
        return 0

    def outcomes(self, requests: list[Request]) -> tuple[list[set[int]], list[set[int]]]:
        """Return what each byte may be meanwhile, and what in the end."""
        changed: list[set[int]] = [set() for _ in range(SIZE)]
        certain = [False] * SIZE  # it does not stay as it was
        for request in requests:
            change = request.command in {Command.WRITE, Command.WRITE_ZEROES, Command.TRIM}
            if not change or self.error(request):
                continue
            for at in range(request.offset, request.offset + request.length):
                changed[at].add(request.cookie if request.command == Command.WRITE else 0)
                certain[at] |= request.command != Command.TRIM  # which may do nothing
        ever = [{old, *new} for old, new in zip(self.data, changed, strict=True)]
        both = zip(changed, ever, certain, strict=True)
        return ever, [new if sure else all_ for new, all_, sure in both]


def may_be(data: Any, allowed: list[set[int]]) -> bool:
    return all(byte in values for byte, values in zip(data, allowed, strict=True))


def make_requests(asked: list[Any], first: int) -> list[Request]:
    """Make the client's requests; each writes its own cookie."""
    made = []
    for cookie, (command, flags, (offset, length)) in enumerate(asked, first):
        data = bytes([cookie]) * length if command == Command.WRITE else b""
        target = memoryview(bytearray(length)) if command == Command.READ else None
        request = Request(command, offset, length, flags=flags, data=data, target=target)
        request.cookie = cookie
        made.append(request)
    return made


class Ends:
    """A client's parser of replies and a server's connection; sizes say how each is fed."""

    def __init__(
        self, peer: Any, sizes: list[int], answers: list[int], *, structured: bool
    ) -> None:
        self.peer = peer
        self.reader = ReplyReader({1: ALLOCATION} if structured else {}, structured=structured)
        self.sizes = list(sizes)
        self.answers = answers

    async def exchange(self, requests: list[Request]) -> list[Request]:
        """Send requests; return them in the order in which they end."""
        reader, ended = self.reader, []
        reader.pending.update({request.cookie: request for request in requests})
        wire = b"".join(request.head(request.cookie) + request.data for request in requests)
        while wire:
            size = self.sizes.pop() if self.sizes else len(wire)
            self.peer.send(wire[:size])
            wire = wire[size:]
            ended += feed(reader, self.peer.raw(), self.answers)
        while reader.pending:
            await asyncio.sleep(0)
            ended += feed(reader, self.peer.raw(), self.answers)
        return ended


@given(
    groups=st.lists(together, min_size=1, max_size=4),
    structured=st.booleans(),
    sizes=pieces,
    answers=pieces,
)
def test_any_requests_split_anywhere(
    in_memory: Any, groups: list[Any], sizes: list[int], answers: list[int], *, structured: bool
):
    async def main() -> None:
        model = Model(structured=structured)
        with MemoryDisk(SIZE) as disk:
            contexts = {ALLOCATION} if structured else set()
            peer = in_memory.peer(disk, structured=structured, contexts=contexts)
            ends = Ends(peer, sizes, answers, structured=structured)
            for number, asked in enumerate(groups):
                requests = make_requests(asked, 1 + number * 10)
                ended = await ends.exchange(requests)
                assert sorted(map(id, ended)) == sorted(map(id, requests))
                ever, in_the_end = model.outcomes(requests)
                for request in requests:
                    check_reply(request, ever, model.error(request))
                model.data = bytes(await disk.read(0, SIZE))
                assert may_be(model.data, in_the_end)
            assert not peer.raw()
            peer.lose()
            await settle()
            assert peer.connection._account.held == 0

    homebound.run(main())


def check_reply(request: Request, ever: list[set[int]], error: int) -> None:
    assert request.error == error
    if error:
        return
    if request.target is not None:
        assert may_be(request.target, ever[request.offset :][: request.length])
    if request.command == Command.BLOCK_STATUS:
        assert request.extents is not None
        assert set(request.extents) == {1}
