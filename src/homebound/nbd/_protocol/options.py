"""What the server answers to each option of the handshake. Functions of their arguments alone.

Every reply repeats the option's number, and the last one to an option is an ACK or an error
("Fixed newstyle negotiation").
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from .export import DEFAULT_BLOCK_SIZES
from .wire import (
    COUNT,
    EXPORT_NAME_REPLY,
    INFO_BLOCK_SIZE,
    INFO_EXPORT,
    LENGTH,
    MAX_STRING,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    Info,
    Option,
    ReplyType,
    TransmissionFlag,
)

if TYPE_CHECKING:
    from .export import ExportInfo, ExportTable


class Outcome(Enum):
    """How the negotiation goes on after an answer."""

    GO_ON = "the client may send another option"
    CHOSEN = "the transmission phase begins"
    ABORT = "the client wanted to end"
    HOPELESS = "no answer is possible"


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes to send, and how it goes on. `export` is set if and only if one was chosen."""

    data: bytes
    outcome: Outcome = Outcome.GO_ON
    export: ExportInfo | None = None
    reason: str = ""


def reply(option: int, kind: ReplyType, data: bytes = b"") -> bytes:
    """One reply packet."""
    return OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, kind, len(data)) + data


def error_reply(option: int, kind: ReplyType, text: str) -> bytes:
    """An error; `text` is for the client's user."""
    return reply(option, kind, text.encode())


def option_label(option: int) -> str:
    """How to call an option when talking to people."""
    try:
        return f"NBD_OPT_{Option(option).name}"
    except ValueError:
        return f"option {option}"


def answer_option(
    option: int, data: bytes, exports: ExportTable, *, structured: bool = False
) -> Answer:
    """Answer an option that this server knows; `data` is all of its data.

    `structured`: the client has agreed on structured replies.
    """
    if option == Option.ABORT:
        # The answer is sent even if the client does not wait for it; its data is ignored.
        return Answer(reply(option, ReplyType.ACK), Outcome.ABORT, reason="the client aborted")
    if option == Option.LIST:
        return Answer(_list(data, exports))
    if option == Option.STRUCTURED_REPLY:
        return Answer(_structured_reply(data))
    if option == Option.EXPORT_NAME:
        return _export_name(data, exports, structured=structured)
    return _info_or_go(option, data, exports, structured=structured)


def _structured_reply(data: bytes) -> bytes:
    if data:
        text = "NBD_OPT_STRUCTURED_REPLY takes no data"
        return error_reply(Option.STRUCTURED_REPLY, ReplyType.ERR_INVALID, text)
    return reply(Option.STRUCTURED_REPLY, ReplyType.ACK)


def _flags(info: ExportInfo, *, structured: bool) -> int:
    """The transmission flags; SEND_DF makes sense only with structured replies."""
    return info.flags | TransmissionFlag.SEND_DF if structured else info.flags


def _list(data: bytes, exports: ExportTable) -> bytes:
    if data:
        return error_reply(Option.LIST, ReplyType.ERR_INVALID, "NBD_OPT_LIST takes no data")
    parts = []
    for info in exports:
        name = info.name.encode()
        described = LENGTH.pack(len(name)) + name + info.description.encode()
        parts.append(reply(Option.LIST, ReplyType.SERVER, described))
    parts.append(reply(Option.LIST, ReplyType.ACK))
    return b"".join(parts)


def _export_name(data: bytes, exports: ExportTable, *, structured: bool) -> Answer:
    name = _decode(data)
    info = None if name is None else exports.find(name)
    if info is None:
        # There is no error reply to this option: the session MUST be terminated.
        return Answer(b"", Outcome.HOPELESS, reason=f"the client wants an unknown export: {data!r}")
    flags = _flags(info, structured=structured)
    return Answer(EXPORT_NAME_REPLY.pack(info.size, flags), Outcome.CHOSEN, info)


def _info_or_go(option: int, data: bytes, exports: ExportTable, *, structured: bool) -> Answer:
    request = _parse_info_request(data)
    if request is None:
        return Answer(error_reply(option, ReplyType.ERR_INVALID, "the lengths do not add up"))
    raw_name, wanted = request
    name = _decode(raw_name)
    if name is None:
        text = f"a name is at most {MAX_STRING} bytes of UTF-8 without NUL"
        return Answer(error_reply(option, ReplyType.ERR_INVALID, text))
    info = exports.find(name)
    if info is None:
        text = f"no export is named '{name[:256]}'"
        return Answer(error_reply(option, ReplyType.ERR_UNKNOWN, text))
    flags = _flags(info, structured=structured)
    described = _describe(option, info, flags, wanted) + reply(option, ReplyType.ACK)
    if option == Option.GO:
        return Answer(described, Outcome.CHOSEN, info)
    return Answer(described)


def _parse_info_request(data: bytes) -> tuple[bytes, set[int]] | None:
    """The name and the information wanted, or None if a length lies."""
    if len(data) < LENGTH.size + COUNT.size:
        return None
    (name_length,) = LENGTH.unpack_from(data)
    name_end = LENGTH.size + name_length
    if name_end + COUNT.size > len(data):
        return None
    (count,) = COUNT.unpack_from(data, name_end)
    listed = data[name_end + COUNT.size :]
    if len(listed) != count * COUNT.size:
        return None
    wanted = {number for (number,) in COUNT.iter_unpack(listed)}
    return data[LENGTH.size : name_end], wanted


def _describe(option: int, info: ExportInfo, flags: int, wanted: set[int]) -> bytes:
    """NBD_REP_INFO replies; a request for information that we do not know is passed over."""
    parts = [INFO_EXPORT.pack(Info.EXPORT, info.size, flags)]
    if Info.NAME in wanted:
        parts.append(COUNT.pack(Info.NAME) + info.name.encode())
    if Info.DESCRIPTION in wanted and info.description:
        parts.append(COUNT.pack(Info.DESCRIPTION) + info.description.encode())
    # "NBD_INFO_BLOCK_SIZE": owed to whoever asks, and to all if the limits are not the defaults.
    if Info.BLOCK_SIZE in wanted or info.block_sizes != DEFAULT_BLOCK_SIZES:
        parts.append(INFO_BLOCK_SIZE.pack(Info.BLOCK_SIZE, *info.block_sizes))
    return b"".join(reply(option, ReplyType.INFO, part) for part in parts)


def _decode(raw: bytes) -> str | None:
    if len(raw) > MAX_STRING or 0 in raw:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
