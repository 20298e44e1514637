"""`--overlay FILE` and `--overlay-per-client`: the image stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import FileDisk, OverlayDisk
from homebound.nbd import NBDDisk

from .conftest import Served

if TYPE_CHECKING:
    from pathlib import Path

Serve = Callable[..., Served]
Refused = Callable[..., str]
TALK = 'h.pwrite(b"mine", 4096); print(bytes(h.pread(4, 4096)), h.can_multi_conn())'


def ask(served: Served, libnbd: Any, code: str = TALK) -> str:
    """Run code with a connected client of libnbd's."""
    out: str = libnbd(served.uri, code)
    return out.strip()


@pytest.mark.peers
def test_a_file(serve: Serve, image: Path, libnbd: Any, tmp_path: Path):
    """Writes are in the overlay's file, and there when it is served again."""
    before = image.read_bytes()
    overlay = tmp_path / "changes"
    socket = ("--unix", tmp_path / "s")
    served = serve(image, "--overlay", overlay, *socket)
    assert served.hear().startswith(f"serving {overlay} over {image}, 1 MiB, at ")
    assert ask(served, libnbd) == "b'mine' True"
    assert served.stop()[0] == 0
    served = serve(image, "--overlay", overlay, *socket, "--read-only")
    assert ask(served, libnbd, "print(bytes(h.pread(4, 4096)), h.is_read_only())") == (
        "b'mine' True"
    )
    assert served.stop()[0] == 0
    assert image.read_bytes() == before
    with (
        FileDisk(image, read_only=True) as base,
        OverlayDisk(base, overlay, read_only=True) as disk,
    ):
        assert disk.info.data == 4096


def test_an_overlay_by_its_file(serve: Serve, refused: Refused, image: Path, tmp_path: Path):
    """As `homebound copy` takes it. Its name alone is refused, as its bytes are no disk's."""
    path, socket = tmp_path / "changes", ("--unix", tmp_path / "s")
    with FileDisk(image) as base, OverlayDisk(base, path) as disk:
        homebound.run(disk.write(4096, b"mine"))

    async def read(uri: str, offset: int) -> bytes:
        async with await NBDDisk.connect(uri) as remote:
            return bytes(await remote.read(offset, 4))

    served = serve(f"overlay:{path}", *socket)
    assert homebound.run(read(served.uri, 4096)) == b"mine"
    assert served.stop()[0] == 0
    assert f"it is an overlay; open it as overlay:{path}" in refused(path, *socket)
    served = serve(path, "--format", "raw", *socket)
    assert homebound.run(read(served.uri, 0)) == b"home"
    assert served.stop()[0] == 0


@pytest.mark.peers
@pytest.mark.parametrize("way", ["image", "directory", "memory"])
def test_one_for_each_client(serve: Serve, image: Path, libnbd: Any, tmp_path: Path, way: str):
    before = image.read_bytes()
    arguments = {
        "image": (image,),
        "directory": ("--dir", image.parent),
        "memory": ("--export", "disk.img=memory:1M", "--name", "x", image),
    }[way]
    served = serve(*arguments, "--overlay-per-client", "--unix", tmp_path / "s")
    name = "" if way == "image" else "disk.img"
    code = f"""
import nbd
h.shutdown()
a, b = nbd.NBD(), nbd.NBD()
for each in (a, b):
    each.set_export_name({name!r})
    each.connect_unix({str(tmp_path / "s")!r})
a.pwrite(b"aaaa", 4096)
b.pwrite(b"bbbb", 4096)
a.flush()
print(bytes(a.pread(4, 4096)), bytes(b.pread(4, 4096)), a.can_multi_conn())
"""
    if way == "directory":
        code = code.replace("h.shutdown()", "pass")
    out = libnbd(served.uri if way != "directory" else None, code)
    assert out.strip() == "b'aaaa' b'bbbb' False"
    assert served.stop()[0] == 0
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a", "--overlay", "o", "--export", "b=memory:1M"], "--overlay is for one image"),
        (["--dir", ".", "--overlay", "o"], "--overlay is for one image"),
        (["a", "--overlay", "o", "--overlay-per-client"], "--overlay is for one image"),
        (["a", "--overlay-per-client", "--read-only"], "which --read-only rejects"),
    ],
)
def test_wrong_use(refused: Refused, arguments: list[str], says: str):
    assert says in refused(*arguments, code=2)


def test_a_file_that_is_no_overlay(refused: Refused, image: Path, tmp_path: Path):
    (tmp_path / "changes").write_bytes(b"precious" * 1000)
    assert "changes" in refused(image, "--overlay", tmp_path / "changes")
    assert (tmp_path / "changes").read_bytes() == b"precious" * 1000
