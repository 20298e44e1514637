"""Ours, in tasks of every loop, against what every lock and queue must do; and asyncio's own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import homebound

_spec = importlib.util.spec_from_file_location(
    "conformance", Path(__file__).with_name("conformance.py")
)
assert _spec is not None
assert _spec.loader is not None
conformance: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(conformance)


class Writing:
    """A RWLock that is only written."""

    def __init__(self) -> None:
        self.rw = homebound.RWLock()
        self.acquire = self.rw.acquire_write
        self.release = self.rw.release
        self.locked = self.rw.locked

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()


class OnePermit(homebound.BoundedSemaphore):
    def release(self) -> None:
        try:
            super().release()
        except ValueError as error:
            raise RuntimeError from error


@pytest.mark.parametrize("factory", [homebound.Lock, Writing, OnePermit, homebound.Condition])
def test_lock(run: Any, factory: Any):
    run(conformance.check_lock(factory))


@pytest.mark.parametrize("factory", [homebound.Queue, homebound.PriorityQueue])
def test_queue(run: Any, factory: Any):
    async def check() -> None:
        if factory is homebound.PriorityQueue:
            await conformance._keeps_order(factory())
        else:
            await conformance.check_queue(factory)

    run(check())
