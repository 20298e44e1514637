"""`homebound serve` with a disk in Python, ours and nbdkit's kind, and libnbd's client."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import SERVE, TIMEOUT, Served

if TYPE_CHECKING:
    from pathlib import Path

Serve = Callable[..., Served]
Refused = Callable[..., str]

DISK = """
    class Disk:
        def __init__(self, size="8192", fill="x"):
            self.size = int(size)
            self.data = bytearray(fill.encode()) * self.size

        def read(self, offset, length):
            if offset == 4096:
                return b"short"
            return self.data[offset:offset + length]

        def write(self, offset, data):
            self.data[offset:offset + len(data)] = data
"""
PLUGIN = """
    import nbdkit
    import os

    API_VERSION = 2
    disks = {}
    size = 4096

    def config(key, value):
        global size
        assert key == "size"
        size = nbdkit.parse_size(value)

    def list_exports(readonly, is_tls):
        return [("one", "the first"), "two"]

    def default_export(readonly, is_tls):
        return "one"

    def open(readonly):
        name = nbdkit.export_name()
        if name == "forbidden":
            raise PermissionError("not for " + str(nbdkit.peer_uid()))
        return disks.setdefault(name, bytearray(name.encode().ljust(size, b".")))

    def get_size(h):
        return len(h)

    def pread(h, buf, offset, flags):
        buf[:] = h[offset:offset + len(buf)]

    def pwrite(h, buf, offset, flags):
        h[offset:offset + len(buf)] = buf

    def flush(h, flags):
        nbdkit.shutdown()

    def trim(h, count, offset, flags):
        nbdkit.disconnect(True)

    def cleanup():
        print("cleaned up", flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        (tmp_path / "disk.py").write_text(dedent(text))
        return tmp_path / "disk.py"

    return write


@pytest.mark.peers
@pytest.mark.parametrize("option", [(), ("--script",)])
def test_a_disk(serve: Serve, libnbd: Any, path: Any, tmp_path: Path, option: tuple[str, ...]):
    served = serve(*option, path(DISK), "size=65536", "fill=z", "--unix", tmp_path / "s")
    assert served.hear().startswith(f"serving {tmp_path}/disk.py, 64 KiB, at nbd+unix:///?")
    code = """
h.pwrite(b"abc", 1)
print(h.get_size(), bytes(h.pread(5, 0)), h.can_flush(), h.can_multi_conn())
for _ in range(2):
    try:
        h.pread(512, 4096)
    except nbd.Error as error:
        print(error.errno)
"""
    assert libnbd(served.uri, code).splitlines() == ["65536 b'zabcz' False True", "EIO", "EIO"]
    status, _, err = served.stop()
    assert status == 0
    says = f"EIO, {tmp_path}/disk.py, line 7: read() of 512 bytes at 4096 returned 5 bytes"
    assert err.count(says) == 1
    assert "Traceback" not in err


@pytest.mark.peers
def test_a_plugin(serve: Serve, libnbd: Any, path: Any, tmp_path: Path):
    socket = tmp_path / "s"
    served = serve("--script", path(PLUGIN), "size=8k", "--unix", socket)
    assert served.hear() == f"serving {tmp_path}/disk.py, at {served.uri}\n"
    code = f"""
print(bytes(h.pread(4, 0)), h.get_size())
for name in ("one", "two", "forbidden"):
    other = nbd.NBD()
    other.set_export_name(name)
    try:
        other.connect_unix({str(socket)!r})
        print(bytes(other.pread(4, 0)))
        other.pwrite(b"W", 0)
    except nbd.Error as error:
        print("refused")
print(bytes(h.pread(2, 0)))
asks = nbd.NBD()
asks.set_opt_mode(True)
asks.connect_unix({str(socket)!r})
asks.opt_list(lambda name, text: print(name, text))
asks.opt_abort()
"""
    assert libnbd(served.uri, code).splitlines() == [
        *("b'one.' 8192", "b'one.'", "b'two.'", "refused", "b'Wn'", "one the first", "two "),
    ]
    status, out, err = served.stop()
    assert (status, out) == (0, "cleaned up\n")
    assert "in open: PermissionError: not for" in err
    assert "Traceback" not in err


@pytest.mark.peers
def test_a_plugin_stops_the_server_and_disconnects(
    serve: Serve, libnbd: Any, path: Any, tmp_path: Path
):
    served = serve(path(PLUGIN), "--unix", tmp_path / "s")
    code = """
try:
    h.trim(512, 0)
except nbd.Error as error:
    print("gone")
"""
    assert libnbd(served.uri, code) == "gone\n"
    libnbd(served.uri, "h.flush()")
    status, out, _ = served.finish()
    assert (status, out) == (0, "cleaned up\n")


@pytest.mark.peers
def test_a_plugin_for_one_connection_at_a_time(
    serve: Serve, libnbd: Any, path: Any, tmp_path: Path
):
    """By its thread model the second client waits until the first has gone."""
    text = (
        PLUGIN
        + """
    def thread_model():
        return nbdkit.THREAD_MODEL_SERIALIZE_CONNECTIONS
    """
    )
    served = serve(path(text), "--unix", tmp_path / "s")
    code = f"""
import threading
came = threading.Event()
def second():
    other = nbd.NBD()
    other.connect_unix({str(tmp_path / "s")!r})
    came.set()
    other.shutdown()
thread = threading.Thread(target=second)
thread.start()
h.pwrite(b"x", 0)
print(came.wait(0.2))
h.shutdown()
thread.join()
print(came.is_set())
"""
    assert libnbd(served.uri, code).split() == ["False", "True"]
    assert served.stop()[0] == 0


@pytest.mark.peers
def test_an_overlay_over_a_plugin(serve: Serve, libnbd: Any, path: Any, tmp_path: Path):
    served = serve(path(PLUGIN), "--overlay-per-client", "--unix", tmp_path / "s")
    for _ in range(2):
        code = 'print(bytes(h.pread(4, 0))); h.pwrite(b"mine", 0); print(bytes(h.pread(4, 0)))'
        assert libnbd(served.uri, code).split() == ["b'one.'", "b'mine'"]
    assert served.stop()[0] == 0


@pytest.mark.parametrize(
    ("text", "arguments", "says"),
    [
        ("size = 1\ndef read(o, n) pass", [], "disk.py, line 2: SyntaxError: expected ':'"),
        ("import nbdkit\nnbdkit.x", [], "disk.py, line 2: AttributeError: module 'nbdkit' has no"),
        (DISK, ["sise=1"], "disk.py, line 3: Disk: got an unexpected keyword argument 'sise'"),
        (DISK, ["size=x"], "disk.py, line 4, in __init__: ValueError: invalid literal"),
        (PLUGIN, ["sise=1"], "disk.py, line 11, in config: AssertionError"),
    ],
)
def test_a_script_that_does_not_start(
    refused: Refused, path: Any, text: str, arguments: list[str], says: str
):
    assert says in refused(path(text), *arguments)


def test_wrong_use(refused: Refused, path: Any, tmp_path: Path):
    assert "'x' is no parameter of the script" in refused(path(DISK), "x", code=2)
    assert "unexpected extra argument (a=b)" in refused("disk.img", "a=b", code=2)
    assert "IMAGE has its own size" in refused(path(DISK), "--size", "1G", code=2)
    assert "No such file or directory" in refused("--script", tmp_path / "none.py")
    assert "No such file or directory" in refused(tmp_path / "none.py")


def test_a_disk_for_a_command(path: Any):
    done = subprocess.run(
        [*SERVE, str(path(DISK)), "--run", 'echo "$size"'],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert done.stdout == "8192\n"
