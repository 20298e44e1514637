"""`--run` and `--pidfile`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from .conftest import SERVE, TIMEOUT, Served

if TYPE_CHECKING:
    from pathlib import Path

Serve = Callable[..., Served]
Refused = Callable[..., str]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*SERVE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_the_status_of_the_command_is_the_exit_status(command: str, code: int):
    done = run("--size", "1M", "--run", command)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_the_variables_of_the_command(image: Path):
    variables = 'echo "$uri|$unixsocket|$port|$size|$exportname"'
    path = image.with_suffix(".sock")
    done = run(image, "--name", "a b", "--unix", path, "--run", variables)
    uri = f"nbd+unix:///a%20b?socket={path}"
    assert done.stdout.strip() == f"{uri}|{path}||{1 << 20}|a b"
    uri, unix, port, _, _ = run("--port", "0", "--run", variables).stdout.split("|")
    assert (uri, unix) == (f"nbd://127.0.0.1:{port}/", "")


def test_its_socket_is_private_and_goes_with_it():
    done = run("--run", 'echo "$unixsocket"; test -S "$unixsocket"')
    assert done.returncode == 0
    directory = os.path.dirname(done.stdout.strip())  # noqa: PTH120
    assert "homebound-" in directory
    assert not os.path.exists(directory)  # noqa: PTH110


@pytest.mark.peers
def test_a_real_client(image: Path):
    if shutil.which("nbdinfo") is None:
        pytest.skip("nbdinfo (Debian: libnbd-bin) is not installed")
    done = run(image, "--run", 'nbdinfo --size "$uri"')
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, f"{1 << 20}", "")


def test_a_signal_ends_it_too(serve: Serve):
    served = serve("--size", "1M", "--run", "echo ready; exec sleep 1000")
    assert served.uri == "ready"
    assert served.stop() == (128 + signal.SIGTERM, "", "")


def test_the_command_has_no_blocked_signals():
    """Check that signals blocked in the server are not blocked in the command."""
    done = run("--size", "1M", "--run", "grep Sig[BI] /proc/self/status")
    blocked, ignored = (int(line.split()[1], 16) for line in done.stdout.splitlines())
    assert blocked == 0
    assert not ignored & 1 << signal.SIGPIPE - 1  # which Python ignores


def test_the_pidfile(serve: Serve, tmp_path: Path):
    path = tmp_path / "pid"
    served = serve("--size", "1M", "--unix", tmp_path / "s", "--pidfile", path)
    served.hear()
    assert path.read_text() == f"{served.process.pid}\n"
    assert served.stop()[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_the_pidfile_of_another_is_left(serve: Serve, tmp_path: Path):
    path = tmp_path / "pid"
    served = serve("--size", "1M", "--unix", tmp_path / "s", "--pidfile", path)
    served.hear()
    path.write_text("1\n")
    assert served.stop()[0] == 0
    assert path.read_text() == "1\n"


def test_a_pidfile_that_cannot_be_written(refused: Refused, tmp_path: Path):
    path = tmp_path / "none" / "pid"
    assert refused("--size", "1M", "--unix", tmp_path / "s", "--pidfile", path) == (
        f"homebound: cannot write the pidfile '{path}': No such file or directory"
    )


@pytest.mark.parametrize("old", ["", "4711\n"])
def test_an_old_pidfile_is_replaced(serve: Serve, tmp_path: Path, old: str):
    path = tmp_path / "pid"
    path.write_text(old)
    served = serve("--size", "1M", "--unix", tmp_path / "s", "--pidfile", path)
    served.hear()
    assert path.read_text() == f"{served.process.pid}\n"


@pytest.mark.parametrize("kind", ["image", "fifo", "link to a fifo", "directory"])
def test_a_pidfile_replaces_nothing_else(refused: Refused, tmp_path: Path, kind: str):
    """It replaced the image, and root's replaced a device: /dev/null, or /dev/stdout."""
    path = tmp_path / "it"
    if kind == "image":
        path.write_bytes(bytes(4096))
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(tmp_path / "fifo" if kind.startswith("link") else path)
        if kind.startswith("link"):
            path.symlink_to("fifo")
    before = path.lstat().st_ino
    assert refused("--size", "1M", "--unix", tmp_path / "s", "--pidfile", path) == (
        f"homebound: cannot write the pidfile '{path}': it exists and is no pidfile; "
        "it would be replaced and then removed"
    )
    assert path.lstat().st_ino == before
