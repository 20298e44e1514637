"""Where images are made: in memory and on a real file system, which behave differently."""

from __future__ import annotations

import os
import random
import sys
import tempfile
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from homebound.block import FileDisk, OverlayDisk

from .overlays import SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLACES = {"memory": "/dev/shm", "disk": "/var/tmp"}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory; each test that asks for one runs in each kind."""
    parent = PLACES[request.param]
    if not os.access(parent, os.W_OK):
        pytest.skip(f"{parent} is not writable here")
    with tempfile.TemporaryDirectory(dir=parent, prefix="homebound-") as directory:
        yield Path(directory)


@pytest.fixture
def image(place: Path) -> Path:
    path = place / "base"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


@pytest.fixture
def base(image: Path) -> Iterator[FileDisk]:
    with FileDisk(image, read_only=True) as disk:
        yield disk


@pytest.fixture(params=["file", "memory"])
def overlay(request: pytest.FixtureRequest, base: FileDisk, place: Path) -> Iterator[OverlayDisk]:
    path = place / "overlay" if request.param == "file" else None
    with OverlayDisk(base, path) as disk:
        yield disk


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Write a script; return its path."""

    def write(text: str) -> str:
        path = tmp_path / "disk.py"
        path.write_text(dedent(text))
        return str(path)

    before, path = set(sys.modules), list(sys.path)
    yield write
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.startswith("homebound_script"):
            del sys.modules[name]
