"""The parts of a conformance suite: named cases, and one call that runs them all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from ..._threads.block_on import block_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from ..._core.task import Task

STEPS = 6  # more iterations than it takes any wait to begin and end
MANY = 50  # so many that what has not happened by then was lost


class _Pair(NamedTuple):
    name: str
    check: Callable[[Callable[..., Any]], None]


class Case(_Pair):
    """A requirement on an implementation: a pair of its name and `check(factory)`.

    `check` raises AssertionError if the object that the factory makes fails it; calling the case
    does the same. pytest shows the names of the cases that parametrize a test.

    >>> import homebound
    >>> from homebound.testing import lock_cases
    >>> case = lock_cases()[0]
    >>> case.name
    'excludes'
    >>> case(homebound.Lock)

    Called from: any thread.
    """

    __slots__ = ()

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self, factory: Callable[..., Any]) -> None:
        self.check(factory)


def title(fn: Callable[..., object]) -> str:
    """Return the name of a case: its function's."""
    return fn.__name__.replace("_", " ").strip()


def check_all(
    suite: str, cases: Iterable[Case], factory: Callable[..., Any], skip: Iterable[str]
) -> None:
    """Run the cases. Raises AssertionError for one that fails, an ExceptionGroup for more."""
    if not callable(factory):
        message = (
            f"{suite} takes a function that makes one, as its class is: each case needs a new one; "
            f"got {factory!r}"
        )
        raise TypeError(message)
    cases = list(cases)
    unknown = set(skip) - {case.name for case in cases}
    if unknown:
        raise ValueError(f"{suite}: there are no cases {sorted(unknown)} to skip")
    failures: dict[str, Exception] = {}
    for case in cases:
        if case.name in skip:
            continue
        try:
            case(factory)
        except Exception as error:  # noqa: BLE001  (whatever a broken one raises)
            failure = AssertionError(f"{suite}: {case.name!r} fails: {error!r}")
            failure.__cause__ = error
            failures[case.name] = failure
    if len(failures) == 1:
        raise next(iter(failures.values()))
    if failures:
        names = ", ".join(map(repr, failures))
        text = f"{suite}: {len(failures)} cases fail: {names}"
        raise ExceptionGroup(text, list(failures.values()))


async def turn() -> None:
    """Let everything happen in this loop that can."""
    for _ in range(2 * STEPS):
        await asyncio.sleep(0)


async def outcome(task: asyncio.Task[Any]) -> Any:
    """Its result, or "cancelled". In iterations, not seconds: what does not end is lost."""
    for _ in range(MANY):
        if task.done():
            return "cancelled" if task.cancelled() else task.result()
        await asyncio.sleep(0)
    task.cancel()
    await turn()
    raise AssertionError(f"{task.get_name()} waits for ever")


async def all_of(*tasks: asyncio.Task[Any]) -> list[Any]:
    """Return the outcome of each."""
    return [await outcome(task) for task in tasks]


def wait_for(tasks: list[Task[Any]], there: list[Future[Any]], patience: float) -> None:
    """Wait until tasks in I/O threads, and calls in other places, have ended."""
    for task in tasks:
        block_on(task, timeout=patience)
    for future in there:
        future.result(patience)


def raises(
    expected: type[BaseException] | tuple[type[BaseException], ...], fn: Any, what: str
) -> None:
    """Assert that calling `fn` raises `expected`."""
    try:
        fn()
    except expected:
        return
    raise AssertionError(what)
