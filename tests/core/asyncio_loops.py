"""Steps of asyncio's own loop, for the tests of what is private in it."""

from __future__ import annotations

from typing import Any


def iterate(loop: Any) -> None:
    """Run one iteration, without waiting in it."""
    loop.stop()
    loop.run_forever()
