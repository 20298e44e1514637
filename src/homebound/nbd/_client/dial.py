"""One try to connect: connect, TLS and the handshake, in a worker, with a blocking socket."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ..._os.clock import monotonic
from ..._os.guard import new_guard
from .._protocol.client_handshake import ClientHandshake, RemoteExport
from .._tcp import prepare_tcp
from .errors import ConnectError, connect_error
from .reasons import silent_end
from .tls import context_for, server_name

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from concurrent.futures import Future

    from .uri import Target

T = TypeVar("T")

ATTEMPT_SECONDS = 10.0  # that a server has for the whole handshake
CONTEXT = "base:allocation"


@dataclass(frozen=True, slots=True)
class Link:
    """A connection in the transmission phase, and what was agreed on it."""

    sock: socket.socket
    export: RemoteExport

    def close(self) -> None:
        """Disconnect."""
        self.sock.close()


class Attempt:
    """A try to connect, which any thread may cancel. `run` is the worker's; then it posts."""

    __slots__ = (
        "_cancelled",
        "_done",
        "_guard",
        "_queries",
        "_seconds",
        "_sock",
        "_target",
        "error",
        "finished",
        "link",
    )

    def __init__(
        self,
        target: Target,
        queries: Sequence[str],
        done: Callable[[Attempt], object],
        seconds: float = ATTEMPT_SECONDS,
    ) -> None:
        self._target = target
        self._queries = queries
        self._done = done  # called in the worker; elsewhere, if that has died
        self._seconds = seconds
        self._guard = new_guard()
        # Under the guard: so that no thread shuts a descriptor down that the worker has closed.
        self._sock: socket.socket | None = None
        self._cancelled = False
        self.finished = False
        self.link: Link | None = None
        self.error: ConnectError | None = None

    def run(self) -> None:
        """Connect; blocks. The outcome is in `link` or `error`."""
        try:
            link = self._dial()
        except Exception as error:  # noqa: BLE001  (all is reported at home)
            self.error = connect_error(self._target, error)
            link = None
        with self._guard:
            self._sock = None
            self.finished = True
            if not self._cancelled:
                self.link, link = link, None
        if link is not None:
            link.close()
        self._done(self)

    def fail(self, error: BaseException) -> None:
        """End it for lack of a worker; if it has ended, only tell of that again."""
        if not self.finished:
            self.error = connect_error(self._target, error)
            self.finished = True
        self._done(self)

    def work_ended(self, work: Future[None]) -> None:
        """Fail if `run` was cut short, or was not called as the worker died before that."""
        error = None if work.cancelled() else work.exception()  # cancelled: the client is closed
        if error is not None:
            self.fail(error)

    def cancel(self) -> None:
        """End it soon: what it connects to is dropped."""
        with self._guard:
            self._cancelled = True
            link, self.link = self.link, None
            if self._sock is not None:
                with contextlib.suppress(OSError):
                    # Not that of an SSLSocket, which would forget its TLS under the worker.
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        if link is not None:
            link.close()

    def _dial(self) -> Link:
        deadline = monotonic() + self._seconds
        shell = Shell(self._connect(deadline), deadline, self._use)
        try:
            export = self._negotiate(shell, ClientHandshake())
            shell.sock.settimeout(0)
        except BaseException:
            self._forget(shell.sock)
            raise
        return Link(shell.sock, export)

    def _negotiate(self, shell: Shell, handshake: ClientHandshake) -> RemoteExport:
        target = self._target
        shell.run(handshake.greet())
        if target.tls:
            shell.run(handshake.begin_tls())
            shell.begin_tls(target)
        if shell.run(handshake.structured_replies()):
            shell.run(handshake.set_contexts(target.export, self._queries))
        return shell.run(handshake.go(target.export))

    def _connect(self, deadline: float) -> socket.socket:
        target = self._target
        if target.sock is not None:
            self._use(target.sock)
            return target.sock
        if target.path:
            return self._connect_to(socket.AF_UNIX, target.path, deadline)
        failure: OSError | None = None
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        for family, _, _, _, address in found:
            try:
                return self._connect_to(family, address, deadline)
            except OSError as error:
                failure = failure or error
        raise failure or OSError("it has no address")

    def _connect_to(self, family: int, address: Any, deadline: float) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._use(sock)
            prepare_tcp(sock)
            sock.settimeout(left(deadline))
            sock.connect(address)
        except BaseException:
            self._forget(sock)
            raise
        return sock

    def _use(self, sock: socket.socket) -> None:
        """Have `cancel` shut this socket down."""
        with self._guard:
            if not self._cancelled:
                self._sock = sock
                return
        sock.close()
        raise TimeoutError

    def _forget(self, sock: socket.socket) -> None:
        with self._guard:
            self._sock = None
        sock.close()


class Shell:
    """Does what the generators of a handshake ask for, on a blocking socket, until a deadline."""

    __slots__ = ("_deadline", "_tls_began", "_use", "sock")

    def __init__(
        self, sock: socket.socket, deadline: float, use: Callable[[socket.socket], object]
    ) -> None:
        self.sock = sock
        self._deadline = deadline
        self._use = use
        # Set until the first reply that is encrypted: before it, TLS 1.3 does not say whether the
        # server accepts this client.
        self._tls_began: Target | None = None

    def run(self, exchange: Generator[bytes | int, bytes, T]) -> T:
        """Carry out an exchange; return what it returns. Blocks."""
        answer: bytes | None = None
        while True:
            try:
                step = next(exchange) if answer is None else exchange.send(answer)
            except StopIteration as stop:
                result: T = stop.value
                return result
            answer = self._send(step) if isinstance(step, bytes) else self._receive(step)

    def begin_tls(self, target: Target) -> None:
        """Have TLS begin. Blocks."""
        context = context_for(target)
        self.sock.settimeout(left(self._deadline))
        sock = self.sock = context.wrap_socket(
            self.sock, server_hostname=server_name(target), do_handshake_on_connect=False
        )
        self._use(sock)
        self._tls_began = target
        sock.do_handshake()

    def _send(self, data: bytes) -> bytes:
        self.sock.settimeout(left(self._deadline))
        try:
            self.sock.sendall(data)
        except (ssl.SSLEOFError, ConnectionError) as error:
            raise self._lost() from error
        return b""

    def _receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            self.sock.settimeout(left(self._deadline))
            try:
                received = self.sock.recv(size - len(data))
            except (ssl.SSLEOFError, ConnectionError) as error:
                raise self._lost() from error
            if not received:
                raise self._lost()
            data += received
            self._tls_began = None
        return bytes(data)

    def _lost(self) -> ConnectionResetError:
        words = "the server disconnected during the handshake"
        if self._tls_began is not None:
            words = silent_end(self._tls_began)
        return ConnectionResetError(errno.ECONNRESET, words)


def left(deadline: float) -> float:
    """Return the seconds to a deadline. Raises TimeoutError if it has passed."""
    seconds = deadline - monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds
