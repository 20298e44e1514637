"""The end of `homebound serve URI` with the other server away; servers that serve themselves."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

import homebound
from homebound.block import DiskError
from homebound.nbd import NBDDisk
from homebound.testing import until

from .conftest import SERVE, Served
from .programs import TIMEOUT, need

if TYPE_CHECKING:
    from pathlib import Path

Serve = Callable[..., Served]
Refused = Callable[..., str]
SIZE = 1 << 20
NEVER = 10 * TIMEOUT  # seconds: a test that waits for it exceeds its own limit


def unread(connection: socket.socket) -> int:
    """Return whether the other end of a Unix socket has yet to read something, as a number."""
    (number,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
    return int(number)


def stop_within(served: Served, *, write: bool) -> tuple[int, str, int | None]:
    """Stop a server with a request in flight; its status, its last line, the request's errno."""

    async def main() -> tuple[int, str, int | None]:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(parse_qs(urlsplit(served.uri).query)["socket"][0])
        with await NBDDisk.connect(connection) as disk:
            request = asyncio.ensure_future(disk.write(0, b"x") if write else disk.read(0, 1))
            await asyncio.sleep(0)  # it is sent
            await asyncio.to_thread(until, lambda: not unread(connection))
            code, _, err = await asyncio.to_thread(served.stop)
            (failure,) = await asyncio.gather(request, return_exceptions=True)
        assert isinstance(failure, DiskError)
        return code, err.splitlines()[-1], failure.errno

    return homebound.run(main())


@pytest.fixture
def pair(serve: Serve, tmp_path: Path) -> tuple[Served, Served]:
    """Return a server of a disk in memory, and one that serves that server's export."""
    below = serve("--size", SIZE, "--unix", tmp_path / "below")
    waits = ("--reconnect-delay", NEVER, "--request-timeout", NEVER)
    above = serve(below.uri, "--unix", tmp_path / "above", *waits)
    above.hear()
    return below, above


def freeze(served: Served) -> None:
    """Stop a server as SIGSTOP does, and wait until all of its threads have stopped."""
    served.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, served.process.pid, os.WSTOPPED | os.WNOWAIT)


class TestAway:
    @pytest.mark.parametrize("write", [False, True])
    def test_a_request_in_flight_gets_eshutdown(self, pair: tuple[Served, Served], *, write: bool):
        below, above = pair
        below.process.kill()
        below.process.wait(TIMEOUT)
        code, line, number = stop_within(above, write=write)
        assert (code, number) == (1, errno.ESHUTDOWN)
        assert line.startswith(
            f"homebound: cannot flush {below.uri}: no connection to {below.uri}: "
        )

    def test_a_server_that_does_not_answer(self, pair: tuple[Served, Served]):
        below, above = pair
        freeze(below)
        code, line, number = stop_within(above, write=False)
        below.process.send_signal(signal.SIGCONT)
        assert (code, number) == (1, errno.ESHUTDOWN)
        assert line.startswith(
            f"homebound: cannot flush {below.uri}: no connection to {below.uri}: "
        )

    def test_a_flush_that_is_not_answered(self, pair: tuple[Served, Served]):
        """With no client there: it has the time that requests have, told in one line."""
        below, above = pair
        freeze(below)
        code, out, err = above.stop()
        below.process.send_signal(signal.SIGCONT)
        assert (code, out) == (1, "")
        assert err == (
            f"homebound: cannot flush {below.uri}: {below.uri} has not answered for 5 s; "
            "it hangs, or waits for this program in turn\n"
        )


def test_a_server_that_is_back_is_flushed(
    serve: Serve, pair: tuple[Served, Served], tmp_path: Path
):
    below, above = pair
    below.process.kill()
    below.process.wait(TIMEOUT)
    serve("--size", SIZE, "--unix", tmp_path / "below")
    assert above.stop() == (0, "", "")


def test_a_second_ctrl_c(pair: tuple[Served, Served]):
    below, above = pair
    freeze(below)  # so that the flush does not end
    above.process.send_signal(signal.SIGINT)
    until(lambda: not is_there(above.uri), patience=TIMEOUT)
    code, out, err = above.stop(signal.SIGINT)
    below.process.send_signal(signal.SIGCONT)
    assert (code, out) == (1, "")
    assert err == ("homebound: ended by the second SIGINT, with requests in flight or no flush\n")


def is_there(uri: str) -> bool:
    return os.path.exists(uri.partition("socket=")[2])  # noqa: PTH110


class TestItself:
    def test_a_unix_socket(self, refused: Refused, tmp_path: Path):
        path = tmp_path / "s"
        uri = f"nbd+unix:///?socket={path}"
        assert refused(uri, "--unix", path) == (
            f"homebound: {uri!r} is the address that this server listens on, so it would serve "
            "itself; choose another one with --unix or --port"
        )

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
    def test_a_port(self, refused: Refused, host: str):
        assert "so it would serve itself" in refused(f"nbd://{host}/disk")
        text = refused("--export", f"a=nbd://{host}:7777", "--host", "0.0.0.0", "--port", 7777)
        assert "so it would serve itself" in text

    def test_a_socket_that_listens_already(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            fd, port = listener.fileno(), listener.getsockname()[1]
            command = [*SERVE, f"nbd://127.0.0.1:{port}", "--socket-fd", str(fd)]
            done = subprocess.run(
                command, pass_fds=[fd], capture_output=True, text=True, check=False, timeout=TIMEOUT
            )
        assert (done.returncode, done.stdout) == (1, "")
        assert "so it would serve itself" in done.stderr


@pytest.mark.peers
def test_two_that_serve_each_other(serve: Serve, tmp_path: Path):
    """A request comes to no end but by its time limit; both servers can be stopped."""
    need("qemu-io")
    a, b = tmp_path / "a", tmp_path / "b"
    limits = ("--request-timeout", 1, "--reconnect-delay", 1)
    first = serve("--size", SIZE, "--unix", a)
    second = serve(first.uri, "--unix", b, *limits)
    first.stop()
    third = serve(second.uri, "--unix", a, *limits)
    done = subprocess.run(
        ["qemu-io", "-f", "raw", "-c", "read 0 4k", third.uri],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert "read failed" in done.stdout + done.stderr
    told = ""
    for served in (third, second):
        code, out, err = served.stop()
        assert (code in {0, 1}, out) == (True, "")
        assert "Traceback" not in err
        told += err
    assert "has not answered for 1 s; it hangs, or waits for this program in turn" in told


def test_two_that_are_started_at_once_on_sockets_of_the_callers(tmp_path: Path):
    """The handshake of each waits for the other, which listens only when it has connected."""
    listeners = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    uris, started = [], []
    for listener, name in zip(listeners, "ab", strict=True):
        listener.bind(str(tmp_path / name))
        listener.listen()
        uris.append(f"nbd+unix:///?socket={tmp_path / name}")
    for listener, uri in zip(listeners, reversed(uris), strict=True):
        fd = listener.fileno()
        command = [*SERVE, uri, "--socket-fd", str(fd)]
        started.append(subprocess.Popen(command, pass_fds=[fd], stderr=subprocess.PIPE, text=True))
    advice = "it does not answer in time; if it serves an export of this server, each waits for the"
    for process, uri in zip(started, reversed(uris), strict=True):
        _, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 1
        assert err == f"homebound: cannot connect to {uri}: {advice} other\n"
    for listener in listeners:
        listener.close()
