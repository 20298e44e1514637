"""The numbers and layouts of the NBD protocol: constants and precompiled structs, nothing else.

Names and values are those of the protocol document's section "Values"; all of it is big-endian.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct

# --- the handshake phase ("Newstyle negotiation", "Fixed newstyle negotiation") ---

INIT_PASSWD = 0x4E42444D41474943  # "NBDMAGIC"
IHAVEOPT = 0x49484156454F5054  # "IHAVEOPT"
OPTION_REPLY_MAGIC = 0x0003E889045565A9

GREETING = Struct(">QQH")  # INIT_PASSWD, IHAVEOPT, handshake flags
CLIENT_FLAGS = Struct(">I")
OPTION_HEADER = Struct(">QII")  # IHAVEOPT, option, length of its data
OPTION_REPLY = Struct(">QIII")  # OPTION_REPLY_MAGIC, option, reply type, length of its data
EXPORT_NAME_REPLY = Struct(">QH")  # size, transmission flags; then the zeroes
EXPORT_NAME_ZEROES = bytes(124)
LENGTH = Struct(">I")
COUNT = Struct(">H")
INFO_EXPORT = Struct(">HQH")  # Info.EXPORT, size, transmission flags
INFO_BLOCK_SIZE = Struct(">HIII")  # Info.BLOCK_SIZE, minimum, preferred, maximum payload

MAX_STRING = 4096  # bytes; "Conventions"


class HandshakeFlag(IntFlag):
    """The flags that the server offers in its greeting."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class ClientFlag(IntFlag):
    """The flags that the client sets in return."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class TransmissionFlag(IntFlag):
    """The capabilities of an export."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    ROTATIONAL = 1 << 4
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8
    SEND_RESIZE = 1 << 9
    SEND_CACHE = 1 << 10
    SEND_FAST_ZERO = 1 << 11


class Option(IntEnum):
    """The options of a client during the handshake."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10
    EXTENDED_HEADERS = 11


class ReplyType(IntEnum):
    """The types of replies to options. Errors have the top bit set."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = 0x80000001
    ERR_POLICY = 0x80000002
    ERR_INVALID = 0x80000003
    ERR_PLATFORM = 0x80000004
    ERR_TLS_REQD = 0x80000005
    ERR_UNKNOWN = 0x80000006
    ERR_SHUTDOWN = 0x80000007
    ERR_BLOCK_SIZE_REQD = 0x80000008
    ERR_TOO_BIG = 0x80000009


def option_label(option: int) -> str:
    """Return the name of an option for a message, or its number."""
    try:
        return f"NBD_OPT_{Option(option).name}"
    except ValueError:
        return f"option {option}"


class Info(IntEnum):
    """The information that a client may request about an export."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


# --- the transmission phase ("Request message", "Simple reply message") ---

REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF

# The first 8 bytes of a request (magic, flags, type) are read as one number, its *head*, so that
# one comparison recognizes a plain READ or WRITE with the right magic. Likewise the first 8 bytes
# of a reply (magic, error).
REQUEST = Struct(">QQQI")  # head, cookie, offset, length
REQUEST_PARTS = Struct(">IHHQQI")  # the same, with the head in parts: magic, flags, type
SIMPLE_REPLY = Struct(">QQ")  # SIMPLE_REPLY_MAGIC << 32 | error, cookie
SIMPLE_REPLY_OK = SIMPLE_REPLY_MAGIC << 32
# "Structured reply message": head, cookie, length of the rest; then, for data, its offset.
CHUNK = Struct(">QQI")  # STRUCTURED_REPLY_MAGIC << 32 | flags << 16 | type, cookie, length
DATA_CHUNK = Struct(">QQIQ")
HOLE_CHUNK = Struct(">QQIQI")  # ..., offset and length of zeroes
STATUS_CHUNK = Struct(">QQII")  # ..., id of a metadata context; then extents
EXTENT = Struct(">II")  # length, state
ERROR_CHUNK = Struct(">QQIIH")  # ..., error, length of a text
ERROR_OFFSET_CHUNK = Struct(">QQIIHQ")  # ..., error, length of a text (0), offset

MAX_PAYLOAD = 32 << 20  # bytes; the minimum that "Size constraints" requires of a server by default


class Command(IntEnum):
    """The commands of requests."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7
    RESIZE = 8


class CommandFlag(IntFlag):
    """The flags of requests."""

    FUA = 1 << 0
    NO_HOLE = 1 << 1
    DF = 1 << 2
    REQ_ONE = 1 << 3
    FAST_ZERO = 1 << 4


class ChunkFlag(IntFlag):
    """The flags of the chunks of a structured reply."""

    DONE = 1 << 0


class ChunkType(IntEnum):
    """The types of chunks. Errors have the top bit set."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = 1 << 15 | 1
    ERROR_OFFSET = 1 << 15 | 2


class Error(IntEnum):
    """The error values a reply may carry; no others ("Error values")."""

    OK = 0
    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108


def request_head(command: int, flags: int = 0) -> int:
    """Return the first 8 bytes of a request, as a number."""
    return REQUEST_MAGIC << 32 | flags << 16 | command


PLAIN_READ = request_head(Command.READ)
PLAIN_WRITE = request_head(Command.WRITE)


def last_chunk_head(kind: ChunkType) -> int:
    """Return the first 8 bytes of a structured reply's only or last chunk, as a number."""
    return STRUCTURED_REPLY_MAGIC << 32 | ChunkFlag.DONE << 16 | kind


def chunk_head(kind: ChunkType) -> int:
    """Return the first 8 bytes of a chunk that others follow, as a number."""
    return STRUCTURED_REPLY_MAGIC << 32 | kind


# --- what a client reads ---

OPTION_REPLY_ERROR = 1 << 31  # set in the type of each error reply
ID = Struct(">I")  # of a metadata context
CHUNK_ERROR = 1 << 15  # set in the type of each error chunk
HOLE_BODY = Struct(">QI")  # offset, length
OFFSET = Struct(">Q")
ERROR_BODY = Struct(">IH")  # error, length of a text
MAX_EXTENTS = 1 << 20  # in a reply, for one context
STATE_HOLE = 1 << 0  # the flags of base:allocation
STATE_ZERO = 1 << 1
