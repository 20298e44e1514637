"""Where images are made: in memory and on a real file system, which behave differently."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = {"memory": "/dev/shm", "disk": "/var/tmp"}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory; each test that asks for one runs in each kind."""
    parent = PLACES[request.param]
    if not os.access(parent, os.W_OK):
        pytest.skip(f"{parent} is not writable here")
    with tempfile.TemporaryDirectory(dir=parent, prefix="homebound-") as directory:
        yield Path(directory)
