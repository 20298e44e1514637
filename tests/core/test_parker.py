"""Parkers: with a descriptor or with a lock, they keep the same promises."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound._os import parking
from homebound._os.parking import LockParker, Parker, my_parker, new_parker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]

both = pytest.mark.parametrize("kind", [Parker, LockParker])


@both
def test_a_wake_is_remembered_once(kind: type[Parker]):
    parker = kind()
    assert not parker.is_set()
    parker.unpark()
    parker.unpark()
    assert parker.is_set()
    assert parker.park(20)
    assert not parker.is_set()
    assert not parker.park(0)


@both
def test_what_woke_it_stays_visible_until_cleared(kind: type[Parker]):
    parker = kind()
    parker.unpark()
    assert parker.sleep(20)
    assert parker.is_set()
    parker.clear()
    assert not parker.is_set()
    parker.clear()
    assert not parker.sleep(0)


@both
def test_woken_by_another_thread(kind: type[Parker], in_thread: InThread):
    parker = kind()
    asleep = threading.Event()

    def sleep() -> bool:
        asleep.set()
        return parker.park()

    woken = in_thread(sleep)
    assert asleep.wait(20)
    assert not parker.is_set()  # asked while it sleeps, perhaps
    parker.unpark()
    assert woken.result(20)


@both
def test_it_wakes_with_a_descriptor_to_look_at(kind: type[Parker]):
    parker = kind()
    watched = new_parker()
    watched.unpark()
    assert not parker.park(also=watched.fd)
    parker.unpark()
    assert parker.park(also=watched.fd)
    assert watched.is_set()


@pytest.fixture
def on_alarm() -> Iterator[Callable[[Callable[[], object]], None]]:
    """`on_alarm(call)` has a signal handler of the main thread make this call, in a moment."""

    def ask(call: Callable[[], object]) -> None:
        signal.signal(signal.SIGALRM, lambda *_: call())
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    before = signal.getsignal(signal.SIGALRM)
    yield ask
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_signal_handler_waits_while_its_thread_does(
    on_alarm: Callable[[Callable[[], object]], None],
):
    """Both sleep on the parker of the main thread, one inside the other."""
    outer, inner = homebound.Event(), homebound.Event()
    handled: list[bool] = []

    def handle() -> None:
        handled.append(inner.wait_sync(0.001))
        outer.set()

    on_alarm(handle)
    assert outer.wait_sync(20)
    assert handled == [False]


def test_a_finaliser_waits_as_the_parker_of_its_thread_is_made(
    in_thread: InThread, monkeypatch: pytest.MonkeyPatch
):
    """Both waits are on the same parker, which a waker of either finds."""
    made: list[Parker] = []

    def finalised(name: str) -> Any:
        monkeypatch.undo()
        made.append(my_parker())
        return getattr(os, name)

    monkeypatch.setattr(parking, "os", _Reports(finalised))
    assert in_thread(my_parker).result(20) is made[0]


class _Reports:
    """A module of which each name is reported as it is looked up."""

    def __init__(self, look_up: Callable[[str], Any]) -> None:
        self._look_up = look_up

    def __getattr__(self, name: str) -> Any:
        return self._look_up(name)
