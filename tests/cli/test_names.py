"""Names that are no disks of a command: a line that says so, and what to do instead."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from .programs import fail

if TYPE_CHECKING:
    from pathlib import Path

STREAM = "'-' is a stream, not a"
ADDRESS = "'http://x/y' is a URL, not a disk; fetch it first (curl -O http://x/y)"
QEMU_FORM = "is QEMU's own form; write nbd+unix:///?socket=s"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("info -", f"'DISK': {STREAM}"),
        ("info --map -", STREAM),
        ("bench -", STREAM),
        ("serve -", STREAM),
        ("copy http://x/y DST", f"'SRC': {ADDRESS}"),
        ("copy memory:1M http://x/y", f"'DST': {ADDRESS}"),
        ("info http://x/y", ADDRESS),
        ("info --map http://x/y", ADDRESS),
        ("bench http://x/y", ADDRESS),
        ("serve http://x/y", ADDRESS),
        ("copy s3://x/y DST", "s3:// is no scheme of disks; they are paths and NBD URIs"),
        ("info nbdx://x", "nbdx:// is no scheme of disks"),
        ("info file:///x", "write the path alone"),
        ("serve nbd:unix:s", QEMU_FORM),
        ("serve --export a=nbd:unix:s", f"'--export': 'nbd:unix:s' {QEMU_FORM}"),
        ("serve --export a=-", STREAM),
    ],
)
def test_no_disk(arguments: str, text: str):
    assert text in fail(*arguments.split(), code=2)


def test_no_server():
    refused = "cannot connect to nbd://127.0.0.1:1/: no server listens there: Connection refused"
    assert fail("info", "nbd://127.0.0.1:1/") == f"homebound: {refused}"
    missing = "there is no socket '/none/s': No such file or directory"
    assert fail("info", "nbd+unix:///?socket=/none/s").endswith(missing)


def test_no_directory(tmp_path: Path):
    target = tmp_path / "none" / "disk.img"
    words = f"homebound: cannot create '{target}': there is no directory '{target.parent}'"
    assert fail("copy", "memory:1M", target) == f"{words}: {os.strerror(errno.ENOENT)}"


def test_a_path_like_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert "cannot open image './http://x'" in fail("info", "./http://x")
