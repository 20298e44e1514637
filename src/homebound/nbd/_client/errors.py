"""The client's exceptions: NBD's errors that are a disk's errors too, with an errno."""

from __future__ import annotations

import errno
import ssl
from typing import TYPE_CHECKING

from ...block import DiskError
from .._protocol.errors import NBDError, OptionRefused, RemoteProtocolError
from .._protocol.wire import ReplyType
from .reasons import reason_of

if TYPE_CHECKING:
    from .uri import Target


class ConnectError(NBDError, DiskError):
    """A failure to connect to a server or to agree on an export; `errno` says which kind."""


class ServerViolation(RemoteProtocolError, ConnectError):
    """A violation of the protocol by the server while connecting."""


class ConnectionLost(NBDError, DiskError):
    """A request got no reply: the connection was lost, and there was no other in time."""


_REFUSALS = {
    ReplyType.ERR_UNKNOWN: errno.ENOENT,
    ReplyType.ERR_POLICY: errno.EACCES,
    ReplyType.ERR_TLS_REQD: errno.EACCES,
    ReplyType.ERR_SHUTDOWN: errno.ESHUTDOWN,
    ReplyType.ERR_UNSUP: errno.ENOTSUP,
}


def connect_error(target: Target, error: BaseException) -> ConnectError:
    """Return the error of a failed attempt to connect to `target`. May look at files."""
    if isinstance(error, ConnectError):
        return error
    text = f"cannot connect to {target.label}: {reason_of(target, error)}"
    if isinstance(error, RemoteProtocolError):
        return ServerViolation(errno.EPROTO, text)
    return ConnectError(number_of(error), text)


def number_of(error: BaseException) -> int:
    """Return the errno for a failure to connect."""
    if isinstance(error, RemoteProtocolError):
        return errno.EPROTO
    if isinstance(error, OptionRefused):
        return _REFUSALS.get(error.kind, errno.EINVAL)  # type: ignore[call-overload, no-any-return]
    if isinstance(error, TimeoutError):
        return errno.ETIMEDOUT
    if isinstance(error, ssl.SSLError):
        return errno.EPROTO  # its own number is OpenSSL's
    number = getattr(error, "errno", None)
    return number if isinstance(number, int) and number > 0 else errno.EIO
