"""The signals of `homebound serve`, and its notifications to systemd."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from homebound.testing import until

from .conftest import SERVE, TIMEOUT, Served

if TYPE_CHECKING:
    from collections.abc import Iterator

Serve = Callable[..., Served]

IS_X86 = platform.machine() == "x86_64"
READ_CALLS = {"17", "295", "327"} if IS_X86 else {"67", "69", "286"}  # pread64, preadv, preadv2
OPEN_CALLS = {"257"} if IS_X86 else {"56"}  # openat
SIGNAL_CALLS = {"128"} if IS_X86 else {"137"}  # rt_sigtimedwait

STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]


def without_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_stops_cleanly_while_it_listens_for_top(serve: Serve, image: Path):
    """The thread that listens is there before the server blocks the signals."""
    options = ["--unix", image.with_suffix(".sock")]
    served = serve(image, *options, env={**os.environ, "HOMEBOUND_TOP": str(image.parent / "top")})
    assert served.stop()[0] == 0


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("iothreads", [0, 1])
def test_stops_cleanly(serve: Serve, image: Path, number: int, iothreads: int):
    path = image.with_suffix(".sock")
    options = ["--unix", path, "--iothreads", iothreads]
    served = serve(image, *options, preexec_fn=without_nohup)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert client.recv(8) == b"NBDMAGIC"
        code, out, err = served.stop(number)
    assert (code, out) == (0, "")
    assert err.count("\n") == 1
    assert not path.exists()


def test_an_ignored_sighup_stays_ignored(serve: Serve, tmp_path: Path):
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    served = serve("--size", "1M", "--unix", tmp_path / "s", preexec_fn=ignore)
    served.hear()
    served.process.send_signal(signal.SIGHUP)
    served.process.send_signal(signal.SIGUSR1)
    assert "0 clients now" in served.hear()
    assert served.stop() == (0, "", "")


@pytest.mark.peers
def test_statistics(serve: Serve, image: Path):
    if shutil.which("qemu-io") is None:
        pytest.skip("qemu-io (Debian: qemu-utils) is not installed")
    served = serve(image, "--unix", image.with_suffix(".sock"))
    served.hear()
    commands = ["-c", "write 0 64k", "-c", "read 0 128k"]
    subprocess.run(["qemu-io", "-f", "raw", *commands, served.uri], check=True, timeout=TIMEOUT)

    def statistics() -> str:
        served.process.send_signal(signal.SIGUSR1)
        return served.hear()

    words = statistics()
    while " 1 clients now" in words:  # the client has ended, which the server has not heard yet
        words = statistics()
    assert re.fullmatch(
        r"after \d+\.\d s: 0 clients now, 1 ever; \d+ requests, 0 errors \(0 from disks\); "
        r"read 128 KiB, written 64 KiB\n",
        words,
    )
    assert served.stop() == (0, "", "")


def test_a_terminal_that_goes_away(serve: Serve, tmp_path: Path):
    """Show live statistics until writing them fails, and go on serving."""
    terminal, other_end = os.openpty()
    colours = {**os.environ, "TERM": "xterm"}
    streams = {"stderr": other_end, "env": colours, "preexec_fn": without_nohup}
    served = serve("--size", "1M", "--unix", tmp_path / "s", **streams)
    os.close(other_end)
    seen = b""
    while b"IOPS" not in seen:
        seen += os.read(terminal, 4096)
    assert b"Ctrl-C stops\r\n" in seen
    os.close(terminal)
    served.process.send_signal(signal.SIGUSR1)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        assert client.recv(8) == b"NBDMAGIC"
    assert served.stop(signal.SIGHUP) == (0, "", "")


def freeze(process: subprocess.Popen[str]) -> None:
    """Stop a process, and wait until each of its threads has stopped.

    One that is still on its way could take a request along, and what waits for a request that a
    daemon of FUSE has taken cannot even be killed.
    """
    process.send_signal(signal.SIGSTOP)
    until(lambda: states(process.pid) == {"T"})


def states(pid: int) -> set[str]:
    """Return the states of a process's threads, as letters."""
    return {stat.rpartition(")")[2].split()[0] for stat in of_threads(pid, "stat")}


def of_threads(pid: int, name: str) -> Iterator[str]:
    """Yield what the kernel says in such a file of each thread; one may end meanwhile."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            yield (thread / name).read_text()


@contextmanager
def fuse_disk(directory: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """Make a file on FUSE, whose daemon can be stopped with SIGSTOP."""
    for program in ("nbdfuse", "nbdkit"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} (Debian: libnbd-bin, nbdkit) is not installed")
    mounted = directory / "mounted"
    mounted.mkdir()
    command = ["nbdfuse", "-P", directory / "pid", mounted / "disk", "[", "nbdkit", "memory", "1M"]
    with subprocess.Popen([*map(str, command), "]"], stderr=subprocess.PIPE, text=True) as daemon:
        try:
            while not (directory / "pid").exists():
                if daemon.poll() is not None:
                    pytest.skip(f"no FUSE: {daemon.communicate()[1]}")
                time.sleep(0.02)
            yield mounted / "disk", daemon
        finally:
            daemon.send_signal(signal.SIGCONT)
            helper = shutil.which("fusermount3") or shutil.which("fusermount")
            unmount = [helper, "-u", "-z"] if helper is not None else ["umount", "--lazy"]
            subprocess.run([*unmount, mounted], check=False)
            daemon.terminate()


def is_in(calls_wanted: set[str], pid: int) -> bool:
    """Return whether a thread of the process is in such a system call."""
    calls = [call.split()[0] for call in of_threads(pid, "syscall")]
    return not calls_wanted.isdisjoint(calls)


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("iothreads", [0, 1])
def test_a_disk_that_does_not_answer(serve: Serve, tmp_path: Path, iothreads: int):
    if shutil.which("qemu-io") is None:
        pytest.skip("qemu-io (Debian: qemu-utils) is not installed")
    with fuse_disk(tmp_path) as (disk, daemon):
        served = serve(disk, "--unix", tmp_path / "s", "--iothreads", iothreads)
        served.hear()
        freeze(daemon)
        command = ["qemu-io", "-f", "raw", "-c", "read 64k 4k", served.uri]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            until(lambda: is_in(READ_CALLS, served.process.pid))
            code, out, err = served.stop()
            assert "read failed" in client.communicate(timeout=TIMEOUT)[0]
    assert (code, out) == (1, "")
    assert re.fullmatch(
        f"homebound: {disk} does not complete its requests; ended without them, "
        r"and without a flush \(SIGTERM came \d+ s ago\)\n",
        err,
    )


@pytest.mark.peers
def test_a_disk_that_does_not_open(tmp_path: Path):
    with fuse_disk(tmp_path) as (disk, daemon):
        freeze(daemon)
        command = [*SERVE, str(disk), "--unix", str(tmp_path / "s")]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            until(lambda: is_in(SIGNAL_CALLS, process.pid) and is_in(OPEN_CALLS, process.pid))
            process.terminate()
            err = process.communicate(timeout=TIMEOUT)[1]
    assert process.returncode == 1
    assert re.fullmatch(
        rf"homebound: opening '{disk}' has not ended \(SIGTERM came \d+ s ago\)\n", err
    )


class Manager:
    """A service manager that listens for notifications."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1))
        self.socket.settimeout(TIMEOUT)

    def hear(self) -> list[str]:
        return self.socket.recv(4096).decode().split("\n")


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    path = tmp_path / "notify"
    listening = Manager(f"@{path}" if request.param == "abstract" else str(path))
    yield listening
    listening.socket.close()


def test_systemd_is_notified(
    serve: Serve, manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    served = serve("--size", "1M", "--unix", tmp_path / "s")
    banner = served.hear().rstrip("\n")
    assert manager.hear() == ["READY=1", f"STATUS={banner}"]
    served.process.terminate()
    assert manager.hear() == ["STOPPING=1"]
    assert served.finish() == (0, "", "")


def test_a_missing_manager_is_reported(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    served = serve("--size", "1M", "--unix", tmp_path / "s")
    code, _, err = served.stop()
    assert code == 0
    assert f"cannot notify the service manager at '{tmp_path}/none'" in err
    assert err.count("NOTIFY_SOCKET") == 1
