"""The world in which code is explored."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from homebound._sync import wait_queue, waiters

from .explored import World

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Replace the raw locks and parkers of the code under test by those of the run under way."""
    guards = SimpleNamespace(RLock=World.allocate_lock)
    monkeypatch.setattr(wait_queue, "_thread", guards)
    monkeypatch.setattr(waiters, "my_parker", World.my_parker)
    yield
    World.run = None
