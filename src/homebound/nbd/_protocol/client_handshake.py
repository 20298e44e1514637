"""The client's side of the handshake, without I/O, as generators.

Each yields what is to be done: bytes, which are to be sent, or a number, so many of which are to be
received and passed to `send`. The shells that do it block (`_client/dial.py`) or are in memory. So
a client never receives more than belongs to the option, and can begin TLS at the right byte.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import OptionRefused, RemoteProtocolError
from .export import DEFAULT_BLOCK_SIZES, check_string
from .option_replies import (
    MAX_ERROR_TEXT,
    MAX_REPLY,
    parse_context,
    parse_export,
    parse_info,
    parse_text,
)
from .wire import (
    CLIENT_FLAGS,
    COUNT,
    EXPORT_NAME_REPLY,
    EXPORT_NAME_ZEROES,
    GREETING,
    IHAVEOPT,
    INIT_PASSWD,
    LENGTH,
    OPTION_HEADER,
    OPTION_REPLY,
    OPTION_REPLY_ERROR,
    OPTION_REPLY_MAGIC,
    ClientFlag,
    HandshakeFlag,
    Info,
    Option,
    ReplyType,
    TransmissionFlag,
    option_label,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence


MAX_ENTRIES = 10_000  # exports, or contexts, that one option may list
MAX_LIST = 16 << 20  # bytes of them
MAX_INFOS = 100  # INFO replies to one option
_OLD_STYLE = 0x00420281861253


@dataclass(frozen=True, slots=True)
class RemoteExport:
    """An export as the server describes it; sizes are in bytes."""

    name: str
    size: int
    flags: TransmissionFlag
    # minimum, preferred, largest payload
    block_sizes: tuple[int, int, int] = DEFAULT_BLOCK_SIZES
    sizes_told: bool = False  # the server has sent block_sizes
    canonical_name: str = ""
    description: str = ""
    structured: bool = False  # structured replies are negotiated
    contexts: dict[int, str] = field(default_factory=dict)  # the negotiated ones, by id


class ClientHandshake:
    """One negotiation; the attributes say what has been agreed. Options come one at a time."""

    __slots__ = ("_contexts_of", "contexts", "fixed", "no_zeroes", "structured", "tls")

    def __init__(self) -> None:
        self.fixed = False
        self.no_zeroes = False
        self.structured = False
        self.tls = False
        self.contexts: dict[int, str] = {}
        self._contexts_of: str | None = None  # the name of the export that they hold for

    def greet(self) -> Generator[bytes | int, bytes, None]:
        """Read the greeting, and answer it."""
        magic, second, flags = GREETING.unpack((yield GREETING.size))
        if magic != INIT_PASSWD:
            raise RemoteProtocolError(f"this is no NBD server: it begins with {magic:#018x}")
        if second == _OLD_STYLE:
            raise RemoteProtocolError("the server speaks only the old handshake, without options")
        if second != IHAVEOPT:
            raise RemoteProtocolError(f"this is no NBD server: its greeting has {second:#018x}")
        self.fixed = bool(flags & HandshakeFlag.FIXED_NEWSTYLE)
        self.no_zeroes = bool(flags & HandshakeFlag.NO_ZEROES)
        answer = ClientFlag(0)
        if self.fixed:
            answer |= ClientFlag.FIXED_NEWSTYLE
        if self.no_zeroes:
            answer |= ClientFlag.NO_ZEROES
        yield CLIENT_FLAGS.pack(answer)

    def begin_tls(self) -> Generator[bytes | int, bytes, None]:
        """Have TLS begin with the next byte in each direction. Raises OptionRefused."""
        self._check_fixed(Option.STARTTLS)
        yield from self._plain(Option.STARTTLS)
        # "NBD_OPT_STARTTLS": what was agreed before is forgotten.
        self.tls, self.structured, self.contexts = True, False, {}

    def structured_replies(self) -> Generator[bytes | int, bytes, bool]:
        """Agree on structured replies; False if the server does not know them."""
        if self.fixed and not self.structured:
            try:
                yield from self._plain(Option.STRUCTURED_REPLY)
            except OptionRefused:
                return False
            self.structured = True
        return self.structured

    def set_contexts(
        self, name: str, queries: Sequence[str]
    ) -> Generator[bytes | int, bytes, dict[int, str]]:
        """Select the metadata contexts of the export `name`: those that are there, by their ids.

        Without queries none is selected, not even those that were before.
        """
        before = self.contexts
        self.contexts, self._contexts_of = {}, name
        if (queries or before) and self.structured:
            try:
                found = yield from self._contexts(Option.SET_META_CONTEXT, name, queries)
            except OptionRefused:
                return {}
            self.contexts = dict(found)
            if len(self.contexts) < len(found):
                raise RemoteProtocolError("the server gives two metadata contexts the same id")
        return self.contexts

    def list_contexts(
        self, name: str, queries: Sequence[str] = ()
    ) -> Generator[bytes | int, bytes, list[str]]:
        """Return the metadata contexts that the export `name` has. Raises OptionRefused."""
        self._check_fixed(Option.LIST_META_CONTEXT)
        found = yield from self._contexts(Option.LIST_META_CONTEXT, name, queries)
        return [context for _, context in found]

    def list_exports(self) -> Generator[bytes | int, bytes, list[tuple[str, str]]]:
        """Return the exports, each with its description. Raises OptionRefused."""
        self._check_fixed(Option.LIST)
        entries = yield from self._entries(Option.LIST, b"", ReplyType.SERVER)
        return [parse_export(entry) for entry in entries]

    def info(self, name: str) -> Generator[bytes | int, bytes, RemoteExport]:
        """Return what the server says of the export `name`. Raises OptionRefused."""
        self._check_fixed(Option.INFO)
        return (yield from self._describe(Option.INFO, name))

    def go(self, name: str) -> Generator[bytes | int, bytes, RemoteExport]:
        """Choose the export `name`; the transmission phase begins. Raises OptionRefused."""
        if self.fixed:
            try:
                return (yield from self._describe(Option.GO, name))
            except OptionRefused as error:
                if error.kind != ReplyType.ERR_UNSUP:
                    raise
        return (yield from self.export_name(name))

    def export_name(self, name: str) -> Generator[bytes | int, bytes, RemoteExport]:
        """Choose the export in the old way: a server that refuses it can only disconnect."""
        yield self._pack(Option.EXPORT_NAME, _encoded(name))
        size, flags = EXPORT_NAME_REPLY.unpack((yield EXPORT_NAME_REPLY.size))
        if not self.no_zeroes:
            yield len(EXPORT_NAME_ZEROES)
        return self._checked(name, size, flags)

    def abort(self) -> Generator[bytes | int, bytes, None]:
        """Say that the client goes; it need not wait for the answer."""
        if self.fixed:
            yield self._pack(Option.ABORT)

    # Parts.

    def _check_fixed(self, option: Option) -> None:
        if not self.fixed:
            text = "it does not speak the fixed newstyle handshake"
            raise OptionRefused(option, ReplyType.ERR_UNSUP, text)

    @staticmethod
    def _pack(option: Option, data: bytes = b"") -> bytes:
        return OPTION_HEADER.pack(IHAVEOPT, option, len(data)) + data

    def _reply(self, option: Option) -> Generator[bytes | int, bytes, tuple[int, bytes]]:
        """Read a reply: its type and data. Raises OptionRefused if it is an error."""
        magic, number, kind, length = OPTION_REPLY.unpack((yield OPTION_REPLY.size))
        if magic != OPTION_REPLY_MAGIC:
            raise RemoteProtocolError(f"a reply to {option.name} begins with {magic:#018x}")
        if number != option:
            text = f"{option_label(number)} was answered, not {option_label(option)}"
            raise RemoteProtocolError(text)
        refused = bool(kind & OPTION_REPLY_ERROR)
        if length > (MAX_ERROR_TEXT if refused else MAX_REPLY):
            raise RemoteProtocolError(f"a reply to {option.name} has {length} bytes of data")
        data = (yield length) if length else b""
        if refused:
            raise OptionRefused(option, kind, parse_text(data))
        return kind, data

    def _plain(self, option: Option) -> Generator[bytes | int, bytes, None]:
        """Send an option without data, and read its ACK."""
        yield self._pack(option)
        kind, data = yield from self._reply(option)
        _check_ack(option, kind, data)

    def _entries(
        self, option: Option, data: bytes, wanted: ReplyType
    ) -> Generator[bytes | int, bytes, list[bytes]]:
        """Send an option; return the data of each reply of the type `wanted` before the ACK."""
        yield self._pack(option, data)
        found: list[bytes] = []
        size = 0
        while True:
            kind, entry = yield from self._reply(option)
            if kind != wanted:
                _check_ack(option, kind, entry)
                return found
            found.append(entry)
            size += len(entry)
            if len(found) > MAX_ENTRIES or size > MAX_LIST:
                raise RemoteProtocolError(
                    f"the list after {option.name} does not end: {len(found)} entries came"
                )

    def _contexts(
        self, option: Option, name: str, queries: Sequence[str]
    ) -> Generator[bytes | int, bytes, list[tuple[int, str]]]:
        data = _string(name) + LENGTH.pack(len(queries)) + b"".join(map(_query, queries))
        entries = yield from self._entries(option, data, ReplyType.META_CONTEXT)
        return [parse_context(entry) for entry in entries]

    def _describe(self, option: Option, name: str) -> Generator[bytes | int, bytes, RemoteExport]:
        wanted = (Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE)
        data = _string(name) + COUNT.pack(len(wanted)) + b"".join(map(COUNT.pack, wanted))
        yield self._pack(option, data)
        found: dict[str, object] = {}
        for _ in range(MAX_INFOS):
            kind, reply = yield from self._reply(option)
            if kind != ReplyType.INFO:
                _check_ack(option, kind, reply)
                break
            found.update(parse_info(reply))
        else:
            raise RemoteProtocolError(f"the answer to {option.name} does not end")
        if "size" not in found:
            raise RemoteProtocolError(f"{option.name} was acknowledged without the export's size")
        return self._checked(name, **found)  # type: ignore[arg-type]

    def _checked(self, name: str, size: int, flags: int, **told: object) -> RemoteExport:
        if size >= 1 << 63:
            raise RemoteProtocolError(f"export {name!r} has {size} bytes, which no disk has")
        if not flags & TransmissionFlag.HAS_FLAGS:
            raise RemoteProtocolError(f"export {name!r} has the flags {flags:#x}, invalid ones")
        if "block_sizes" in told:
            told["sizes_told"] = True
        contexts = self.contexts if self._contexts_of == name else {}
        return RemoteExport(
            name,
            size,
            TransmissionFlag(flags),
            structured=self.structured,
            contexts=contexts,
            **told,  # type: ignore[arg-type]
        )


def _encoded(text: str, what: str = "export name") -> bytes:
    check_string(text, what)
    return text.encode()


def _string(text: str, what: str = "export name") -> bytes:
    data = _encoded(text, what)
    return LENGTH.pack(len(data)) + data


def _query(text: str) -> bytes:
    return _string(text, "metadata context")


def _check_ack(option: Option, kind: int, data: bytes) -> None:
    if kind != ReplyType.ACK:
        raise RemoteProtocolError(f"the server answers {option.name} with a reply of type {kind}")
    if data:
        raise RemoteProtocolError(f"the acknowledgement of {option.name} has {len(data)} bytes")
