"""A signal handler raises at each point of the end of `run` in turn: the end is complete."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import _core

from ..locks import attack as attacks
from ..locks.attack import Attack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOT = Path(_core.__file__).parent
ENDS = {str(ROOT / name) for name in ("wind_down.py", "loop.py")}
OF_ASYNCIO = {
    getattr(asyncio.BaseEventLoop, name).__code__ for name in ("run_forever", "run_until_complete")
}


MOST = 200  # points; more come where the loop waits


class Raised(Exception):  # noqa: N818
    """What the handler raises."""


class AtEnd(Attack):
    """One exception at a point of the end of a run."""

    begun = False

    def _point(self, frame: Any, opname: str, error: type) -> None:
        # What asyncio's gather calls, for the generators, is cut short as on any loop.
        gathers = frame.f_back is not None and frame.f_back.f_code.co_name == "_done_callback"
        if self.begun and error is Raised and not gathers:
            super()._point(frame, opname, error)


@pytest.fixture(autouse=True)
def only_in_the_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Attack the code that ends the home, not that of the tasks, only as signal handlers do."""

    def is_attacked(code: Any) -> bool:
        return code.co_filename in ENDS or code in OF_ASYNCIO

    monkeypatch.setattr(attacks, "Interrupt", Raised)
    monkeypatch.setattr(attacks, "_is_ours", is_attacked)
    gc.collect()
    gc.disable()  # Python drops what is raised in a finaliser
    yield
    gc.enable()


def ended_under(attack: AtEnd) -> set[str]:
    """Run a program whose end is under attack; return what has ended."""
    log: set[str] = set()
    kept: list[Any] = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await surely_sleep()
            log.add("generator")

    async def surely_sleep() -> None:
        # The attack may strike its own steps; and if it strikes `cancel`, that is called again.
        for _ in range(50):
            try:
                await asyncio.sleep(0.001)
            except (Raised, asyncio.CancelledError):
                continue
            return

    async def work(name: str) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await surely_sleep()
            log.add(name)

    async def main() -> None:
        for name in ("first", "second"):
            homebound.create_task(work(name))
        kept.append(items())
        await anext(kept[0])
        await homebound.to_worker(int)
        kept.append(homebound.running_context().workers)
        # What comes around a callback is reported, as what the callback raises.
        asyncio.get_running_loop().set_exception_handler(lambda *_: log.add("raised"))
        attack.begun = True

    with attack._watching():
        try:
            homebound.run(main())
        except Raised:
            log.add("raised")
        attack.begun = False
    assert homebound.main_context() is None
    if not kept[1]._threads:
        log.add("workers")
    return log


# A part of the end that was interrupted before its task was made, and is made again.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_end_is_complete():
    at = 0
    for at in range(0, MOST, 3):
        attack = AtEnd(at)
        log = ended_under(attack)
        if not attack.where:
            break
        assert log >= {"first", "second", "generator", "workers"}, attack.where
    assert at > 50
