"""The rules of the transmission phase: validating requests and packing replies.

Sans-I/O: numbers and bytes in, numbers and bytes out.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from .wire import (
    CHUNK,
    DATA_CHUNK,
    ERROR_CHUNK,
    MAX_PAYLOAD,
    SIMPLE_REPLY,
    SIMPLE_REPLY_OK,
    ChunkType,
    Command,
    CommandFlag,
    Error,
    last_chunk_head,
)

REPLY_SIZE = SIMPLE_REPLY.size
CHUNK_SIZE = DATA_CHUNK.size  # before the data of a structured READ; an error is smaller
# Called by the hot path for each request; the first argument is SIMPLE_REPLY_OK | error.
pack_reply = SIMPLE_REPLY.pack
pack_reply_into = SIMPLE_REPLY.pack_into


@dataclass(frozen=True, slots=True)
class Rule:
    """The limits of a command."""

    # The valid flags; any other is EINVAL ("Command flags"). A plain number: the complement of an
    # IntFlag has none of the bits that have no name.
    flags: int
    past_end: Error  # "Error values"
    changes: bool = False  # modifies the export, so a read-only one refuses it
    max_length: int = 0xFFFFFFFF


_DATA = last_chunk_head(ChunkType.OFFSET_DATA)
_NO_DATA = last_chunk_head(ChunkType.NONE)
_ERROR = last_chunk_head(ChunkType.ERROR)

_FUA = int(CommandFlag.FUA)
_DF = int(CommandFlag.DF)
_NO_HOLE = int(CommandFlag.NO_HOLE)

# FUA is accepted on every command, even where it has no effect.
RULES: dict[int, Rule] = {
    Command.READ: Rule(_FUA, Error.EINVAL, max_length=MAX_PAYLOAD),
    Command.WRITE: Rule(_FUA, Error.ENOSPC, changes=True, max_length=MAX_PAYLOAD),
    Command.TRIM: Rule(_FUA, Error.EINVAL, changes=True),
    Command.WRITE_ZEROES: Rule(_FUA | _NO_HOLE, Error.ENOSPC, changes=True),
    # Its offset and length must be zero.
    Command.FLUSH: Rule(_FUA, Error.EINVAL, max_length=0),
}


def split_head(head: int) -> tuple[int, int]:
    """Return the command and the flags in the first 8 bytes of a request."""
    return head & 0xFFFF, head >> 16 & 0xFFFF


def verdict(  # noqa: PLR0913  (the request, and the export)
    head: int, offset: int, length: int, *, size: int, read_only: bool, structured: bool = False
) -> Error:
    """Validate a request on an export of `size` bytes; `Error.OK` if it may be carried out.

    Not for DISC: it has no reply, so it can have no error.
    """
    command, flags = split_head(head)
    rule = RULES.get(command)
    if structured and command == Command.READ:
        flags &= ~_DF  # its data is always in one chunk
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
    """Return the NBD error value for an exception of a disk; EIO where NBD has no other.

    Never ESHUTDOWN, even if a disk raises it: to clients it means that the server is stopping.
    """
    number = failure.errno if isinstance(failure, OSError) else None
    return _ERRORS.get(number, Error.EIO) if isinstance(number, int) else Error.EIO


def pack_error(error: int, cookie: int, *, chunk: bool = False) -> bytes:
    """Pack a reply that has only an error value, OK included; a chunk for a structured READ."""
    if chunk:
        return ERROR_CHUNK.pack(_ERROR, cookie, ERROR_CHUNK.size - CHUNK.size, error, 0)
    return pack_reply(SIMPLE_REPLY_OK | error, cookie)


def pack_data_head_into(out: memoryview, at: int, cookie: int, offset: int, length: int) -> int:
    """Pack the head before the data of a structured READ; return where the reply ends.

    A chunk of data may not be empty ("NBD_REPLY_TYPE_OFFSET_DATA").
    """
    if not length:
        CHUNK.pack_into(out, at, _NO_DATA, cookie, 0)
        return at + CHUNK.size
    DATA_CHUNK.pack_into(out, at, _DATA, cookie, DATA_CHUNK.size - CHUNK.size + length, offset)
    return at + CHUNK_SIZE + length


def pack_error_into(out: memoryview, at: int, error: int, cookie: int, *, chunk: bool) -> int:
    """Pack a reply that has only an error value, OK included; return where it ends."""
    data = pack_error(error, cookie, chunk=chunk)
    out[at : at + len(data)] = data
    return at + len(data)
