"""The server's side of fixed newstyle negotiation: bytes in, events out. No socket, loop or thread.

Feed what arrives to `receive`, then call `next_event` until it returns None. One event answers at
most one option, so the caller can wait for a slow client between two answers: a client that
requests the list a thousand times and never reads costs one answer.

`TRANSITIONS` has the states and the transitions from each; nothing else changes the state.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from .errors import LocalProtocolError
from .lookups import Lookups, SearchError, Wanted
from .options import KNOWN, Answer, Outcome, answer_option, error_reply, reply
from .wire import (
    CLIENT_FLAGS,
    EXPORT_NAME_ZEROES,
    GREETING,
    IHAVEOPT,
    INIT_PASSWD,
    MAX_STRING,
    OPTION_HEADER,
    ClientFlag,
    HandshakeFlag,
    Option,
    ReplyType,
    option_label,
)

if TYPE_CHECKING:
    from .export import ExportInfo, ExportTable

OFFERED = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES
MAX_OPTION_DATA = 64 << 10  # bytes kept of an option that the server knows
MAX_OPTION_SKIP = 32 << 20  # bytes skipped of any other; beyond, the server disconnects
# A plain number: the complement of an IntFlag has none of the bits that have no name.
_TAKEABLE = int(ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES)


class Tls(Enum):
    """The stages of TLS on a connection."""

    NONE = "not offered"
    OFFERED = "offered"
    REQUIRED = "required, and not begun"
    BEGUN = "begun"


class HandshakeState(Enum):
    """The states; the values name the input that each waits for."""

    CLIENT_FLAGS = "the client's flags"
    OPTION = "an option's header"
    DATA = "an option's data"
    SKIP = "the end of skipped data"
    TLS = "the end of the TLS handshake"
    TRANSMISSION = "nothing: an export was chosen"
    CLOSED = "nothing: the negotiation failed or was aborted"


class Input(Enum):
    """The inputs of the state machine, as parsed from the bytes."""

    GOOD_FLAGS = "client flags that were offered"
    BAD_FLAGS = "a client flag that was not offered"
    KNOWN = "the header of a known option"
    REFUSED = "the header of a refused option"
    BAD_MAGIC = "a header without the option magic"
    ABSURD = "a length above the limit"
    SKIPPED = "the last skipped byte"
    ANSWERED = "an option with an answer"
    CHOSEN = "the choice of an export"
    ABORTED = "an abort"
    HOPELESS = "an option that has no reply, not even an error"
    ENCRYPT = "the option to begin TLS"
    ENCRYPTED = "the first byte of an encrypted connection"
    EOF = "the end of the stream"


TRANSITIONS: dict[HandshakeState, dict[Input, HandshakeState]] = {
    HandshakeState.CLIENT_FLAGS: {
        Input.GOOD_FLAGS: HandshakeState.OPTION,
        Input.BAD_FLAGS: HandshakeState.CLOSED,
        Input.EOF: HandshakeState.CLOSED,
    },
    HandshakeState.OPTION: {
        Input.KNOWN: HandshakeState.DATA,
        Input.REFUSED: HandshakeState.SKIP,
        Input.BAD_MAGIC: HandshakeState.CLOSED,
        Input.ABSURD: HandshakeState.CLOSED,
        Input.EOF: HandshakeState.CLOSED,
    },
    HandshakeState.DATA: {
        Input.ANSWERED: HandshakeState.OPTION,
        Input.CHOSEN: HandshakeState.TRANSMISSION,
        Input.ABORTED: HandshakeState.CLOSED,
        Input.HOPELESS: HandshakeState.CLOSED,
        Input.ENCRYPT: HandshakeState.TLS,
        Input.EOF: HandshakeState.CLOSED,
    },
    HandshakeState.SKIP: {
        Input.SKIPPED: HandshakeState.OPTION,
        Input.ABORTED: HandshakeState.CLOSED,
        Input.EOF: HandshakeState.CLOSED,
    },
    HandshakeState.TLS: {
        Input.ENCRYPTED: HandshakeState.OPTION,
        Input.EOF: HandshakeState.CLOSED,
    },
    HandshakeState.TRANSMISSION: {},
    HandshakeState.CLOSED: {Input.EOF: HandshakeState.CLOSED},
}

_INPUT_BY_OUTCOME = {
    Outcome.GO_ON: Input.ANSWERED,
    Outcome.CHOSEN: Input.CHOSEN,
    Outcome.ABORT: Input.ABORTED,
    Outcome.HOPELESS: Input.HOPELESS,
}


@dataclass(frozen=True, slots=True)
class Reply:
    """Send `data`; the negotiation goes on."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Chosen:
    """Send `data`; the transmission phase begins with the next byte in each direction."""

    data: bytes
    export: ExportInfo
    structured: bool = False  # structured replies are negotiated
    contexts: frozenset[str] = frozenset()  # the metadata contexts that the client has selected


@dataclass(frozen=True, slots=True)
class Closed:
    """Send `data`, which may be empty, and disconnect; `reason` is for the log."""

    data: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class StartTLS:
    """Send `data`, do the TLS handshake as a server, then call `encrypted`."""

    data: bytes


Event = Reply | Chosen | Closed | Wanted | StartTLS


class ServerHandshake:
    r"""The server's side of one negotiation.

    >>> from homebound.nbd import ExportInfo, ExportTable, ServerHandshake, TransmissionFlag
    >>> exports = ExportTable([ExportInfo("disk", 4096, TransmissionFlag.HAS_FLAGS)])
    >>> handshake = ServerHandshake(exports)
    >>> handshake.greeting()[:16]
    b'NBDMAGICIHAVEOPT'
    >>> handshake.receive(b"\0\0\0\3IHAVEOPT\0\0\0\1\0\0\0\4disk")
    >>> handshake.next_event().export.name
    'disk'
    """

    __slots__ = (
        "_client_flags",
        "_contexts",
        "_exports",
        "_inbox",
        "_length",
        "_option",
        "_structured",
        "_tls",
        "state",
    )

    def __init__(self, exports: ExportTable | Lookups, tls: Tls = Tls.NONE) -> None:
        self._exports = exports
        self._tls = tls
        self.state: HandshakeState = HandshakeState.CLIENT_FLAGS
        # Received and not yet parsed; at most MAX_OPTION_DATA and the rest of the last receive.
        self._inbox = bytearray()
        self._client_flags = 0
        self._structured = False  # structured replies are negotiated
        # The last SET_META_CONTEXT: the name of the export, and what was selected.
        self._contexts: tuple[str, frozenset[str]] = ("", frozenset())
        # The current option's number, and how many bytes of its data are still to come. Valid in
        # DATA and SKIP only.
        self._option = 0
        self._length = 0

    def __repr__(self) -> str:
        return f"<ServerHandshake waiting for {self.state.value}>"

    def greeting(self) -> bytes:
        """Pack the first message of the server.

        Called from: any thread.
        """
        return GREETING.pack(INIT_PASSWD, IHAVEOPT, OFFERED)

    def receive(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from the client; the stream may be split anywhere.

        Called from: any thread.
        """
        if self.state not in (HandshakeState.CLOSED, HandshakeState.TLS):
            self._inbox += data

    def encrypted(self, exports: ExportTable | Lookups) -> None:
        """Go on encrypted; `exports` are those for the client as TLS has identified it.

        What was negotiated before is forgotten: an attacker may have sent it ("NBD_OPT_STARTTLS").

        Called from: any thread.
        """
        self._advance(Input.ENCRYPTED)
        self._tls = Tls.BEGUN
        self._exports = exports
        self._structured = False
        self._contexts = ("", frozenset())

    def receive_eof(self) -> Closed:
        """Take the client's end of file.

        Raises LocalProtocolError after the choice of an export: then it belongs to the transmission
        phase.

        Called from: any thread.
        """
        reason = f"the client disconnected before it sent {self.state.value}"
        self._advance(Input.EOF)
        return Closed(b"", reason)

    def trailing(self) -> bytes:
        """Return the bytes after the choice of an export; they belong to the transmission phase.

        Called from: any thread.
        """
        rest = bytes(self._inbox)
        self._inbox.clear()
        return rest

    def next_event(self) -> Event | None:
        """Return the next event, or None if more bytes are needed or nothing follows.

        Called from: any thread.
        """
        event: Event | None = None
        before = None
        # A header alone makes no event; stop when a step gives neither an event nor a new state.
        while event is None and self.state is not before:
            before = self.state
            event = _STEPS[before](self)
        return event

    def _advance(self, given: Input) -> None:
        try:
            self.state = TRANSITIONS[self.state][given]
        except KeyError:
            raise LocalProtocolError(
                f"{given.value} cannot come while the handshake waits for {self.state.value}"
            ) from None

    def _take(self, size: int) -> bytes | None:
        if len(self._inbox) < size:
            return None
        taken = bytes(self._inbox[:size])
        del self._inbox[:size]
        return taken

    def _close(self, given: Input, reason: str, data: bytes = b"") -> Closed:
        self._advance(given)
        self._inbox.clear()
        return Closed(data, reason)

    # One step for each state.

    def _read_client_flags(self) -> Event | None:
        taken = self._take(CLIENT_FLAGS.size)
        if taken is None:
            return None
        (flags,) = CLIENT_FLAGS.unpack(taken)
        # "Client flags": disconnect a client that sets a flag that was not offered.
        if flags & ~_TAKEABLE:
            return self._close(Input.BAD_FLAGS, f"the client set unknown flags: {flags:#x}")
        self._client_flags = flags
        self._advance(Input.GOOD_FLAGS)
        return None

    def _read_header(self) -> Event | None:
        taken = self._take(OPTION_HEADER.size)
        if taken is None:
            return None
        magic, self._option, self._length = OPTION_HEADER.unpack(taken)
        if magic != IHAVEOPT:
            return self._close(Input.BAD_MAGIC, f"an option began with {magic:#018x}")
        limit = MAX_STRING if self._option == Option.EXPORT_NAME else MAX_OPTION_DATA
        known = self._option in KNOWN
        if self._option == Option.STARTTLS:
            known = self._tls is not Tls.NONE
        if known and self._length <= limit:
            self._advance(Input.KNOWN)
        elif self._length <= MAX_OPTION_SKIP and self._option != Option.EXPORT_NAME:
            self._advance(Input.REFUSED)
        else:
            # Skipping gigabytes would only delay the error.
            what = f"{option_label(self._option)} with {self._length} bytes of data"
            return self._close(Input.ABSURD, f"the client sent {what}", self._refusal())
        return None

    def _read_data(self) -> Event | None:
        if len(self._inbox) < self._length:
            return None
        if self._option == Option.STARTTLS:
            return self._start_tls()
        if self._tls is Tls.REQUIRED and self._option != Option.ABORT:
            return self._demand_tls()
        wanted = self._exports.wanted(self._option, bytes(self._inbox[: self._length]))
        if wanted is not None:
            return wanted
        data = self._take(self._length) or b""
        try:
            answer = answer_option(self._option, data, self._exports, structured=self._structured)
        except SearchError as failure:
            answer = _failed(self._option, failure)
        if answer.structured:
            self._structured = True
        if self._option == Option.SET_META_CONTEXT:
            self._contexts = (answer.name, answer.contexts or frozenset())
        return self._event(answer)

    def _start_tls(self) -> Event:
        data = self._take(self._length)
        if data or self._tls is Tls.BEGUN:
            text = "NBD_OPT_STARTTLS takes no data, and is sent once"
            self._advance(Input.ANSWERED)
            return Reply(error_reply(Option.STARTTLS, ReplyType.ERR_INVALID, text))
        if self._inbox:
            # An attacker may have added it, to have it taken for encrypted.
            return self._close(Input.HOPELESS, "the client sent data behind NBD_OPT_STARTTLS")
        self._advance(Input.ENCRYPT)
        return StartTLS(reply(Option.STARTTLS, ReplyType.ACK))

    def _demand_tls(self) -> Event:
        self._take(self._length)
        if self._option == Option.EXPORT_NAME:
            return self._close(Input.HOPELESS, "the client wants an export without TLS")
        self._advance(Input.ANSWERED)
        return Reply(self._refusal())

    def _skip_data(self) -> Event | None:
        passed = min(self._length, len(self._inbox))
        del self._inbox[:passed]
        self._length -= passed
        if self._length:
            return None
        if self._option == Option.ABORT:
            # "NBD_OPT_ABORT" is acknowledged whatever its data.
            return self._close(Input.ABORTED, "the client aborted", self._refusal())
        if self._option == Option.SET_META_CONTEXT:
            self._contexts = ("", frozenset())  # a SET that fails undoes the one before
        self._advance(Input.SKIPPED)
        return Reply(self._refusal())

    def _event(self, answer: Answer) -> Event:
        self._advance(_INPUT_BY_OUTCOME[answer.outcome])
        if answer.export is not None:
            zeroes = self._option == Option.EXPORT_NAME and not (
                self._client_flags & ClientFlag.NO_ZEROES
            )
            data = answer.data + (EXPORT_NAME_ZEROES if zeroes else b"")
            name, contexts = self._contexts
            if name != answer.name:  # they hold for the export that they were selected for
                contexts = frozenset()
            return Chosen(data, answer.export, self._structured, contexts)
        if self.state is HandshakeState.CLOSED:
            self._inbox.clear()
            return Closed(answer.data, answer.reason)
        return Reply(answer.data)

    def _refusal(self) -> bytes:
        """Pack the reply to an option whose data is skipped."""
        if self._option == Option.EXPORT_NAME:
            return b""  # it has no error reply
        if self._option == Option.ABORT:
            return reply(Option.ABORT, ReplyType.ACK)
        if self._tls is Tls.REQUIRED:
            text = "begin TLS first: NBD_OPT_STARTTLS"
            return error_reply(self._option, ReplyType.ERR_TLS_REQD, text)
        if self._option in KNOWN:
            return error_reply(self._option, ReplyType.ERR_TOO_BIG, "too much data for this option")
        label = option_label(self._option)
        return error_reply(self._option, ReplyType.ERR_UNSUP, f"this server does not know {label}")


def _failed(option: int, failure: SearchError) -> Answer:
    outcome = Outcome.HOPELESS if option == Option.EXPORT_NAME else Outcome.GO_ON
    return Answer(failure.reply(option), outcome, reason=f"the lookup failed: {failure}")


def _nothing(_: ServerHandshake) -> Event | None:
    return None


_STEPS = {
    HandshakeState.CLIENT_FLAGS: ServerHandshake._read_client_flags,
    HandshakeState.OPTION: ServerHandshake._read_header,
    HandshakeState.DATA: ServerHandshake._read_data,
    HandshakeState.SKIP: ServerHandshake._skip_data,
    HandshakeState.TLS: _nothing,
    HandshakeState.TRANSMISSION: _nothing,
    HandshakeState.CLOSED: _nothing,
}
