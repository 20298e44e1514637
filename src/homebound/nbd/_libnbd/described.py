"""A handle's facts about the server and the export, and the options in option mode."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from .._protocol.wire import TransmissionFlag
from .connecting import Connecting
from .constants import SIZE_MAXIMUM, SIZE_MINIMUM, SIZE_PAYLOAD, SIZE_PREFERRED
from .error import Error, failure
from .states import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._protocol.client_handshake import RemoteExport

_CONNECTED = (State.NEGOTIATING, State.READY, State.CLOSED)
_WHAT = "negotiating, or connected with the server, or shut down"
_SIZES = {SIZE_MINIMUM: 0, SIZE_PREFERRED: 1, SIZE_MAXIMUM: 2, SIZE_PAYLOAD: 2}


class Described(Connecting):
    """A handle that knows its export."""

    def _known(self, call: str) -> RemoteExport:
        self._check_state(call, _CONNECTED, _WHAT)
        if self._export is None:
            text = "server has not returned export flags, you need to connect to the server first"
            raise failure(call, text, errno.EINVAL)
        return self._export

    def _has(self, call: str, flag: TransmissionFlag) -> bool:
        return bool(self._known(call).flags & flag)

    def get_size(self) -> int:
        """Return the size of the export in bytes.

        Called from: any thread.
        """
        return self._known("get_size").size

    def get_block_size(self, size_type: int) -> int:
        """Return a block size that the server has told, 0 if it has not.

        Called from: any thread.
        """
        export = self._known("get_block_size")
        if size_type not in _SIZES:
            text = f"size_type: invalid value for parameter: {size_type}"
            raise failure("get_block_size", text, errno.EINVAL)
        return export.block_sizes[_SIZES[size_type]] if export.sizes_told else 0

    def is_read_only(self) -> bool:
        """Return whether the export refuses changes.

        Called from: any thread.
        """
        return self._has("is_read_only", TransmissionFlag.READ_ONLY)

    def is_rotational(self) -> bool:
        """Return whether the export is like a rotating disk.

        Called from: any thread.
        """
        return self._has("is_rotational", TransmissionFlag.ROTATIONAL)

    def can_flush(self) -> bool:
        """Return whether the server knows FLUSH.

        Called from: any thread.
        """
        return self._has("can_flush", TransmissionFlag.SEND_FLUSH)

    def can_fua(self) -> bool:
        """Return whether the server knows the flag FUA.

        Called from: any thread.
        """
        return self._has("can_fua", TransmissionFlag.SEND_FUA)

    def can_trim(self) -> bool:
        """Return whether the server knows TRIM.

        Called from: any thread.
        """
        return self._has("can_trim", TransmissionFlag.SEND_TRIM)

    def can_zero(self) -> bool:
        """Return whether the server knows WRITE_ZEROES.

        Called from: any thread.
        """
        return self._has("can_zero", TransmissionFlag.SEND_WRITE_ZEROES)

    def can_fast_zero(self) -> bool:
        """Return whether the server knows the flag FAST_ZERO.

        Called from: any thread.
        """
        return self._has("can_fast_zero", TransmissionFlag.SEND_FAST_ZERO)

    def can_df(self) -> bool:
        """Return whether the server knows the flag DF.

        Called from: any thread.
        """
        return self._has("can_df", TransmissionFlag.SEND_DF)

    def can_multi_conn(self) -> bool:
        """Return whether several connections share what is flushed.

        Called from: any thread.
        """
        return self._has("can_multi_conn", TransmissionFlag.CAN_MULTI_CONN)

    def can_cache(self) -> bool:
        """Return whether the server knows CACHE.

        Called from: any thread.
        """
        return self._has("can_cache", TransmissionFlag.SEND_CACHE)

    def can_meta_context(self, metacontext: str) -> bool:
        """Return whether a metadata context was agreed on.

        Called from: any thread.
        """
        self._check_state("can_meta_context", _CONNECTED, _WHAT)
        agreed = self._contexts_agreed or self._session is not None
        if not agreed and (self._contexts or self._state != State.NEGOTIATING):
            text = "no metadata contexts have been agreed on yet"
            raise failure("can_meta_context", text, errno.EINVAL)
        return agreed and metacontext in self._handshake.contexts.values()

    def get_structured_replies_negotiated(self) -> bool:
        """Return whether the server replies in chunks.

        Called from: any thread.
        """
        self._check_state("get_structured_replies_negotiated", _CONNECTED, _WHAT)
        return self._handshake.structured

    def get_tls_negotiated(self) -> bool:
        """Return whether the connection has TLS.

        Called from: any thread.
        """
        self._check_state("get_tls_negotiated", _CONNECTED, _WHAT)
        return self._handshake.tls

    def get_protocol(self) -> str:
        """Return the handshake that was used: "newstyle-fixed" or "newstyle".

        Called from: any thread.
        """
        self._check_state("get_protocol", _CONNECTED, _WHAT)
        return "newstyle-fixed" if self._handshake.fixed else "newstyle"

    def get_canonical_export_name(self) -> str:
        """Return the name that the server gives the export.

        Called from: any thread.
        """
        name = self._known("get_canonical_export_name").canonical_name
        if not name or not self._full_info:
            text = "server did not provide a canonical name"
            raise failure("get_canonical_export_name", text, errno.ENOTSUP)
        return name

    def get_export_description(self) -> str:
        """Return the server's description of the export.

        Called from: any thread.
        """
        text = self._known("get_export_description").description
        if not text or not self._full_info:
            why = "server did not provide a description"
            raise failure("get_export_description", why, errno.ENOTSUP)
        return text

    def connection_state(self) -> str:
        """Return the state of the handle in words.

        Called from: any thread.
        """
        return str(self._state)

    def get_uri(self) -> str:
        """Return the URI of the connection.

        Called from: any thread.
        """
        if self._state == State.START:
            raise failure("get_uri", "the handle has not connected", errno.ENOTCONN)
        target, scheme = self._target, "nbds" if self._handshake.tls else "nbd"
        if target.path:
            return f"{scheme}+unix:///{self._export_name}?socket={target.path}"
        if target.host:
            return f"{scheme}://{target.host}:{target.port}/{self._export_name}"
        raise failure("get_uri", "the connection has no URI", errno.ENOTSUP)

    # Option mode.

    def _check_negotiating(self, call: str) -> None:
        self._check_state(call, (State.NEGOTIATING,), "negotiating")

    def opt_go(self) -> None:
        """Choose the export; requests can be made after that.

        Called from: any thread.
        """
        with self._lock:
            self._check_negotiating("opt_go")
            self._go("opt_go")

    def opt_info(self) -> None:
        """Have the server describe the export, without choosing it.

        Called from: any thread.
        """
        with self._lock:
            self._check_negotiating("opt_info")
            self._export = None
            if self._request_contexts:
                self._set_contexts("opt_info", self._contexts)
            handshake = self._handshake
            try:
                self._export = self._ask("opt_info", lambda: handshake.info(self._export_name))
            except Error:
                self._contexts_agreed = False
                raise

    def opt_abort(self) -> None:
        """End the negotiation and disconnect.

        Called from: any thread.
        """
        with self._lock:
            self._check_negotiating("opt_abort")
            self._ask("opt_abort", self._handshake.abort)
            self._drop()
            self._state = State.CLOSED

    def opt_list(self, list: Callable[[str, str], object]) -> int:  # noqa: A002  (libnbd's name)
        """Call `list(name, description)` for each export; return their number.

        Called from: any thread.
        """
        with self._lock:
            self._check_negotiating("opt_list")
            exports = self._ask("opt_list", self._handshake.list_exports)
            for name, description in exports:
                list(name, description)
            return len(exports)

    def opt_list_meta_context(self, context: Callable[[str], object]) -> int:
        """Call `context(name)` for each metadata context of the export; return their number.

        Called from: any thread.
        """
        return self.opt_list_meta_context_queries(self._contexts, context)

    def opt_list_meta_context_queries(
        self, queries: list[str], context: Callable[[str], object]
    ) -> int:
        """Call `context(name)` for each metadata context that the queries find.

        Called from: any thread.
        """
        call = "opt_list_meta_context"
        with self._lock:
            self._check_negotiating(call)
            handshake, name = self._handshake, self._export_name
            found = self._ask(call, lambda: handshake.list_contexts(name, queries))
            for each in found:
                context(each)
            return len(found)

    def opt_set_meta_context(self, context: Callable[[str], object]) -> int:
        """Agree on the metadata contexts that were added; call `context(name)` for each.

        Called from: any thread.
        """
        return self.opt_set_meta_context_queries(self._contexts, context)

    def opt_set_meta_context_queries(
        self, queries: list[str], context: Callable[[str], object]
    ) -> int:
        """Agree on the metadata contexts that the queries find; call `context(name)` for each.

        Called from: any thread.
        """
        with self._lock:
            self._check_negotiating("opt_set_meta_context")
            if not self._handshake.structured:
                text = "the server does not reply in chunks"
                raise failure("opt_set_meta_context", text, errno.ENOTSUP)
            self._set_contexts("opt_set_meta_context", queries)
            found = self._handshake.contexts.values()
            for each in found:
                context(each)
            return len(found)

    def opt_structured_reply(self) -> bool:
        """Ask for structured replies; return whether the server agrees.

        Called from: any thread.
        """
        with self._lock:
            self._check_negotiating("opt_structured_reply")
            agreed: bool = self._ask("opt_structured_reply", self._handshake.structured_replies)
            return agreed

    def opt_starttls(self) -> bool:
        """Begin TLS; return whether the server agrees.

        Called from: any thread.
        """
        with self._lock:
            self._check_negotiating("opt_starttls")
            try:
                self._ask("opt_starttls", self._handshake.begin_tls)
            except Error:
                if self._state == State.DEAD:
                    raise
                return False
            assert self._shell is not None
            self._shell.begin_tls(self._target)
            return True
