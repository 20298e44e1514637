"""The rules of the transmission phase: what a request may ask for, and how a reply is packed.

Sans-I/O: numbers and bytes in, numbers and bytes out.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from .wire import (
    MAX_PAYLOAD,
    SIMPLE_REPLY,
    SIMPLE_REPLY_OK,
    Command,
    CommandFlag,
    Error,
)

REPLY_SIZE = SIMPLE_REPLY.size
# The two that the hot path calls for each request; SIMPLE_REPLY_OK | error is the first argument.
pack_reply = SIMPLE_REPLY.pack
pack_reply_into = SIMPLE_REPLY.pack_into


@dataclass(frozen=True, slots=True)
class Rule:
    """What is allowed of a command."""

    # Those that make sense with it; anything else is EINVAL ("Command flags"). A plain number: the
    # complement of an IntFlag has none of the bits that have no name.
    flags: int
    past_end: Error  # "Error values"
    changes: bool = False  # it changes the export, so a read-only one refuses it
    max_length: int = 0xFFFFFFFF


_FUA = int(CommandFlag.FUA)
_NO_HOLE = int(CommandFlag.NO_HOLE)

# FUA is accepted on every command, wherever it makes sense or not.
RULES: dict[int, Rule] = {
    Command.READ: Rule(_FUA, Error.EINVAL, max_length=MAX_PAYLOAD),
    Command.WRITE: Rule(_FUA, Error.ENOSPC, changes=True, max_length=MAX_PAYLOAD),
    Command.TRIM: Rule(_FUA, Error.EINVAL, changes=True),
    Command.WRITE_ZEROES: Rule(_FUA | _NO_HOLE, Error.ENOSPC, changes=True),
    # Its offset and length must be zero, which is to say it must be at the start and empty.
    Command.FLUSH: Rule(_FUA, Error.EINVAL, max_length=0),
}


def split_head(head: int) -> tuple[int, int]:
    """The command and the flags in the first 8 bytes of a request."""
    return head & 0xFFFF, head >> 16 & 0xFFFF


def verdict(head: int, offset: int, length: int, *, size: int, read_only: bool) -> Error:
    """May this request be carried out on an export of `size` bytes? `Error.OK` if so.

    DISC is not asked about: it has no reply, so it can have no error.
    """
    command, flags = split_head(head)
    rule = RULES.get(command)
    if rule is None or flags & ~rule.flags:
        return Error.EINVAL
    if rule.changes and read_only:
        return Error.EPERM
    if length > rule.max_length:
        return Error.EINVAL
    if offset + length > size or (command == Command.FLUSH and offset):
        return rule.past_end
    return Error.OK


_ERRORS = {
    errno.EPERM: Error.EPERM,
    errno.EACCES: Error.EPERM,
    errno.EROFS: Error.EPERM,
    errno.ENOMEM: Error.ENOMEM,
    errno.EINVAL: Error.EINVAL,
    errno.ENOSPC: Error.ENOSPC,
    errno.EDQUOT: Error.ENOSPC,
    errno.EFBIG: Error.ENOSPC,
}


def error_of(failure: BaseException) -> Error:
    """The protocol's value for what a disk raised; EIO for all it has no name for.

    ESHUTDOWN is not a disk's to say: clients take it for the end of the server.
    """
    number = failure.errno if isinstance(failure, OSError) else None
    return _ERRORS.get(number, Error.EIO) if isinstance(number, int) else Error.EIO


def pack_error(error: int, cookie: int) -> bytes:
    """A reply that carries only an error, or success."""
    return pack_reply(SIMPLE_REPLY_OK | error, cookie)
