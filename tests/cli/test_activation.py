"""Sockets that another program opens: a service manager's, a client's, a script's."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from homebound.testing import until

from .conftest import SERVE, TIMEOUT, Served
from .programs import listens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Serve = Callable[..., Served]
Refused = Callable[..., str]

GREETING = struct.pack(">8s8sH", b"NBDMAGIC", b"IHAVEOPT", 3)


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield listener


def greeting(address: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect(address)
        return client.recv(len(GREETING), socket.MSG_WAITALL)


def test_a_socket_by_its_number(serve: Serve, tmp_path: Path):
    with listening(tmp_path / "s") as listener:
        fd = listener.fileno()
        served = serve("--size", "1M", "--socket-fd", fd, pass_fds=[fd])
    assert served.uri == f"nbd+unix:///?socket={tmp_path}/s"
    assert greeting(f"{tmp_path}/s") == GREETING
    assert served.stop()[0] == 0
    assert (tmp_path / "s").exists()  # it is the other program's


def test_a_socket_without_a_path(serve: Serve, tmp_path: Path):
    name = f"\0{tmp_path}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        fd = listener.fileno()
        served = serve("--size", "1M", "--socket-fd", fd, pass_fds=[fd], stdout=None)
    assert served.hear() == "serving memory, 1 MiB, at a socket that has no URI\n"
    assert greeting(name) == GREETING
    assert served.stop()[0] == 0


def test_several_sockets(serve: Serve, tmp_path: Path):
    with listening(tmp_path / "a") as a, listening(tmp_path / "b") as b:
        fds = [a.fileno(), b.fileno()]
        options = [part for fd in fds for part in ("--socket-fd", fd)]
        served = serve("--size", "1M", *options, pass_fds=fds)
    assert greeting(f"{tmp_path}/a") == greeting(f"{tmp_path}/b") == GREETING
    assert served.stop()[0] == 0


def test_a_socket_that_does_not_listen(refused: Refused):
    with socket.socket() as idle:
        fd = idle.fileno()
        line = refused("--size", "1M", "--socket-fd", fd, pass_fds=[fd])
    text = "it is not a listening stream socket"
    assert line == f"homebound: cannot listen on descriptor {fd}: {text}"


def test_a_descriptor_of_something_else(refused: Refused, image: Path):
    with image.open() as file:
        fd = file.fileno()
        line = refused("--size", "1M", "--socket-fd", fd, pass_fds=[fd])
    text = "Socket operation on non-socket"
    assert line == f"homebound: cannot listen on descriptor {fd}: {text}"


def test_a_number_without_a_descriptor(refused: Refused):
    assert "cannot listen on descriptor 999: Bad file descriptor" in refused("--socket-fd", "999")


ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "nbd"}
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_systemd(tmp_path: Path):
    """Listen on a unit's sockets; child processes do not take them for theirs."""
    command = [*SERVE, "--size", "1M", "--run", 'echo "$uri ($LISTEN_FDS)"']
    with listening(tmp_path / "s") as listener:
        fd = listener.fileno()
        done = subprocess.run(
            [sys.executable, "-c", ACTIVATE, str(fd), *command],
            pass_fds=[fd, 3] if fd != 3 else [3],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert done.stdout == f"nbd+unix:///?socket={tmp_path}/s ()\n"
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("number", ["99999999999", "9" * 5000])
def test_more_descriptors_than_a_process_has(number: str):
    program = ACTIVATE.replace('"1"', repr(number))
    done = subprocess.run(
        [sys.executable, "-c", program, "1", *SERVE, "--size", "1M"],
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"homebound: LISTEN_FDS={number[:20]}: a process has at most ")
    assert done.stderr.count("\n") == 1


@pytest.mark.peers
def test_systemd_socket_activate(tmp_path: Path):
    """systemd's own program listens, and starts the server at the first connection."""
    if shutil.which("systemd-socket-activate") is None:
        pytest.skip("systemd-socket-activate (Debian: systemd) is not installed")
    path = tmp_path / "s"
    command = ["systemd-socket-activate", "-l", str(path), *SERVE, "--size", "1M"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        until(lambda: listens(path))
        assert process.stdout is not None
        assert process.stdout.readline() == f"nbd+unix:///?socket={path}\n"
        assert greeting(str(path)) == GREETING
        process.terminate()  # the server: it has replaced the program that listened
        assert process.wait(TIMEOUT) == 0


def test_two_ways_to_listen(refused: Refused):
    line = refused("--socket-fd", "3", "--port", "0", code=2)
    assert "--host/--port and --socket-fd are two addresses to listen on; choose one" in line


@pytest.mark.peers
def test_a_client_that_starts_its_server(image: Path):
    if shutil.which("nbdinfo") is None:
        pytest.skip("nbdinfo (Debian: libnbd-bin) is not installed")
    command = ["nbdinfo", "--size", "--", "[", *SERVE, str(image), "]"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    assert str(1 << 20) in done.stdout.splitlines()
