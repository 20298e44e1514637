"""Every cell of the handshake's table: the effect of each input in each state."""

from __future__ import annotations

import struct

import pytest

from homebound.nbd import (
    Chosen,
    Closed,
    ExportInfo,
    ExportTable,
    HandshakeState,
    LocalProtocolError,
    ServerHandshake,
    TransmissionFlag,
)
from homebound.nbd._protocol.handshake import (
    _STEPS,
    MAX_OPTION_DATA,
    MAX_OPTION_SKIP,
    TRANSITIONS,
    Input,
    Tls,
)
from homebound.nbd._protocol.wire import IHAVEOPT, Option

EXPORTS = ExportTable([ExportInfo("disk", 1 << 20, TransmissionFlag.HAS_FLAGS)])
FLAGS = struct.pack(">I", 3)
UNKNOWN = 0x1234


def option(number: int, data: bytes = b"", *, length: int | None = None) -> bytes:
    return struct.pack(">QII", IHAVEOPT, number, len(data) if length is None else length) + data


def go(name: bytes) -> bytes:
    return option(Option.GO, struct.pack(">I", len(name)) + name + b"\0\0")


# Bytes that bring a new handshake into each state, and bytes that are each input there.
INTO = {
    HandshakeState.CLIENT_FLAGS: b"",
    HandshakeState.OPTION: FLAGS,
    HandshakeState.DATA: FLAGS + option(Option.LIST, length=1),
    HandshakeState.SKIP: FLAGS + option(UNKNOWN, length=3),
    HandshakeState.TLS: FLAGS + option(Option.STARTTLS),
    HandshakeState.TRANSMISSION: FLAGS + go(b"disk"),
    HandshakeState.CLOSED: FLAGS + option(Option.ABORT),
}
BYTES = {
    (HandshakeState.CLIENT_FLAGS, Input.GOOD_FLAGS): FLAGS,
    (HandshakeState.CLIENT_FLAGS, Input.BAD_FLAGS): struct.pack(">I", 4),
    (HandshakeState.OPTION, Input.KNOWN): option(Option.LIST, length=MAX_OPTION_DATA),
    (HandshakeState.OPTION, Input.REFUSED): option(UNKNOWN, length=MAX_OPTION_SKIP),
    (HandshakeState.OPTION, Input.BAD_MAGIC): bytes(16),
    (HandshakeState.OPTION, Input.ABSURD): option(UNKNOWN, length=MAX_OPTION_SKIP + 1),
    (HandshakeState.DATA, Input.ANSWERED): b"x",
    (HandshakeState.DATA, Input.CHOSEN): go(b"disk")[16:],
    (HandshakeState.DATA, Input.ABORTED): b"x",
    (HandshakeState.DATA, Input.HOPELESS): b"x",
    (HandshakeState.SKIP, Input.SKIPPED): b"xyz",
    (HandshakeState.SKIP, Input.ABORTED): b"xyz",
}
# States for inputs that depend on the current option.
INTO_FOR = {
    (HandshakeState.DATA, Input.CHOSEN): FLAGS + go(b"disk")[:16],
    (HandshakeState.DATA, Input.ABORTED): FLAGS + option(Option.ABORT, length=1),
    (HandshakeState.DATA, Input.HOPELESS): FLAGS + option(Option.EXPORT_NAME, length=1),
    (HandshakeState.SKIP, Input.ABORTED): (
        FLAGS + option(Option.ABORT, bytes(MAX_OPTION_DATA - 2), length=MAX_OPTION_DATA + 1)
    ),
}
# In test_tls.py: an option without data does not stay in DATA, and no bytes end the TLS handshake.
ELSEWHERE = {(HandshakeState.DATA, Input.ENCRYPT), (HandshakeState.TLS, Input.ENCRYPTED)}
CELLS = [
    (state, given) for state in HandshakeState for given in Input if (state, given) not in ELSEWHERE
]


def in_state(state: HandshakeState, given: Input) -> ServerHandshake:
    handshake = ServerHandshake(EXPORTS, Tls.OFFERED)
    handshake.receive(INTO_FOR.get((state, given), INTO[state]))
    while handshake.next_event() is not None:
        pass
    assert handshake.state is state
    return handshake


@pytest.mark.parametrize(("state", "given"), CELLS)
def test_cell(state: HandshakeState, given: Input):
    handshake = in_state(state, given)
    after = TRANSITIONS[state].get(given)
    if after is None:
        # No bytes are this input here; a bug that reports it is an error.
        assert (state, given) not in BYTES
        with pytest.raises(LocalProtocolError, match="cannot come while the handshake waits"):
            handshake._advance(given)
        assert handshake.state is state
    elif given is Input.EOF:
        assert handshake.receive_eof().data == b""
        assert handshake.state is after
    else:
        handshake.receive(BYTES[state, given])
        event = handshake.next_event()
        assert handshake.state is after
        assert isinstance(event, Chosen) == (after is HandshakeState.TRANSMISSION)
        assert isinstance(event, Closed) == (after is HandshakeState.CLOSED)


def test_the_table_is_complete():
    assert set(TRANSITIONS) == set(HandshakeState) == set(_STEPS)
    reached = {after for row in TRANSITIONS.values() for after in row.values()}
    assert reached | {HandshakeState.CLIENT_FLAGS} == set(HandshakeState)


def test_end_of_file_after_the_choice_is_an_error():
    handshake = in_state(HandshakeState.TRANSMISSION, Input.EOF)
    with pytest.raises(LocalProtocolError, match="the end of the stream cannot come"):
        handshake.receive_eof()


def test_data_after_the_choice_is_kept_for_the_transmission_phase():
    handshake = ServerHandshake(EXPORTS)
    handshake.receive(FLAGS + go(b"disk") + b"request")
    assert isinstance(handshake.next_event(), Chosen)
    assert handshake.trailing() == b"request"
    assert handshake.trailing() == b""


def test_data_after_the_end_is_dropped():
    handshake = in_state(HandshakeState.CLOSED, Input.EOF)
    handshake.receive(bytes(1000))
    assert handshake.next_event() is None
    assert handshake.trailing() == b""


def test_repr_says_what_it_waits_for():
    assert repr(ServerHandshake(EXPORTS)) == "<ServerHandshake waiting for the client's flags>"
