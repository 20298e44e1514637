"""The rules of the transmission phase: validating requests and packing replies.

Sans-I/O: numbers and bytes in, numbers and bytes out.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from .errors import NBDError
from .meta_contexts import ALLOCATION, OFFERED
from .wire import (
    CHUNK,
    DATA_CHUNK,
    ERROR_CHUNK,
    ERROR_OFFSET_CHUNK,
    EXTENT,
    HOLE_CHUNK,
    MAX_PAYLOAD,
    SIMPLE_REPLY,
    SIMPLE_REPLY_OK,
    STATUS_CHUNK,
    ChunkType,
    Command,
    CommandFlag,
    Error,
    chunk_head,
    last_chunk_head,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

REPLY_SIZE = SIMPLE_REPLY.size
CHUNK_SIZE = DATA_CHUNK.size  # before the data of a structured READ; an error is smaller
_OFFSET_SIZE = CHUNK_SIZE - CHUNK.size  # counts as a part of the data
HOLE_SIZE = HOLE_CHUNK.size
# Called by the hot path for each request; the first argument is SIMPLE_REPLY_OK | error.
pack_reply = SIMPLE_REPLY.pack
pack_reply_into = SIMPLE_REPLY.pack_into
_pack_data_into = DATA_CHUNK.pack_into


@dataclass(frozen=True, slots=True)
class Rule:
    """The limits of a command."""

    # The valid flags; any other is EINVAL ("Command flags"). A plain number: the complement of an
    # IntFlag has none of the bits that have no name.
    flags: int
    past_end: Error  # "Error values"
    changes: bool = False  # modifies the export, so a read-only one refuses it
    min_length: int = 0
    max_length: int = 0xFFFFFFFF


_DATA = last_chunk_head(ChunkType.OFFSET_DATA)
_NO_DATA = last_chunk_head(ChunkType.NONE)
_ERROR = last_chunk_head(ChunkType.ERROR)
_ERROR_OFFSET = last_chunk_head(ChunkType.ERROR_OFFSET)
_MORE_DATA = chunk_head(ChunkType.OFFSET_DATA)
_HOLE = chunk_head(ChunkType.OFFSET_HOLE)
_STATUS = last_chunk_head(ChunkType.BLOCK_STATUS)

_FUA = int(CommandFlag.FUA)
_DF = int(CommandFlag.DF)
_NO_HOLE = int(CommandFlag.NO_HOLE)
_REQ_ONE = int(CommandFlag.REQ_ONE)
_FAST_ZERO = int(CommandFlag.FAST_ZERO)
_READ, _BLOCK_STATUS = int(Command.READ), int(Command.BLOCK_STATUS)
_FLUSH, _OK = int(Command.FLUSH), Error.OK

# FUA is accepted on every command, even where it has no effect.
RULES: dict[int, Rule] = {
    Command.READ: Rule(_FUA, Error.EINVAL, max_length=MAX_PAYLOAD),
    Command.WRITE: Rule(_FUA, Error.ENOSPC, changes=True, max_length=MAX_PAYLOAD),
    Command.TRIM: Rule(_FUA, Error.EINVAL, changes=True),
    Command.CACHE: Rule(_FUA, Error.EINVAL),
    Command.WRITE_ZEROES: Rule(_FUA | _NO_HOLE | _FAST_ZERO, Error.ENOSPC, changes=True),
    Command.BLOCK_STATUS: Rule(_FUA | _REQ_ONE, Error.EINVAL, min_length=1),
    # Its offset and length must be zero.
    Command.FLUSH: Rule(_FUA, Error.EINVAL, max_length=0),
}


def split_head(head: int) -> tuple[int, int]:
    """Return the command and the flags in the first 8 bytes of a request."""
    return head & 0xFFFF, head >> 16 & 0xFFFF


@dataclass(frozen=True, slots=True)
class Session:
    """The limits of requests: the export, and what was negotiated."""

    size: int  # of the export, in bytes
    read_only: bool = False
    fast_zero: bool = False  # SEND_FAST_ZERO was advertised
    structured: bool = False  # structured replies are negotiated
    contexts: frozenset[str] = frozenset()  # the metadata contexts selected


def verdict(session: Session, head: int, offset: int, length: int) -> Error:
    """Validate a request; `Error.OK` if it may be carried out.

    Not for DISC: it has no reply, so it can have no error.
    """
    command, flags = head & 0xFFFF, head >> 16 & 0xFFFF  # split_head, without the call
    rule = RULES.get(command)
    if session.structured and command == _READ:
        flags &= ~_DF
    if rule is None or flags & ~rule.flags or length < rule.min_length:
        return Error.EINVAL
    if (flags & _FAST_ZERO and not session.fast_zero) or (
        command == _BLOCK_STATUS and not session.contexts
    ):
        return Error.EINVAL  # it was not offered, or not negotiated
    read_only, size = session.read_only, session.size
    if rule.changes and read_only:
        return Error.EPERM
    if length > rule.max_length:
        return Error.EINVAL
    if offset + length > size or (command == _FLUSH and offset):
        return rule.past_end
    return _OK


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


def error_of(failure: BaseException, *, fast_zero: bool = False) -> Error:
    """Return the NBD error value for an exception of a disk; EIO where NBD has no other.

    Never ESHUTDOWN, even if a disk raises it: to clients it means that the server is stopping. An
    NBDError has it only if that is so. Only a request with `fast_zero` is told ENOTSUP.
    """
    number = failure.errno if isinstance(failure, OSError) else None
    if number == errno.ESHUTDOWN and isinstance(failure, NBDError):
        return Error.ESHUTDOWN
    if number == errno.ENOTSUP and fast_zero:
        return Error.ENOTSUP
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
    _pack_data_into(out, at, _DATA, cookie, _OFFSET_SIZE + length, offset)
    return at + CHUNK_SIZE + length


def pack_error_into(out: memoryview, at: int, error: int, cookie: int, *, chunk: bool) -> int:
    """Pack a reply that has only an error value, OK included; return where it ends."""
    data = pack_error(error, cookie, chunk=chunk)
    out[at : at + len(data)] = data
    return at + len(data)


# The chunks of a READ in parts: each of these returns where it ends.


def pack_part_head_into(out: memoryview, at: int, cookie: int, offset: int, length: int) -> int:
    """Pack the head before data that other chunks follow; it ends where the data begins."""
    _pack_data_into(out, at, _MORE_DATA, cookie, _OFFSET_SIZE + length, offset)
    return at + CHUNK_SIZE


def pack_hole_into(out: memoryview, at: int, cookie: int, offset: int, length: int) -> int:
    """Pack a chunk for zeroes, which others follow."""
    HOLE_CHUNK.pack_into(out, at, _HOLE, cookie, HOLE_SIZE - CHUNK.size, offset, length)
    return at + HOLE_SIZE


def pack_done_into(out: memoryview, at: int, cookie: int) -> int:
    """Pack the last chunk, without data."""
    CHUNK.pack_into(out, at, _NO_DATA, cookie, 0)
    return at + CHUNK.size


def pack_error_at_into(out: memoryview, at: int, error: int, cookie: int, offset: int) -> int:
    """Pack the last chunk of a READ that has failed at `offset`."""
    size = ERROR_OFFSET_CHUNK.size - CHUNK.size
    ERROR_OFFSET_CHUNK.pack_into(out, at, _ERROR_OFFSET, cookie, size, error, 0, offset)
    return at + ERROR_OFFSET_CHUNK.size


# Block status.

STATUS_SIZE = STATUS_CHUNK.size  # without extents
EXTENT_SIZE = EXTENT.size
# In a reply. NBD allows a million, which would take the home half a second; a client
# asks again for the rest.
MAX_EXTENTS = 4096


def status_room(length: int) -> int:
    """Return the most bytes that the reply to a BLOCK_STATUS of `length` bytes may have."""
    return STATUS_SIZE + EXTENT_SIZE * min(length // 512 + 2, MAX_EXTENTS)


def pack_status_into(
    out: memoryview, at: int, cookie: int, extents: Sequence[tuple[int, int]]
) -> int:
    """Pack lengths and states for base:allocation."""
    size = EXTENT_SIZE * len(extents)
    body = STATUS_SIZE - CHUNK.size + size
    STATUS_CHUNK.pack_into(out, at, _STATUS, cookie, body, OFFERED[ALLOCATION])
    at += STATUS_SIZE
    struct.pack_into(f">{2 * len(extents)}I", out, at, *chain.from_iterable(extents))
    return at + size
