"""A disk whose last flush fails, on thin storage that has run out."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from .conftest import TIMEOUT, Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Serve = Callable[..., Served]


def call(*command: object) -> str:
    """Run a program of the system; skip the test if that needs another user or kernel."""
    line = [*map(str, command)]
    if shutil.which(line[0]) is None:
        pytest.skip(f"{line[0]} is not installed")
    done = subprocess.run(line, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        pytest.skip(f"{line[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def thin_disk(directory: Path) -> Iterator[str]:
    """Make a block device of 8 MiB with storage for less than one."""
    directory.mkdir()
    with ExitStack() as stack:
        call("mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", directory)
        stack.callback(call, "umount", directory)
        with (directory / "image").open("wb") as image:
            image.truncate(8 << 20)
        device = call("losetup", "--find", "--show", directory / "image")
        stack.callback(call, "losetup", "--detach", device)
        yield device


@pytest.mark.peers
def test_it_is_told(serve: Serve, tmp_path: Path):
    if shutil.which("qemu-io") is None:
        pytest.skip("qemu-io (Debian: qemu-utils) is not installed")
    with thin_disk(tmp_path / "thin") as device:
        served = serve(device, "--unix", tmp_path / "s")
        served.hear()
        command = ["qemu-io", "-f", "raw", "-c", "write 0 4M", served.uri]
        subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
        code, out, err = served.stop()
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith(f"homebound: cannot flush {device}: ")
    assert last.endswith("Input/output error")
