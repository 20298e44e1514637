"""The gate of a disk: its own code, over all short interleavings, with bugs that must be found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from homebound._sync import wait_queue, waiters
from homebound.block import _gate
from homebound.block._gate import Gate

from . import explorer
from .explored import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.exhaustive


@pytest.fixture(autouse=True)
def _world(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(wait_queue, "new_guard", World.allocate_lock)
    monkeypatch.setattr(_gate, "new_guard", World.allocate_lock)
    monkeypatch.setattr(waiters, "my_parker", World.my_parker)
    yield
    World.run = None


# How often an actor is stopped where it could go on; each time more is ten times the runs.
PREEMPTIONS = {"request_and_section": 2}


def explore(scenario: Callable[[Any], Any], *, and_here: bool = False) -> int:
    def begin(run: Any) -> Any:
        World.run = run
        return scenario(run)

    files = {wait_queue.__file__, _gate.__file__} | ({__file__} if and_here else set())
    runs: int = explorer.explore(begin, files, PREEMPTIONS.get(scenario.__name__, 1))
    return runs


class Traffic:
    """Requests and sections of one gate, and what is inside."""

    def __init__(self, run: Any) -> None:
        self.run = run
        self.gate = Gate()
        self.requests = self.sections = 0

    def request(self) -> None:
        if not self.gate.enter():
            self.gate._entrance._wait_sync(None)
        assert not self.sections, "a request is inside a section"
        self.requests += 1
        self.run.until(lambda: True)
        assert not self.sections, "a section has begun while a request is inside"
        self.requests -= 1
        self.gate.leave()

    def section(self) -> None:
        me = object()
        self.gate.shut(me)
        try:
            self.gate.emptied_sync()
            assert not self.requests, "a section has begun while a request is inside"
            self.sections += 1
            self.run.until(lambda: True)
            self.sections -= 1
        finally:
            self.gate.reopen(me)

    def check(self) -> None:
        assert not self.gate.inside
        assert not self.gate.closed
        assert not self.gate._owners
        assert not self.gate._entrance._waiters
        assert not self.gate._exit._waiters


def request_and_section(run: Any) -> Any:
    traffic = Traffic(run)
    run.actor(traffic.request)
    run.actor(traffic.section)
    return traffic.check


def request_that_leaves(run: Any) -> Any:
    traffic = Traffic(run)
    run.actor(traffic.request, cancel="maybe")
    run.actor(traffic.section)
    return traffic.check


def section_that_leaves(run: Any) -> Any:
    traffic = Traffic(run)
    run.actor(traffic.request)
    run.actor(traffic.section, cancel="maybe")
    return traffic.check


def two_sections(run: Any) -> Any:
    traffic = Traffic(run)
    run.actor(traffic.section)
    run.actor(traffic.section)
    return traffic.check


SCENARIOS = [request_and_section, request_that_leaves, section_that_leaves, two_sections]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
def test_every_interleaving(scenario: Callable[[Any], Any]):
    assert explore(scenario) > 10


# Bugs, each of which must be found.


def looks_before_it_is_inside(self: Gate) -> bool:
    if self.closed:
        return False
    self.inside.append(None)
    return True


def tells_no_section(self: Gate) -> None:
    self.inside.pop()


def looks_before_it_has_left(self: Gate) -> None:
    alone = self.closed and len(self.inside) == 1
    self.inside.pop()
    if alone:
        self._exit._serve()


def lets_nothing_in(self: Gate, owner: object) -> None:
    with self._guard:
        self._drains -= 1
        self._owners.remove(owner)
        self.closed = bool(self._drains)


def begins_without_a_mark(self: Gate, owner: object) -> None:
    with self._guard:
        self._drains += 1
        self._owners.append(owner)


BUGS = [
    ("enter", looks_before_it_is_inside),
    ("leave", tells_no_section),
    ("leave", looks_before_it_has_left),
    ("reopen", lets_nothing_in),
    ("shut", begins_without_a_mark),
]


def explore_all() -> None:
    for scenario in SCENARIOS:
        explore(scenario, and_here=True)


@pytest.mark.parametrize(("name", "bug"), BUGS, ids=lambda each: getattr(each, "__name__", ""))
def test_bugs_are_found(name: str, bug: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Gate, name, bug)
    with pytest.raises(AssertionError):
        explore_all()
