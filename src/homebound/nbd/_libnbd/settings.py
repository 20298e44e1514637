"""The settings of a handle before it connects."""

from __future__ import annotations

import errno
import itertools
import os
import sys
from typing import TYPE_CHECKING, Any

from ..._os.guard import new_guard
from .constants import (
    ALLOW_TRANSPORT_MASK,
    HANDSHAKE_FLAG_MASK,
    STRICT_MASK,
    TLS_ALLOW,
    TLS_DISABLE,
    TLS_REQUIRE,
)
from .error import failure

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_NAME = 4096
_numbers = itertools.count(1)


class Settings:
    """The settings of a handle. Its lock lets one thread at a time use it."""

    def __init__(self) -> None:
        self._lock: Any = new_guard()
        self._name = f"nbd{next(_numbers)}"
        self._private_data = 0
        self._debugs = os.environ.get("LIBNBD_DEBUG") == "1"
        self._debug_callback: Callable[[str, str], object] | None = None
        self._export_name = ""
        self._full_info = False
        self._tls = TLS_DISABLE
        self._tls_certificates = ""
        self._tls_verify_peer = True
        self._tls_username: str | None = None
        self._tls_psk_file = ""
        self._structured = True
        self._block_size = True
        self._initialize = True
        self._handshake_flags = HANDSHAKE_FLAG_MASK
        self._strict = STRICT_MASK
        self._opt_mode = False
        self._contexts: list[str] = []
        self._request_contexts = True
        self._uri_transports = ALLOW_TRANSPORT_MASK
        self._uri_tls = TLS_ALLOW
        self._uri_files = False

    def _say(self, context: str, text: str) -> None:
        """Emit a debug message."""
        if not self._debugs:
            return
        if self._debug_callback is not None:
            self._debug_callback(f"nbd_{context}", text)
        else:
            print(f"libnbd: debug: {self._name}: nbd_{context}: {text}", file=sys.stderr)  # noqa: T201

    def _check_created(self, call: str) -> None:
        """Raise Error if the handle has connected: it is too late to set this."""

    def _forget_export(self) -> None:
        """Forget what is known of an export: another one is to be asked for."""

    def set_debug(self, debug: bool) -> None:  # noqa: FBT001  (libnbd's)
        """Turn debug messages on or off.

        Called from: any thread.
        """
        self._debugs = bool(debug)

    def get_debug(self) -> bool:
        """Return whether there are debug messages.

        Called from: any thread.
        """
        return self._debugs

    def set_debug_callback(self, debug: Callable[[str, str], object]) -> None:
        """Have debug messages passed to `debug(context, message)`, not to stderr.

        Called from: any thread.
        """
        self._debug_callback = debug

    def clear_debug_callback(self) -> None:
        """Have debug messages printed to stderr again.

        Called from: any thread.
        """
        self._debug_callback = None

    def set_handle_name(self, handle_name: str) -> None:
        """Set the name that debug messages have.

        Called from: any thread.
        """
        self._name = handle_name

    def get_handle_name(self) -> str:
        """Return the name that debug messages have.

        Called from: any thread.
        """
        return self._name

    def set_private_data(self, private_data: int) -> int:
        """Store a number of the caller's; return the one before.

        Called from: any thread.
        """
        before, self._private_data = self._private_data, private_data
        return before

    def get_private_data(self) -> int:
        """Return the caller's number.

        Called from: any thread.
        """
        return self._private_data

    def set_export_name(self, export_name: str) -> None:
        """Set the export to ask for.

        Called from: any thread.
        """
        self._check_created("set_export_name")
        if len(export_name.encode()) > _MAX_NAME:
            text = "export name too long for NBD protocol"
            raise failure("set_export_name", text, errno.ENAMETOOLONG)
        if export_name != self._export_name:
            self._export_name = export_name
            self._forget_export()

    def get_export_name(self) -> str:
        """Return the export to ask for.

        Called from: any thread.
        """
        return self._export_name

    def set_full_info(self, request: bool) -> None:  # noqa: FBT001  (libnbd's)
        """Set whether the name and the description that the server has are asked for.

        Called from: any thread.
        """
        self._full_info = bool(request)

    def get_full_info(self) -> bool:
        """Return whether the server's name and description are asked for.

        Called from: any thread.
        """
        return self._full_info

    def set_tls(self, tls: int) -> None:
        """Set whether TLS is used: TLS_DISABLE, TLS_ALLOW or TLS_REQUIRE.

        Called from: any thread.
        """
        self._check_created("set_tls")
        if not TLS_DISABLE <= tls <= TLS_REQUIRE:
            raise failure("set_tls", f"tls: invalid value for parameter: {tls}", errno.EINVAL)
        self._tls = tls

    def get_tls(self) -> int:
        """Return whether TLS is used.

        Called from: any thread.
        """
        return self._tls

    def set_tls_certificates(self, dir: str) -> None:  # noqa: A002  (libnbd's name)
        """Set the directory of the certificates.

        Called from: any thread.
        """
        self._tls_certificates = os.fspath(dir)

    def set_tls_verify_peer(self, verify: bool) -> None:  # noqa: FBT001  (libnbd's)
        """Set whether the server's certificate is verified.

        Called from: any thread.
        """
        self._tls_verify_peer = bool(verify)

    def get_tls_verify_peer(self) -> bool:
        """Return whether the server's certificate is verified.

        Called from: any thread.
        """
        return self._tls_verify_peer

    def set_tls_username(self, username: str) -> None:
        """Set whose key of the PSK file is used.

        Called from: any thread.
        """
        self._tls_username = username

    def get_tls_username(self) -> str:
        """Return whose key of the PSK file is used.

        Called from: any thread.
        """
        return self._tls_username or ""

    def set_tls_psk_file(self, filename: str) -> None:
        """Set the file of pre-shared keys.

        Called from: any thread.
        """
        self._tls_psk_file = os.fspath(filename)

    def set_request_structured_replies(self, request: bool) -> None:  # noqa: FBT001  (libnbd's)
        """Set whether structured replies are asked for.

        Called from: any thread.
        """
        self._structured = bool(request)

    def get_request_structured_replies(self) -> bool:
        """Return whether structured replies are asked for.

        Called from: any thread.
        """
        return self._structured

    def set_request_block_size(self, request: bool) -> None:  # noqa: FBT001  (libnbd's)
        """Set whether block sizes are asked for; this client always does.

        Called from: any thread.
        """
        self._block_size = bool(request)

    def get_request_block_size(self) -> bool:
        """Return what was set by `set_request_block_size`.

        Called from: any thread.
        """
        return self._block_size

    def set_pread_initialize(self, request: bool) -> None:  # noqa: FBT001  (libnbd's)
        """Set whether read buffers are cleared first; they always are here.

        Called from: any thread.
        """
        self._initialize = bool(request)

    def get_pread_initialize(self) -> bool:
        """Return what was set by `set_pread_initialize`.

        Called from: any thread.
        """
        return self._initialize

    def set_handshake_flags(self, flags: int) -> None:
        """Set the flags of the handshake that may be used; this client uses both.

        Called from: any thread.
        """
        self._check_mask("set_handshake_flags", flags, HANDSHAKE_FLAG_MASK)
        self._handshake_flags = flags

    def get_handshake_flags(self) -> int:
        """Return what was set by `set_handshake_flags`.

        Called from: any thread.
        """
        return self._handshake_flags

    def set_strict_mode(self, flags: int) -> None:
        """Set which wrong requests are refused here and not left to the server.

        Called from: any thread.
        """
        self._strict = flags & STRICT_MASK

    def get_strict_mode(self) -> int:
        """Return which wrong requests are refused here.

        Called from: any thread.
        """
        return self._strict

    def set_opt_mode(self, enable: bool) -> None:  # noqa: FBT001  (libnbd's)
        """Set whether connecting stops before the export is chosen, for the calls `opt_...`.

        Called from: any thread.
        """
        self._check_created("set_opt_mode")
        self._opt_mode = bool(enable)

    def get_opt_mode(self) -> bool:
        """Return whether connecting stops before the export is chosen.

        Called from: any thread.
        """
        return self._opt_mode

    def add_meta_context(self, name: str) -> None:
        """Have a metadata context asked for.

        Called from: any thread.
        """
        self._check_created("add_meta_context")
        self._contexts.append(name)

    def clear_meta_contexts(self) -> None:
        """Have no metadata context asked for.

        Called from: any thread.
        """
        self._check_created("clear_meta_contexts")
        self._contexts.clear()

    def get_nr_meta_contexts(self) -> int:
        """Return how many metadata contexts are asked for.

        Called from: any thread.
        """
        return len(self._contexts)

    def get_meta_context(self, i: int) -> str:
        """Return a metadata context that is asked for.

        Called from: any thread.
        """
        if not 0 <= i < len(self._contexts):
            text = "meta context request out of range"
            raise failure("get_meta_context", text, errno.EINVAL)
        return self._contexts[i]

    def set_request_meta_context(self, request: bool) -> None:  # noqa: FBT001  (libnbd's)
        """Set whether choosing an export agrees on metadata contexts first.

        Called from: any thread.
        """
        self._request_contexts = bool(request)

    def get_request_meta_context(self) -> bool:
        """Return what was set by `set_request_meta_context`.

        Called from: any thread.
        """
        return self._request_contexts

    def set_uri_allow_transports(self, mask: int) -> None:
        """Set the `ALLOW_TRANSPORT_...` kinds of addresses that a URI may have.

        Called from: any thread.
        """
        self._check_mask("set_uri_allow_transports", mask, ALLOW_TRANSPORT_MASK)
        self._uri_transports = mask

    def set_uri_allow_tls(self, tls: int) -> None:
        """Set whether a URI may, or must, ask for TLS.

        Called from: any thread.
        """
        self._uri_tls = tls

    def set_uri_allow_local_file(self, allow: bool) -> None:  # noqa: FBT001  (libnbd's)
        """Set whether a URI may name files, of keys and certificates.

        Called from: any thread.
        """
        self._uri_files = bool(allow)

    @staticmethod
    def _check_mask(call: str, value: int, mask: int) -> None:
        if value & ~mask:
            raise failure(call, f"invalid value for flag: {value:#x}", errno.EINVAL)
