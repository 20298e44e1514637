"""The world in which code is explored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from homebound._sync import wait_queue, waiters

from .explored import World

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Replace the raw locks and parkers of the code under test by those of the run under way."""
    monkeypatch.setattr(wait_queue, "new_guard", World.allocate_lock)
    monkeypatch.setattr(waiters, "my_parker", World.my_parker)
    yield
    World.run = None
