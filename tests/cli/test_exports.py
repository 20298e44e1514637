"""Several exports: named one by one, or the images of a directory."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

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
        (["--export", "a"], "'a' is not an export; write NAME=IMAGE or NAME=memory:SIZE"),
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
    """Follow links that stay inside; leave out files that cannot be served, with a message."""
    socket = directory.parent / "s"
    served = serve("--dir", directory, "--read-only", "--unix", socket)
    assert sizes(served.uri) == {"a.img": 4096, "b.img": 8192, "deep": 512, "link": 4096}
    code, _, err = served.stop()
    assert code == 0
    left_out = "homebound: '{}' is left out: {}"
    way_out = "it is a symbolic link that leads out of the directory"
    for name in ("out", "passwd"):
        assert left_out.format(directory / name, way_out) in err
    for name in ("empty", "loop"):
        assert f"homebound: '{directory}/{name}' is left out: " in err


def test_two_names_of_one_image_have_one_writer(serve: Serve, directory: Path):
    served = serve("--dir", directory, "--port", "0")
    code, _, err = served.stop()
    assert (code, err.count("\nserving ")) == (0, 3)
    assert f"'{directory}/link' is left out: " in err
    assert "this process" in err


def test_a_name_that_is_not_utf_8(serve: Serve, tmp_path: Path):
    (tmp_path / "a").write_bytes(bytes(512))
    strange = tmp_path / os.fsdecode(b"\xff")
    strange.write_bytes(bytes(512))
    served = serve("--dir", tmp_path, "--port", "0")
    assert served.uri.endswith("/a")
    assert "is left out: its name is not UTF-8" in served.stop()[2]


def test_a_directory_without_images(refused: Refused, tmp_path: Path):
    assert f"there is no image to serve in '{tmp_path}'" in refused("--dir", tmp_path)


def test_a_directory_that_is_not_there(refused: Refused, tmp_path: Path):
    text = refused("--dir", tmp_path / "none")
    assert text == f"homebound: '{tmp_path}/none': No such file or directory"
