"""The conformance suite of loops: sound ones pass, planted bugs are found."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import homebound
from homebound.testing import (
    Case,
    check_loop,
    loop_cases,
)

from .failed_cases import failed_cases


@pytest.mark.parametrize("case", loop_cases())
@pytest.mark.parametrize("loop", ["homebound", "asyncio", "uvloop"])
def test_loop(loop: str, case: Case, loop_factory: Any):
    case(homebound.new_event_loop if loop == "homebound" else loop_factory(loop))


class LastCallFirst(asyncio.SelectorEventLoop):
    def call_soon(self, *args: Any, **options: Any) -> Any:  # type: ignore[override]
        handle = super().call_soon(*args, **options)
        self._ready.rotate(1)  # type: ignore[attr-defined]
        return handle


class ForgetsContext(asyncio.SelectorEventLoop):
    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Any = None
    ) -> Any:
        import contextvars  # noqa: PLC0415

        return super().call_soon(callback, *args, context=context or contextvars.Context())


class DiesOfAnError(asyncio.SelectorEventLoop):
    def call_exception_handler(self, context: Any) -> None:
        raise SystemExit(context["message"])


class Deaf(asyncio.SelectorEventLoop):
    """A post from another thread does not wake it."""

    def _write_to_self(self) -> None:
        pass


class IgnoresCancelledTimers(asyncio.SelectorEventLoop):
    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> Any:
        super().call_at(when, callback, *args, context=context)
        return super().call_at(when, lambda: None)


BROKEN_LOOPS: dict[Any, set[str]] = {
    LastCallFirst: {"calls in order"},
    ForgetsContext: {"carries contextvars"},
    Deaf: {"wakes for a thread"},
    IgnoresCancelledTimers: {"calls nothing that was cancelled"},
}


@pytest.mark.parametrize("factory", BROKEN_LOOPS)
def test_broken_loop(factory: Any):
    skip = {case.name for case in loop_cases()} - BROKEN_LOOPS[factory]
    assert failed_cases(check_loop, factory, patience=0.5, skip=skip) == BROKEN_LOOPS[factory]
