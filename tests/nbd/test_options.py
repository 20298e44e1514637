"""The answer to each option, rule by rule of the protocol document."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest

from homebound.nbd import (
    Chosen,
    Closed,
    ExportInfo,
    ExportNameError,
    ExportTable,
    Reply,
    ServerHandshake,
    TransmissionFlag,
)
from homebound.nbd._protocol.handshake import MAX_OPTION_DATA, MAX_OPTION_SKIP, Event
from homebound.nbd._protocol.options import KNOWN
from homebound.nbd._protocol.wire import IHAVEOPT, OPTION_REPLY_MAGIC, Info, Option, ReplyType

HAS_FLAGS = TransmissionFlag.HAS_FLAGS
DISK = ExportInfo("disk", 1 << 20, HAS_FLAGS | TransmissionFlag.SEND_FUA, "the first one")
OTHER = ExportInfo("other/ö", 12345, HAS_FLAGS)
PICKY = ExportInfo("picky", 1 << 20, HAS_FLAGS, "", (4096, 8192, 1 << 20))
EXPORTS = ExportTable([DISK, OTHER, PICKY], default="disk")
NO_ZEROES, ZEROES = 3, 1


@dataclass(frozen=True)
class Packet:
    option: int
    kind: int
    data: bytes


def packets(data: bytes) -> list[Packet]:
    found = []
    while data:
        magic, option, kind, length = struct.unpack_from(">QIII", data)
        assert magic == OPTION_REPLY_MAGIC
        assert len(data) >= 20 + length
        found.append(Packet(option, kind, data[20 : 20 + length]))
        data = data[20 + length :]
    return found


def begun(flags: int = NO_ZEROES) -> ServerHandshake:
    handshake = ServerHandshake(EXPORTS)
    handshake.receive(struct.pack(">I", flags))
    return handshake


def ask(handshake: ServerHandshake, option: int, data: bytes = b"") -> Event:
    handshake.receive(struct.pack(">QII", IHAVEOPT, option, len(data)) + data)
    event = handshake.next_event()
    assert event is not None
    return event


def info_data(name: bytes, *wanted: int) -> bytes:
    return struct.pack(f">I{len(name)}sH{len(wanted)}H", len(name), name, len(wanted), *wanted)


def only_error(event: Event, option: int) -> int:
    assert isinstance(event, Reply)
    (packet,) = packets(event.data)
    assert packet.option == option
    assert packet.kind & 0x80000000
    assert packet.data.decode()  # it says something
    return packet.kind


def still_haggles(handshake: ServerHandshake) -> bool:
    event = ask(handshake, Option.LIST)
    return isinstance(event, Reply) and packets(event.data)[-1].kind == ReplyType.ACK


def test_greeting_offers_fixed_newstyle_and_no_zeroes_and_nothing_else():
    assert ServerHandshake(EXPORTS).greeting() == b"NBDMAGICIHAVEOPT\0\3"


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_offered_client_flags_are_fine(flags: int):
    assert still_haggles(begun(flags))


@pytest.mark.parametrize("flags", [4, 7, 0x10000, 0x80000001, 0xFFFFFFFF])
def test_a_client_flag_that_was_not_offered_drops_the_client(flags: int):
    event = begun(flags).next_event()
    assert isinstance(event, Closed)
    assert event.data == b""
    assert "unknown flags" in event.reason


@pytest.mark.parametrize("number", [0, 4, 5, 11, 12, 0xFFFFFFFF])
@pytest.mark.parametrize("data", [b"", b"some data"])
def test_unknown_option_is_skipped_and_refused(number: int, data: bytes):
    handshake = begun()
    assert only_error(ask(handshake, number, data), number) == ReplyType.ERR_UNSUP
    assert still_haggles(handshake)


def test_skipped_data_is_not_kept():
    handshake = begun()
    handshake.receive(struct.pack(">QII", IHAVEOPT, 99, MAX_OPTION_SKIP))
    piece = bytes(1 << 20)
    for _ in range(MAX_OPTION_SKIP // len(piece)):
        assert handshake.next_event() is None
        handshake.receive(piece)
        assert len(handshake._inbox) <= len(piece)
    event = handshake.next_event()
    assert event is not None
    assert only_error(event, 99) == ReplyType.ERR_UNSUP
    assert still_haggles(handshake)


@pytest.mark.parametrize("number", [Option.LIST, Option.INFO, Option.GO])
def test_a_known_option_with_too_much_data_is_skipped(number: int):
    handshake = begun()
    event = ask(handshake, number, bytes(MAX_OPTION_DATA + 1))
    assert only_error(event, number) == ReplyType.ERR_TOO_BIG
    assert still_haggles(handshake)


@pytest.mark.parametrize(
    ("number", "kind"), [(Option.GO, ReplyType.ERR_TOO_BIG), (77, ReplyType.ERR_UNSUP)]
)
def test_an_absurd_length_is_refused_at_once_and_ends_it(number: int, kind: int):
    handshake = begun()
    handshake.receive(struct.pack(">QII", IHAVEOPT, number, 0xFFFFFFFF))
    event = handshake.next_event()
    assert isinstance(event, Closed)
    assert [packet.kind for packet in packets(event.data)] == [kind]
    assert "4294967295 bytes" in event.reason


def test_bad_option_magic_ends_it():
    handshake = begun()
    handshake.receive(b"GET / HTTP/1.1\r\n")
    event = handshake.next_event()
    assert isinstance(event, Closed)
    assert event.data == b""


@pytest.mark.parametrize("number", [number for number in Option if number != Option.EXPORT_NAME])
def test_only_options_in_the_table_are_supported(number: Option):
    event = ask(begun(), number)
    assert (packets(event.data)[-1].kind == ReplyType.ERR_UNSUP) == (number not in KNOWN)


class TestList:
    def test_one_server_reply_for_each_export_then_ack(self):
        event = ask(begun(), Option.LIST)
        *servers, ack = packets(event.data)
        assert [server.kind for server in servers] == [ReplyType.SERVER] * 3
        names = []
        for server in servers:
            (length,) = struct.unpack_from(">I", server.data)
            names.append((server.data[4 : 4 + length].decode(), server.data[4 + length :].decode()))
        assert names == [("disk", "the first one"), ("other/ö", ""), ("picky", "")]
        assert ack == Packet(Option.LIST, ReplyType.ACK, b"")

    def test_with_data_is_invalid(self):
        handshake = begun()
        assert only_error(ask(handshake, Option.LIST, b"x"), Option.LIST) == ReplyType.ERR_INVALID
        assert still_haggles(handshake)

    def test_each_is_answered_by_itself(self):
        """The caller can wait for the client to read between two answers."""
        handshake = begun()
        handshake.receive(struct.pack(">QII", IHAVEOPT, Option.LIST, 0) * 3)
        events = [handshake.next_event() for _ in range(4)]
        assert events[0] == events[1] == events[2] != events[3]
        assert events[3] is None


class TestAbort:
    @pytest.mark.parametrize("size", [0, 1, MAX_OPTION_DATA + 1])
    def test_is_acknowledged_whatever_data_it_has(self, size: int):
        event = ask(begun(), Option.ABORT, bytes(size))
        assert isinstance(event, Closed)
        assert packets(event.data) == [Packet(Option.ABORT, ReplyType.ACK, b"")]

    def test_with_absurd_data_too(self):
        handshake = begun()
        handshake.receive(struct.pack(">QII", IHAVEOPT, Option.ABORT, 0xFFFFFFFF))
        event = handshake.next_event()
        assert isinstance(event, Closed)
        assert packets(event.data) == [Packet(Option.ABORT, ReplyType.ACK, b"")]


@pytest.mark.parametrize("number", [Option.INFO, Option.GO])
class TestInfoAndGo:
    def infos(self, number: int, name: bytes, *wanted: int) -> dict[int, bytes]:
        event = ask(begun(), number, info_data(name, *wanted))
        assert isinstance(event, Chosen) == (number == Option.GO)
        *infos, ack = packets(event.data)
        assert ack == Packet(number, ReplyType.ACK, b"")
        assert {packet.kind for packet in infos} == {ReplyType.INFO}
        assert {packet.option for packet in infos} == {number}
        kinds = [struct.unpack_from(">H", packet.data)[0] for packet in infos]
        assert len(set(kinds)) == len(kinds)
        return dict(zip(kinds, [packet.data[2:] for packet in infos], strict=True))

    def test_says_size_and_flags_in_twelve_bytes(self, number: int):
        infos = self.infos(number, b"other/\xc3\xb6")
        assert infos == {Info.EXPORT: struct.pack(">QH", 12345, HAS_FLAGS)}
        assert len(infos[Info.EXPORT]) + 2 == 12

    def test_says_what_is_asked_for(self, number: int):
        infos = self.infos(number, b"disk", Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE)
        assert infos[Info.NAME] == b"disk"
        assert infos[Info.DESCRIPTION] == b"the first one"
        assert infos[Info.BLOCK_SIZE] == struct.pack(">III", 1, 4096, 32 << 20)
        assert len(infos[Info.BLOCK_SIZE]) + 2 == 14

    def test_ignores_requests_that_it_does_not_know(self, number: int):
        assert set(self.infos(number, b"disk", 4, 0xFFFF, Info.EXPORT)) == {Info.EXPORT}

    def test_tells_unusual_block_sizes_to_all(self, number: int):
        infos = self.infos(number, b"picky")
        assert infos[Info.BLOCK_SIZE] == struct.pack(">III", 4096, 8192, 1 << 20)

    def test_the_empty_name_is_the_default_export(self, number: int):
        infos = self.infos(number, b"", Info.NAME)
        assert infos[Info.NAME] == b"disk"

    def test_unknown_name(self, number: int):
        handshake = begun()
        event = ask(handshake, number, info_data(b"nowhere"))
        assert only_error(event, number) == ReplyType.ERR_UNKNOWN
        assert still_haggles(handshake)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\0\0\0\0\0",
            struct.pack(">I4sH", 5, b"disk", 0),  # the name is longer than the data
            struct.pack(">I4sH", 0xFFFFFFFF, b"disk", 0),
            struct.pack(">I4sH", 4, b"disk", 1),  # so is the list
            struct.pack(">I4sHHH", 4, b"disk", 1, 0, 0),  # there is more than the list
            info_data(b"di\0sk"),
            info_data(b"\xff\xfe"),
            info_data(b"x" * 4097),
        ],
    )
    def test_lengths_and_names_that_cannot_be(self, number: int, data: bytes):
        handshake = begun()
        assert only_error(ask(handshake, number, data), number) == ReplyType.ERR_INVALID
        assert still_haggles(handshake)


def test_info_then_go_give_the_same_answers():
    handshake = begun()
    data = info_data(b"disk", Info.NAME, Info.BLOCK_SIZE)
    info, go = ask(handshake, Option.INFO, data), ask(handshake, Option.GO, data)
    assert [(p.kind, p.data) for p in packets(info.data)] == [
        (p.kind, p.data) for p in packets(go.data)
    ]
    assert isinstance(go, Chosen)
    assert go.export is DISK


class TestExportName:
    def test_with_zeroes(self):
        event = ask(begun(ZEROES), Option.EXPORT_NAME, b"disk")
        assert isinstance(event, Chosen)
        assert event.data == struct.pack(">QH", DISK.size, DISK.flags) + bytes(124)

    def test_without_zeroes_if_both_want_that(self):
        event = ask(begun(NO_ZEROES), Option.EXPORT_NAME, b"disk")
        assert isinstance(event, Chosen)
        assert event.data == struct.pack(">QH", DISK.size, DISK.flags)

    def test_default(self):
        event = ask(begun(), Option.EXPORT_NAME)
        assert isinstance(event, Chosen)
        assert event.export is DISK

    @pytest.mark.parametrize("name", [b"nowhere", b"\xff", b"di\0sk", b"x" * 4097, bytes(1 << 20)])
    def test_unknown_name_disconnects_without_a_reply(self, name: bytes):
        event = ask(begun(), Option.EXPORT_NAME, name)
        assert isinstance(event, Closed)
        assert event.data == b""


class TestExports:
    def test_without_a_default_the_empty_name_is_unknown(self):
        handshake = ServerHandshake(ExportTable([DISK, OTHER]))
        handshake.receive(b"\0\0\0\3")
        event = ask(handshake, Option.INFO, info_data(b""))
        assert only_error(event, Option.INFO) == ReplyType.ERR_UNKNOWN

    @pytest.mark.parametrize("name", ["a\0b", "x" * 4097, "ö" * 2049, "\ud800"])
    def test_names_that_nbd_cannot_carry(self, name: str):
        with pytest.raises(ExportNameError):
            ExportInfo(name, 1, HAS_FLAGS)

    def test_a_name_given_twice(self):
        with pytest.raises(ExportNameError, match="two exports are named 'disk'"):
            ExportTable([DISK, DISK])

    def test_a_default_that_is_not_there(self):
        with pytest.raises(ExportNameError, match="'gone' is not among 'disk', 'other/ö'"):
            ExportTable([DISK, OTHER], default="gone")

    @pytest.mark.parametrize(
        "sizes",
        [(3, 4096, 1 << 20), (1, 256, 1 << 20), (1 << 17, 1 << 17, 1 << 20), (1, 4096, 2048)],
    )
    def test_block_sizes_that_break_the_rules(self, sizes: tuple[int, int, int]):
        with pytest.raises(ValueError, match="block sizes"):
            ExportInfo("disk", 1, HAS_FLAGS, "", sizes)
