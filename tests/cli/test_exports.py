"""Several exports: named one by one, or the images of a directory."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from homebound.block import FileDisk, ImageLocked

from .conftest import TIMEOUT, Served

if TYPE_CHECKING:
    from pathlib import Path

Serve = Callable[..., Served]
Refused = Callable[..., str]


def sizes(uri: str) -> dict[str, int]:
    """Return the exports that nbdinfo finds."""
    if shutil.which("nbdinfo") is None:
        pytest.skip("nbdinfo (Debian: libnbd-bin) is not installed")
    command = ["nbdinfo", "--list", uri]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    found = {}
    name = ""
    for line in done.stdout.splitlines():
        key, _, value = line.strip().partition("=" if line.startswith("export") else ": ")
        if key == "export":
            name = value.removesuffix(":").strip('"')
        elif key == "export-size":
            found[name] = int(value.split()[0])
    return found


TALK = """
import nbd, sys
h = nbd.NBD()
h.set_export_name(sys.argv[2])
try:
    h.connect_unix(sys.argv[1])
except nbd.Error:
    sys.exit("refused")
print(h.get_size(), flush=True)
for line in sys.stdin:
    if line == "write\\n":
        h.pwrite(b"shared", 0)
        print("written", flush=True)
    elif line == "read\\n":
        print(bytes(h.pread(6, 0)), flush=True)
"""
LIBNBD = "/usr/bin/python3"  # of the distribution, which has libnbd


@contextmanager
def talking(uri: str, name: str) -> Iterator[subprocess.Popen[str]]:
    """Run libnbd's client, which does what it is told on standard input."""
    if subprocess.run([LIBNBD, "-c", "import nbd"], capture_output=True, check=False).returncode:
        pytest.skip("python3-libnbd is not installed")
    command = [LIBNBD, "-c", TALK, parse_qs(urlsplit(uri).query)["socket"][0], name]
    pipe = subprocess.PIPE
    # Its modules are the distribution's, not ours.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    with subprocess.Popen(
        command, text=True, env=clean, stdin=pipe, stdout=pipe, stderr=pipe
    ) as client:
        yield client


def connects(uri: str, name: str) -> str:
    """Connect and disconnect; return the size of the export, or that it is refused."""
    with talking(uri, name) as client:
        out, err = client.communicate(timeout=TIMEOUT)
    return (out or err).strip()


def say(client: subprocess.Popen[str], what: str) -> str:
    """Tell the client to do something; return its answer."""
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(f"{what}\n")
    client.stdin.flush()
    answer = client.stdout.readline().strip()
    return client.stdout.readline().strip() if answer.isdecimal() else answer


def locked(path: Path) -> str:
    """Return why the image cannot be opened."""
    with pytest.raises(ImageLocked) as refusal:
        FileDisk(path)
    return str(refusal.value)


@pytest.mark.peers
def test_named_ones(serve: Serve, image: Path):
    served = serve(
        *(image, "--name", "root", "--export", "swap=memory:8M", "--export", f"b c={image}"),
        *("--no-lock", "--unix", image.with_suffix(".sock")),
    )
    place = f"?socket={image.with_suffix('.sock')}"
    assert [served.hear().rpartition(" ")[2].strip() for _ in range(3)] == [
        f"nbd+unix:///root{place}",
        f"nbd+unix:///swap{place}",
        f"nbd+unix:///b%20c{place}",
    ]
    assert served.uri == f"nbd+unix:///root{place}"
    assert sizes(served.uri) == {"root": 1 << 20, "swap": 8 << 20, "b c": 1 << 20}
    assert served.stop()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--export", "a"], "'a' is not an export; write NAME=IMAGE, NAME=URI or NAME=memory:SIZE"),
        (["--export", "a="], "'a=' is not an export"),
        (["--export", "a=memory:1M", "--export", "a=memory:2M"], "two exports are named 'a'"),
        (["--export", "a=memory:1M", "--size", "1G"], "IMAGE has its own size"),
    ],
)
def test_wrong_use(refused: Refused, arguments: list[str], text: str):
    assert text in refused(*arguments, code=2)


def test_a_size_of_memory_that_is_none(refused: Refused):
    assert "'x' is not a size" in refused("--export", "a=memory:x", code=2)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    path.mkdir()
    for name, size in [("a.img", 4096), ("b.img", 8192), (".hidden", 512), ("empty", 0)]:
        (path / name).write_bytes(bytes(size))
    (path / "inner").mkdir()
    (path / "inner" / "c.img").write_bytes(bytes(512))
    (tmp_path / "secret").write_bytes(bytes(512))
    (path / "link").symlink_to("a.img")
    (path / "deep").symlink_to("inner/c.img")
    (path / "loop").symlink_to("loop")
    (path / "out").symlink_to("../secret")
    (path / "passwd").symlink_to("/etc/passwd")
    return path


@pytest.mark.peers
def test_a_directory(serve: Serve, directory: Path):
    """List the images, through links that stay inside; refuse the others, with a report."""
    socket = directory.parent / "s"
    served = serve("--dir", directory, "--read-only", "--unix", socket)
    place = f"?socket={socket}"
    assert served.uri == f"nbd+unix:///{place}"
    assert served.hear() == f"serving the images in {directory}, at nbd+unix:///NAME{place}\n"
    assert sizes(served.uri) == {"a.img": 4096, "b.img": 8192, "deep": 512, "link": 4096}
    for name in ("out", "passwd", "loop", "empty", ".hidden", "inner", "inner/c.img", "..", "none"):
        assert connects(served.uri, name) == "refused"
    code, _, err = served.stop()
    assert code == 0
    for name in ("out", "passwd"):
        assert f"finding export '{name}' for the client process " in err
    assert err.count("it is a symbolic link that leads out of the directory") == 2
    assert "Traceback" not in err


@pytest.mark.peers
def test_a_file_that_comes_later(serve: Serve, directory: Path):
    served = serve("--dir", directory, "--unix", directory.parent / "s")
    assert connects(served.uri, "late") == "refused"
    (directory / "late").write_bytes(b"late" * 256)
    assert connects(served.uri, "late") == "1024"
    assert "late" in sizes(served.uri)
    assert served.stop()[0] == 0


@pytest.mark.peers
def test_a_script_in_a_directory_is_not_run(serve: Serve, directory: Path):
    """A client that asked for it had it run, whoever had put it there."""
    ran = directory.parent / "ran"
    text = f"open({str(ran)!r}, 'w')\nsize = 512\ndef read(offset, length): return bytes(length)\n"
    (directory / "disk.py").write_text(text)
    served = serve("--dir", directory, "--unix", directory.parent / "s")
    assert connects(served.uri, "disk.py") == "refused"
    assert "disk.py" not in sizes(served.uri)
    assert connects(served.uri, "a.img") == "4096"
    code, _, err = served.stop()
    assert code == 0
    assert "it is a script, not an image; serve it by --export NAME=disk.py" in err
    assert not ran.exists()


@pytest.mark.peers
def test_connections_to_one_file_share_it_and_its_lock(serve: Serve, directory: Path):
    served = serve("--dir", directory, "--unix", directory.parent / "s")
    with talking(served.uri, "a.img") as first, talking(served.uri, "link") as second:
        assert say(first, "write") == "written"
        assert say(second, "read") == "b'shared'"
        assert "has it open for writing" in locked(directory / "a.img")
    assert served.stop()[0] == 0
    assert (directory / "a.img").read_bytes()[:6] == b"shared"


@pytest.mark.peers
def test_a_name_that_is_not_utf_8(serve: Serve, tmp_path: Path):
    (tmp_path / "a").write_bytes(bytes(512))
    strange = tmp_path / os.fsdecode(b"\xff")
    strange.write_bytes(bytes(512))
    served = serve("--dir", tmp_path, "--unix", tmp_path.parent / "s")
    assert sizes(served.uri) == {"a": 512}
    assert served.stop()[0] == 0


def test_a_directory_that_is_not_there(refused: Refused, tmp_path: Path):
    text = refused("--dir", tmp_path / "none")
    assert text == f"homebound: '{tmp_path}/none': No such file or directory"
