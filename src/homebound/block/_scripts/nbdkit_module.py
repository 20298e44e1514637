"""The module `nbdkit` that plugins import: constants, and functions about the present connection.

nbdkit-python-plugin(3) and nbdkit-plugin(3) describe them. A call of a plugin's function is made
for a connection, its *session*; these functions find it in the state of the thread.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("homebound.nbdkit")

FLAG_MAY_TRIM, FLAG_FUA, FLAG_REQ_ONE, FLAG_FAST_ZERO = 1, 2, 4, 8
FUA_NONE, FUA_EMULATE, FUA_NATIVE = 0, 1, 2
CACHE_NONE, CACHE_EMULATE, CACHE_NATIVE = 0, 1, 2
EXTENT_HOLE, EXTENT_ZERO = 1, 2
SERIALIZE_CONNECTIONS, SERIALIZE_ALL_REQUESTS, SERIALIZE_REQUESTS, PARALLEL = 0, 1, 2, 3

_CONSTANTS = {
    "THREAD_MODEL_SERIALIZE_CONNECTIONS": SERIALIZE_CONNECTIONS,
    "THREAD_MODEL_SERIALIZE_ALL_REQUESTS": SERIALIZE_ALL_REQUESTS,
    "THREAD_MODEL_SERIALIZE_REQUESTS": SERIALIZE_REQUESTS,
    "THREAD_MODEL_PARALLEL": PARALLEL,
    "FLAG_MAY_TRIM": FLAG_MAY_TRIM,
    "FLAG_FUA": FLAG_FUA,
    "FLAG_REQ_ONE": FLAG_REQ_ONE,
    "FLAG_FAST_ZERO": FLAG_FAST_ZERO,
    "FUA_NONE": FUA_NONE,
    "FUA_EMULATE": FUA_EMULATE,
    "FUA_NATIVE": FUA_NATIVE,
    "CACHE_NONE": CACHE_NONE,
    "CACHE_EMULATE": CACHE_EMULATE,
    "CACHE_NATIVE": CACHE_NATIVE,
    "EXTENT_HOLE": EXTENT_HOLE,
    "EXTENT_ZERO": EXTENT_ZERO,
}
_SIZE = re.compile(r"(\d+)([bkmgtpe]?)", re.IGNORECASE)
_SHIFTS = {letter: 10 * power for power, letter in enumerate("bkmgtpe")} | {"": 0}
_SECTOR = re.compile(r"(\d+)s", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Session:
    """The connection that a plugin is called for.

    `client` has what `homebound.nbd.ClientInfo` has, None outside of a server. `shutdown` ends the
    server.
    """

    export_name: str = ""
    client: Any = None
    shutdown: Callable[[], None] | None = None


class _Here(threading.local):
    session: Session | None = None
    error: int = 0  # of `set_error`, since the plugin's function was called


here = _Here()


def _session(function: str) -> Session:
    if here.session is None:
        raise RuntimeError(f"nbdkit.{function} failed: no client is connected here")
    return here.session


def _of_client(function: str, name: str) -> Any:
    value = getattr(_session(function).client, name, None)
    if value is None:
        raise RuntimeError(f"nbdkit.{function} failed: it is not known of this client")
    return value


def debug(msg: str) -> None:
    """Log a message for developers, by the logger `homebound.nbdkit`."""
    logger.debug("%s", msg)


def export_name() -> str:
    """Return the name of the export that the client has chosen."""
    return _session("export_name").export_name


def set_error(err: int) -> None:
    """Say which errno the exception that follows stands for."""
    if not isinstance(err, int):
        raise TypeError(f"nbdkit.set_error takes an errno, an int, not {err!r}")
    here.error = err


def shutdown() -> None:
    """Have the server stop, soon after."""
    end = here.session.shutdown if here.session is not None else None
    if end is None:
        raise RuntimeError("nbdkit.shutdown failed: there is no server to stop")
    end()


def disconnect(force: object) -> None:
    """Disconnect the client, at once with `force`, else after its requests."""
    client = _session("disconnect").client
    if client is not None:
        client.disconnect(force=bool(force))


def parse_size(text: str) -> int:
    """Return the number of bytes that `100M`, for instance, stands for; `10s` are sectors."""
    if not isinstance(text, str):
        raise TypeError(f"nbdkit.parse_size takes a str, not {text!r}")
    if sectors := _SECTOR.fullmatch(text):
        return int(sectors[1]) * 512
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("Unable to parse string as size")
    return int(match[1]) << _SHIFTS[match[2].lower()]


def is_tls() -> bool:
    """Return whether the connection is encrypted."""
    return bool(getattr(_session("is_tls").client, "tls", False))


def peer_name() -> Any:
    """Return the address of the client, as `socket.getpeername` does."""
    return _of_client("peer_name", "address")


def peer_pid() -> int:
    """Return the process of a client on a Unix socket."""
    return int(_of_client("peer_pid", "process"))


def peer_uid() -> int:
    """Return the user of a client on a Unix socket."""
    return int(_of_client("peer_uid", "user"))


def peer_gid() -> int:
    """Return the group of a client on a Unix socket."""
    return int(_of_client("peer_gid", "group"))


def peer_tls_dn() -> str:
    """Return the subject of the client's certificate; empty if it has none."""
    return getattr(_session("peer_tls_dn").client, "tls_subject", None) or ""


def nanosleep(sec: int, nsec: int) -> None:
    """Sleep, in the calling worker."""
    time.sleep(sec + nsec / 1e9)


def stdio_safe() -> bool:
    """Return whether a plugin may read standard input: it may not, a command may have it."""
    return False


_FUNCTIONS = (
    debug,
    disconnect,
    export_name,
    is_tls,
    nanosleep,
    parse_size,
    peer_gid,
    peer_name,
    peer_pid,
    peer_tls_dn,
    peer_uid,
    set_error,
    shutdown,
    stdio_safe,
)


def install() -> ModuleType:
    """Return the module `nbdkit`, which can be imported from now on."""
    module = sys.modules.get("nbdkit")
    if module is None:
        module = ModuleType("nbdkit", "The functions and constants of nbdkit, for its plugins.")
        vars(module).update(_CONSTANTS)
        vars(module).update({function.__name__: function for function in _FUNCTIONS})
        module = sys.modules.setdefault("nbdkit", module)
    return module
