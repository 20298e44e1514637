"""Exploring the code of locks and queues: replacements for raw locks and parkers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from homebound._sync import barrier, queue_ends, queues, rw_lock, semaphore, wait_queue

from . import explorer

if TYPE_CHECKING:
    from collections.abc import Callable


LOCKS = {wait_queue.__file__, rw_lock.__file__, barrier.__file__}
QUEUES = {wait_queue.__file__, queues.__file__, queue_ends.__file__, semaphore.__file__}


class World:
    """The run under way: what the code under test has in place of locks and parkers."""

    run: Any = None

    @classmethod
    def allocate_lock(cls) -> Any:
        return cls.run.allocate_lock()

    @classmethod
    def my_parker(cls) -> Any:
        return cls.run.my_parker()


# How often an actor is stopped where it could go on; each more takes a hundred times the runs.
PREEMPTIONS = {"barrier_of_three_for_two": 0, "barrier_with_a_reset": 0}


def explore(scenario: Callable[[Any], Any]) -> int:
    def begin(run: Any) -> Any:
        World.run = run
        return scenario(run)

    files = QUEUES if scenario.__name__.startswith("queue") else LOCKS
    runs: int = explorer.explore(begin, files, PREEMPTIONS.get(scenario.__name__, 1))
    return runs


def keeps_what_it_was_given(_self: Any, _waiter: Any) -> None:
    pass


def holds(scenario: Callable[[Any], Any]) -> None:
    """Check a scenario in every short interleaving."""
    runs = explore(scenario)
    print(f"{runs} runs")  # noqa: T201  (a figure for the report)
    assert runs > 20


def fails(scenario: Callable[[Any], Any]) -> None:
    """Check that one of the interleavings shows the bug that the test has planted."""
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        explore(scenario)
