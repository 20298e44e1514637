"""A call in a worker whose end is passed on by a callback."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from homebound import WorkerPool
from homebound._workers.calls import Call

from ..locks.interruptions import no_more_threads

if TYPE_CHECKING:
    from collections.abc import Callable


class Told:
    """What a call has told, in order, and whether its end has come."""

    def __init__(self) -> None:
        self.what: list[Any] = []
        self.ended = threading.Event()

    def call(self, fn: Callable[[], Any]) -> Call[Any]:
        return Call(fn, last=lambda: self.what.append("last"), tell=self.tell)

    def tell(self, call: Call[Any]) -> None:
        self.what.append(call)
        self.ended.set()


@pytest.fixture
def told() -> Told:
    return Told()


def test_its_result(told: Told):
    with WorkerPool() as pool:
        call = told.call(threading.get_ident)
        call.begin(pool)
        assert told.ended.wait(20)
    assert told.what == ["last", call]
    assert call.done
    assert call.result == call.worker != threading.get_ident()
    assert (call.error, call.dropped) == (None, False)


def test_its_error(told: Told):
    with WorkerPool() as pool:
        call = told.call(lambda: 1 // 0)
        call.begin(pool)
        assert told.ended.wait(20)
    assert told.what == ["last", call]
    assert isinstance(call.error, ZeroDivisionError)
    call.error = None  # its traceback has the worker's frames, and they have its descriptor


@pytest.mark.parametrize("how", ["withdrawn", "shut down"])
def test_it_is_dropped_while_it_waits(told: Told, how: str):
    begun, go_on = threading.Event(), threading.Event()

    def busy() -> bool:
        begun.set()
        return go_on.wait(20)

    with WorkerPool(1) as pool:
        other = pool.submit(busy)
        assert begun.wait(20)
        call = told.call(lambda: told.what.append("made"))
        call.begin(pool)
        if how == "withdrawn":
            call.withdraw(pool)
        else:
            pool.shutdown(wait=False, cancel_futures=True)
        assert told.what == ["last", call]
        assert (call.done, call.dropped, call.error) == (True, True, None)
        go_on.set()
        assert other.result(20)
    assert told.what == ["last", call]


def test_once_it_runs_it_is_not_withdrawn(told: Told):
    begun, go_on = threading.Event(), threading.Event()

    def work() -> bool:
        begun.set()
        return go_on.wait(20)

    with WorkerPool() as pool:
        call = told.call(work)
        call.begin(pool)
        assert begun.wait(20)
        call.withdraw(pool)
        assert told.what == []
        go_on.set()
    assert told.what == ["last", call]
    assert call.result is True


def test_refused(told: Told):
    """The caller gets the error, and nothing is told."""
    pool = WorkerPool()
    with no_more_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
        told.call(threading.get_ident).begin(pool)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="was shut down"):
        told.call(threading.get_ident).begin(pool)
    assert told.what == []


def test_told_again_if_telling_fails(told: Told, monkeypatch: pytest.MonkeyPatch):
    """The worker goes on, its last step is not repeated, and the call's result stays."""
    reports: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reports.append(args.exc_type))

    def tell(call: Call[Any]) -> None:
        told.tell(call)
        if told.what.count(call) == 1:
            raise MemoryError

    with WorkerPool() as pool:
        call = Call(lambda: 7, last=lambda: told.what.append("last"), tell=tell)
        call.begin(pool)
    assert told.what == ["last", call, call]
    assert (call.result, call.error) == (7, None)
    assert reports == [MemoryError]
