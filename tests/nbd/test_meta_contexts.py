"""LIST_META_CONTEXT and SET_META_CONTEXT, rule by rule of the protocol document."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homebound.nbd import Chosen, ExportInfo, ExportTable, Reply, ServerHandshake, TransmissionFlag
from homebound.nbd._protocol.wire import IHAVEOPT, Option, ReplyType

if TYPE_CHECKING:
    from homebound.nbd._protocol.handshake import Event

HAS_FLAGS = TransmissionFlag.HAS_FLAGS
EXPORTS = ExportTable(
    [ExportInfo("a", 1 << 20, HAS_FLAGS), ExportInfo("b", 1 << 20, HAS_FLAGS)], default="a"
)
LIST, SET = Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT
ALLOCATION = b"base:allocation"


def begun(*, structured: bool = True) -> ServerHandshake:
    handshake = ServerHandshake(EXPORTS)
    handshake.receive(b"\0\0\0\3")
    if structured:
        ask(handshake, Option.STRUCTURED_REPLY)
    return handshake


def ask(handshake: ServerHandshake, option: int, data: bytes = b"") -> Event:
    handshake.receive(struct.pack(">QII", IHAVEOPT, option, len(data)) + data)
    event = handshake.next_event()
    assert event is not None
    return event


def string(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def queries(name: bytes, *wanted: bytes) -> bytes:
    return string(name) + struct.pack(">I", len(wanted)) + b"".join(map(string, wanted))


def answers(event: Event) -> list[tuple[int, bytes]]:
    """Return the type and the data of each reply."""
    assert isinstance(event, Reply)
    data, found = event.data, []
    while data:
        _, _, kind, length = struct.unpack_from(">QIII", data)
        found.append((kind, data[20 : 20 + length]))
        data = data[20 + length :]
    return found


def names(event: Event) -> list[bytes]:
    *found, (last, data) = answers(event)
    assert (last, data) == (ReplyType.ACK, b"")
    assert all(kind == ReplyType.META_CONTEXT for kind, _ in found)
    return [data[4:] for _, data in found]


def error(event: Event) -> int:
    ((kind, text),) = answers(event)
    assert text.decode()
    return kind


def go(handshake: ServerHandshake, name: bytes = b"a") -> frozenset[str]:
    event = ask(handshake, Option.GO, string(name) + b"\0\0")
    assert isinstance(event, Chosen)
    return event.contexts


@pytest.mark.parametrize("option", [LIST, SET])
class TestBoth:
    def test_structured_replies_come_first(self, option: int):
        handshake = begun(structured=False)
        assert error(ask(handshake, option, queries(b"a"))) == ReplyType.ERR_INVALID

    def test_an_unknown_export(self, option: int):
        assert error(ask(begun(), option, queries(b"c", ALLOCATION))) == ReplyType.ERR_UNKNOWN

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\0\0\0",
            string(b"a"),
            queries(b"a", ALLOCATION)[:-1],
            queries(b"a", ALLOCATION) + b"x",
            string(b"a") + struct.pack(">I", 2) + string(ALLOCATION),
            string(b"a") + struct.pack(">II", 1, 0xFFFFFFFF) + ALLOCATION,
            struct.pack(">I", 0xFFFFFFFF) + b"a",
            queries(b"a", b"\xff"),
            queries(b"a", b"base:\0"),
            queries(b"a", b"x" * 4097),
            queries(b"\xff"),
        ],
    )
    def test_data_that_is_not_valid(self, option: int, data: bytes):
        assert error(ask(begun(), option, data)) == ReplyType.ERR_INVALID

    def test_sixty_thousand_queries_are_too_many(self, option: int):
        handshake = begun()
        data = queries(b"a", *[b""] * 60_000)
        assert error(ask(handshake, option, data)) == ReplyType.ERR_TOO_BIG
        assert names(ask(handshake, option, queries(b"a", ALLOCATION))) == [ALLOCATION]

    def test_many_queries(self, option: int):
        data = queries(b"a", *[b"qemu:dirty-bitmap:x"] * 1000, ALLOCATION, ALLOCATION)
        assert names(ask(begun(), option, data)) == [ALLOCATION]

    def test_unknown_ones_select_nothing(self, option: int):
        data = queries(b"a", b"base:nothing", b"qemu:", b"allocation", b"x", b"")
        assert names(ask(begun(), option, data)) == []

    def test_the_empty_name_is_that_of_the_default_export(self, option: int):
        assert names(ask(begun(), option, queries(b"", ALLOCATION))) == [ALLOCATION]


def test_list_without_queries_names_all():
    assert names(ask(begun(), LIST, queries(b"a"))) == [ALLOCATION]


def test_the_namespace_is_a_wildcard_of_list_only():
    assert names(ask(begun(), LIST, queries(b"a", b"base:"))) == [ALLOCATION]
    assert names(ask(begun(), SET, queries(b"a", b"base:"))) == []


def test_set_without_queries_selects_nothing():
    assert names(ask(begun(), SET, queries(b"a"))) == []


class TestWhatHolds:
    def test_nothing_at_first_or_after_a_list(self):
        handshake = begun()
        ask(handshake, LIST, queries(b"a"))
        assert go(handshake) == frozenset()

    def test_what_was_set(self):
        handshake = begun()
        ask(handshake, SET, queries(b"a", ALLOCATION))
        ask(handshake, Option.INFO, string(b"a") + b"\0\0")
        assert go(handshake) == {"base:allocation"}

    def test_only_for_the_export_of_that_name(self):
        handshake = begun()
        ask(handshake, SET, queries(b"a", ALLOCATION))
        assert go(handshake, b"b") == frozenset()

    def test_the_last_set_replaces_the_others(self):
        handshake = begun()
        ask(handshake, SET, queries(b"a", ALLOCATION))
        ask(handshake, SET, queries(b"a"))
        assert go(handshake) == frozenset()

    @pytest.mark.parametrize("data", [b"", queries(b"c", ALLOCATION), bytes(1 << 17)])
    def test_a_set_that_fails_replaces_it_too(self, data: bytes):
        handshake = begun()
        ask(handshake, SET, queries(b"a", ALLOCATION))
        error(ask(handshake, SET, data))
        assert go(handshake) == frozenset()

    def test_by_export_name_as_well(self):
        handshake = begun()
        ask(handshake, SET, queries(b"a", ALLOCATION))
        event = ask(handshake, Option.EXPORT_NAME, b"a")
        assert isinstance(event, Chosen)
        assert event.contexts == {"base:allocation"}


@given(st.binary(max_size=60))
def test_any_data_gets_an_answer(data: bytes):
    handshake = begun()
    *_, (last, _) = answers(ask(handshake, SET, data))
    assert last in {ReplyType.ACK, ReplyType.ERR_INVALID, ReplyType.ERR_UNKNOWN}
    assert names(ask(handshake, SET, queries(b"a", ALLOCATION))) == [ALLOCATION]
