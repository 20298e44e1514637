"""The client's exceptions: NBD's errors that are a disk's errors too, with an errno."""

from __future__ import annotations

import errno

from ...block import DiskError
from .._protocol.errors import NBDError, OptionRefused, RemoteProtocolError
from .._protocol.wire import ReplyType


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


def connect_error(where: str, error: Exception) -> ConnectError:
    """Return the error of a failed attempt to connect to `where`."""
    if isinstance(error, ConnectError):
        return error
    start = f"cannot connect to {where}: "
    if isinstance(error, RemoteProtocolError):
        return ServerViolation(errno.EPROTO, f"{start}{error}")
    if isinstance(error, OptionRefused):
        number = _REFUSALS.get(error.kind, errno.EINVAL)  # type: ignore[call-overload]
        return ConnectError(number, f"{start}{error}")
    if isinstance(error, TimeoutError):
        return ConnectError(errno.ETIMEDOUT, f"{start}it does not answer in time")
    number = getattr(error, "errno", None)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ConnectError(
        number if isinstance(number, int) and number > 0 else errno.EIO, start + text
    )
