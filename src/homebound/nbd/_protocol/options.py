"""The server's answer to each option of the handshake: a table of pure functions.

Every reply repeats the option's number, and the last one to an option is an ACK or an error
("Fixed newstyle negotiation").
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from .export import DEFAULT_BLOCK_SIZES, decode_name
from .meta_contexts import OFFERED, listed, parse_request, selected
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
    from collections.abc import Callable

    from .export import ExportInfo, ExportTable
    from .lookups import Lookups


class Outcome(Enum):
    """The effect of an answer on the negotiation."""

    GO_ON = "the client may send another option"
    CHOSEN = "the transmission phase begins"
    ABORT = "the client ends the negotiation"
    HOPELESS = "no answer is possible"


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes to send, and the outcome. `export` is set if and only if one was chosen."""

    data: bytes
    outcome: Outcome = Outcome.GO_ON
    export: ExportInfo | None = None
    reason: str = ""
    # The name that the client gave, of an export that was chosen or has had contexts selected.
    name: str = ""
    # Of SET_META_CONTEXT: the contexts selected, which replace earlier ones; None if it has failed.
    contexts: frozenset[str] | None = None
    structured: bool = False  # it accepts structured replies


@dataclass(frozen=True, slots=True)
class Asked:
    """One option as the client sent it, and what its answer depends on."""

    option: int
    data: bytes
    exports: ExportTable | Lookups
    structured: bool  # structured replies are negotiated

    def flags_of(self, info: ExportInfo) -> int:
        """Return the transmission flags; SEND_DF makes sense only with structured replies."""
        return info.flags | TransmissionFlag.SEND_DF if self.structured else info.flags


def reply(option: int, kind: ReplyType, data: bytes = b"") -> bytes:
    """Pack one option reply."""
    return OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, kind, len(data)) + data


def error_reply(option: int, kind: ReplyType, text: str) -> bytes:
    """Pack an error reply; `text` is for the client's user."""
    return reply(option, kind, text.encode())


def answer_option(
    option: int, data: bytes, exports: ExportTable | Lookups, *, structured: bool = False
) -> Answer:
    """Answer one of the `KNOWN` options; `data` is all of its data.

    `structured`: structured replies are negotiated.
    """
    return _ANSWERS[Option(option)](Asked(option, data, exports, structured))


def _abort(asked: Asked) -> Answer:
    # The reply is sent even if the client does not wait for it; the option's data is ignored.
    ack = reply(asked.option, ReplyType.ACK)
    return Answer(ack, Outcome.ABORT, reason="the client aborted")


def _structured_reply(asked: Asked) -> Answer:
    if asked.data:
        text = "NBD_OPT_STRUCTURED_REPLY takes no data"
        return Answer(error_reply(asked.option, ReplyType.ERR_INVALID, text))
    return Answer(reply(asked.option, ReplyType.ACK), structured=True)


def _list(asked: Asked) -> Answer:
    if asked.data:
        text = "NBD_OPT_LIST takes no data"
        return Answer(error_reply(asked.option, ReplyType.ERR_INVALID, text))
    parts = []
    for info in asked.exports:
        name = info.name.encode()
        described = LENGTH.pack(len(name)) + name + info.description.encode()
        parts.append(reply(asked.option, ReplyType.SERVER, described))
    parts.append(reply(asked.option, ReplyType.ACK))
    return Answer(b"".join(parts))


def _export_name(asked: Asked) -> Answer:
    name = decode_name(asked.data)
    info = None if name is None else asked.exports.find(name)
    if info is None:
        # There is no error reply to this option: the session MUST be terminated.
        reason = f"the client wants an unknown export: {asked.data!r}"
        return Answer(b"", Outcome.HOPELESS, reason=reason)
    data = EXPORT_NAME_REPLY.pack(info.size, asked.flags_of(info))
    return Answer(data, Outcome.CHOSEN, info, name=name or "")


def _info(asked: Asked) -> Answer:
    data, _, _ = _info_replies(asked)
    return Answer(data)


def _go(asked: Asked) -> Answer:
    data, info, name = _info_replies(asked)
    return Answer(data) if info is None else Answer(data, Outcome.CHOSEN, info, name=name)


def _meta_context(asked: Asked) -> Answer:
    """Answer LIST_META_CONTEXT or SET_META_CONTEXT."""
    option = asked.option
    if not asked.structured:
        text = "structured replies must be negotiated first"
        return Answer(error_reply(option, ReplyType.ERR_INVALID, text))
    request = parse_request(asked.data)
    if request is None:
        text = "the lengths do not add up, or a string is not one of NBD's"
        return Answer(error_reply(option, ReplyType.ERR_INVALID, text))
    name, queries = request
    if asked.exports.find(name) is None:
        return Answer(_unknown(option, name))
    sets = option == Option.SET_META_CONTEXT
    found = selected(queries) if sets else listed(queries)
    parts = [
        reply(option, ReplyType.META_CONTEXT, LENGTH.pack(OFFERED[each]) + each.encode())
        for each in sorted(found)
    ]
    data = b"".join((*parts, reply(option, ReplyType.ACK)))
    return Answer(data, name=name, contexts=found if sets else None)


# The options that this server answers without a change of transport: all but STARTTLS, which
# handshake.py answers.
_ANSWERS: dict[Option, Callable[[Asked], Answer]] = {
    Option.EXPORT_NAME: _export_name,
    Option.ABORT: _abort,
    Option.LIST: _list,
    Option.INFO: _info,
    Option.GO: _go,
    Option.STRUCTURED_REPLY: _structured_reply,
    Option.LIST_META_CONTEXT: _meta_context,
    Option.SET_META_CONTEXT: _meta_context,
}
KNOWN = frozenset(_ANSWERS)


def _unknown(option: int, name: str) -> bytes:
    return error_reply(option, ReplyType.ERR_UNKNOWN, f"no export is named '{name[:256]}'")


def _info_replies(asked: Asked) -> tuple[bytes, ExportInfo | None, str]:
    """Return the replies to INFO or GO, the export (None if they are an error), and its name."""
    option = asked.option
    request = _parse_info_request(asked.data)
    if request is None:
        text = "the lengths do not add up"
        return error_reply(option, ReplyType.ERR_INVALID, text), None, ""
    raw_name, wanted = request
    name = decode_name(raw_name)
    if name is None:
        text = f"a name is at most {MAX_STRING} bytes of UTF-8 without NUL"
        return error_reply(option, ReplyType.ERR_INVALID, text), None, ""
    info = asked.exports.find(name)
    if info is None:
        return _unknown(option, name), None, name
    described = _describe(option, info, asked.flags_of(info), wanted)
    return described + reply(option, ReplyType.ACK), info, name


def _parse_info_request(data: bytes) -> tuple[bytes, set[int]] | None:
    """Return the name and the information requests, or None if the lengths do not add up."""
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
    """Pack the NBD_REP_INFO replies; unknown information requests are ignored."""
    parts = [INFO_EXPORT.pack(Info.EXPORT, info.size, flags)]
    if Info.NAME in wanted:
        parts.append(COUNT.pack(Info.NAME) + info.name.encode())
    if Info.DESCRIPTION in wanted and info.description:
        parts.append(COUNT.pack(Info.DESCRIPTION) + info.description.encode())
    # "NBD_INFO_BLOCK_SIZE": sent if requested, and always if the sizes are not the defaults.
    if Info.BLOCK_SIZE in wanted or info.block_sizes != DEFAULT_BLOCK_SIZES:
        parts.append(INFO_BLOCK_SIZE.pack(Info.BLOCK_SIZE, *info.block_sizes))
    return b"".join(reply(option, ReplyType.INFO, part) for part in parts)
