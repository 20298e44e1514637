"""listen: a Unix socket that tells what the program does, by a thread of its own."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING

from .._os.process import AtExit, AtFork, at_exit, at_fork
from ._snapshot import snapshot

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_logger = logging.getLogger("homebound")
_PATIENCE = 5.0  # seconds for a client to ask, and to take its snapshot
_PAUSE = 0.1  # seconds before it tries to accept again
GREETING = b"homebound top\n"
HOMES, ALL = b"homes\n", b"tasks\n"  # what a client asks for: a snapshot without its tasks, or all
_listeners: set[Listener] = set()  # those that are open; single operations are atomic


class Listener:
    """An open socket of `listen`; close it, or leave it to the end of the program."""

    path: str  # absolute

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)  # noqa: PTH100  (it may be bytes that are not UTF-8)
        self._closing = threading.Event()
        self._client: socket.socket | None = None  # the one being answered. Its thread's
        self._socket = _bind(self.path)
        self._thread = threading.Thread(target=self._serve, name="homebound-top", daemon=True)
        _listeners.add(self)
        try:
            _start_deaf(self._thread)
        except BaseException:  # no more threads
            self._leave()
            raise

    def close(self) -> None:
        """Stop listening, and remove the socket. No-op a second time.

        Called from: any thread.
        """
        if not self._closing.is_set():
            self._leave()
            self._thread.join()

    def _leave(self) -> None:
        self._closing.set()
        _listeners.discard(self)
        for each in (self._socket, self._client):  # ends what its thread waits for
            try:
                if each is not None:
                    each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._socket.close()
        try:
            os.unlink(self.path)  # noqa: PTH108  (see __init__)
        except FileNotFoundError:
            pass

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                self._client, _ = self._socket.accept()
            except OSError:  # it is closed, or the process is out of descriptors
                self._closing.wait(_PAUSE)
                continue
            with self._client as client:
                try:
                    _answer(client)
                except Exception:
                    _logger.exception("a snapshot for homebound top failed")
            self._client = None

    def _forget(self) -> None:
        """Leave it to the parent, in a forked process."""
        self._closing = threading.Event()  # the lock of the other may be held
        self._closing.set()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Listener at {self.path!r}{' closed' if self._closing.is_set() else ''}>"


def listen(path: str | os.PathLike[str]) -> Listener:
    """Listen on a Unix socket for `homebound top`, `ps` and `pstree`.

    A thread answers there, also while all homes hang. Only the user that runs the program may
    connect. The environment variable HOMEBOUND_TOP=path does the same when homebound is imported.
    A socket that a program left behind is replaced; if one still listens there, OSError
    (EADDRINUSE) is raised.

    >>> import homebound.debug, os, tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with homebound.debug.listen(f"{place}/top"):
    ...         print(os.listdir(place))
    ['top']

    Called from: any thread.
    """
    return Listener(path)


def listen_as_told(path: str) -> None:
    """Listen where HOMEBOUND_TOP says; log why, if that cannot be: the program goes on.

    Processes that inherit the variable find the socket taken, which is no news.
    """
    try:
        listen(path)
    except OSError as error:
        level = logging.DEBUG if error.errno == errno.EADDRINUSE else logging.WARNING
        _logger.log(level, "HOMEBOUND_TOP=%s: cannot listen: %s", path, error.strerror or error)


def _start_deaf(thread: threading.Thread) -> None:
    """Start a thread that no signal of the process is delivered to.

    The program's own threads get them. `homebound serve` blocks those that stop it, in all threads
    but one; delivered to a thread that was there before, they would end the process at once.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _bind(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)  # before it has a name
        try:
            listener.bind(path)
        except OSError as error:
            if error.errno == errno.ENOENT:
                error.filename = path  # socket names none
            if error.errno != errno.EADDRINUSE or _is_answered(path):
                raise
            os.unlink(path)  # noqa: PTH108  (see Listener)
            listener.bind(path)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def _is_answered(path: str) -> bool:
    """Return whether a program listens on the socket, or the path is no socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PATIENCE)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return not _is_socket(path)
        except OSError:
            return True
    return True


def _is_socket(path: str) -> bool:
    import stat  # noqa: PLC0415  (for this rare case)

    return stat.S_ISSOCK(os.lstat(path).st_mode)


def _answer(client: socket.socket) -> None:
    """Greet, so that a client knows that it has the right socket; then do what it asks for."""
    client.settimeout(_PATIENCE)
    try:
        client.sendall(GREETING)
        asked = client.recv(len(HOMES))
        client.sendall(json.dumps(snapshot(with_tasks=asked != HOMES)).encode() + b"\n")
    except OSError:
        pass  # it has gone, or neither asks nor takes anything


def _close_all() -> None:
    for listener in tuple(_listeners):
        listener.close()


def _begin_as_child() -> None:
    for listener in tuple(_listeners):
        listener._forget()
    _listeners.clear()


at_exit(AtExit.LISTENERS, _close_all)
at_fork(AtFork.LISTENERS, _begin_as_child)
