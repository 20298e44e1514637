"""The test kit for pytest: `pytest_plugins = ["homebound.testing.pytest_plugin"]` in a conftest.py.

It is loaded only on request, there or with `-p homebound.testing.pytest_plugin`. It leaves a test
alone that uses none of its fixtures or markers, unless `homebound_no_leaks = true` is set.
"""

from __future__ import annotations

import gc
import inspect
import itertools
import os
import random
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from .._aio.futures import has_gil
from .._threads.io_thread import IOThread
from .._threads.run import run
from ._leaks import no_leaks as _no_leaks
from ._places import Threads
from ._stress import Stress
from ._time.clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__: list[str] = []  # pytest finds what is here; nothing is to be imported

_STRESS_ASKED_FOR = "HOMEBOUND_STRESS_SECONDS" in os.environ
_STRESS_SECONDS = float(os.environ.get("HOMEBOUND_STRESS_SECONDS", "0.3"))
_SEED = int(os.environ.get("HOMEBOUND_SEED") or random.SystemRandom().getrandbits(32))
_TESTS_BETWEEN_FREEZES = 16
_TESTS_BETWEEN_THAWS = 16 * _TESTS_BETWEEN_FREEZES

_races = pytest.StashKey[list[str]]()  # a line for each race that was run


def pytest_addoption(parser: pytest.Parser) -> None:
    """Return the setting."""
    parser.addini(
        "homebound_no_leaks", "every test fails that leaves something behind", type="bool"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and silence a warning that is wrong here.

    Hypothesis looks for what refers to its generator of random numbers, and warns if it finds
    nothing; the collector does not show it what `_steady_process` has frozen.
    """
    config.addinivalue_line(
        "filterwarnings", "ignore:It looks like `register_random` was passed:Warning"
    )
    for line in (
        "homebound(debug=None): an `async def` test, run by homebound.run in the main context",
        "no_leaks: fails if it leaves threads, descriptors, tasks, contexts or the big lock behind",
    ):
        config.addinivalue_line("markers", line)


def pytest_report_header() -> str:
    """Return the header line that says how to repeat the random choices."""
    return (
        f"HOMEBOUND_SEED={_SEED} HOMEBOUND_STRESS_SECONDS={_STRESS_SECONDS} "
        f"GIL={'on' if has_gil() else 'off'}"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what each race counted, if races of a certain length were asked for."""
    races = terminalreporter.config.stash.get(_races, [])
    if _STRESS_ASKED_FOR and races:
        terminalreporter.section("homebound stress")
        for line in races:
            terminalreporter.line(line)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def` test that is marked `homebound`."""
    marker = pyfuncitem.get_closest_marker("homebound")
    if marker is None or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}), **marker.kwargs)
    return True


@pytest.fixture(scope="session")
def _test_numbers() -> Iterator[int]:
    return itertools.count()


@pytest.fixture
def _steady_process(_test_numbers: Iterator[int]) -> None:
    """Make the collection after each test look at the objects of a few tests only.

    Every test leaves objects for good (its reports, what it has imported): after two thousand
    tests, looking at them all takes longer than most tests do. What is frozen is never freed as
    garbage, so now and then it is thawed and looked at as a whole.
    """
    number = next(_test_numbers)
    if number % _TESTS_BETWEEN_THAWS == 0:
        gc.unfreeze()
        gc.collect()
    if number % _TESTS_BETWEEN_FREEZES == 0:
        gc.freeze()


@pytest.fixture
def no_leaks(_steady_process: None) -> Iterator[None]:
    """Fail the test if it leaves threads, descriptors, tasks, contexts or the big lock behind.

    It fails, too, if an exception was raised where it cannot be caught: in a thread, a finaliser.
    """
    with _no_leaks():
        yield


@pytest.fixture(autouse=True)
def _no_leaks_if_asked(request: pytest.FixtureRequest) -> None:
    """Made first, so ended last: after all that the test's other fixtures end."""
    if request.config.getini("homebound_no_leaks") or request.node.get_closest_marker("no_leaks"):
        request.getfixturevalue("no_leaks")


@pytest.fixture
def iothread() -> Iterator[Callable[..., IOThread]]:
    """`iothread(name, **options)` starts an IOThread, which is stopped after the test."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(IOThread(*args, **options))


@pytest.fixture
def io(iothread: Callable[..., IOThread]) -> IOThread:
    """Yield a running IOThread."""
    return iothread("io")


@pytest.fixture
def threads() -> Iterator[Threads]:
    """`threads.start(fn, *args)`: plain threads, joined after the test; one that hangs fails it."""
    with Threads() as threads:
        yield threads


@pytest.fixture
def virtual_clock() -> Iterator[VirtualClock]:
    """Put a virtual clock in force during the test. See `homebound.testing.virtual_clock`."""
    with VirtualClock() as clock:
        yield clock


@pytest.fixture
def stress(request: pytest.FixtureRequest) -> Iterator[Stress]:
    """Return a race of HOMEBOUND_STRESS_SECONDS (default 0.3); HOMEBOUND_SEED repeats one.

    What it has counted is in the report of a failed test, and at the end of a run that was told
    HOMEBOUND_STRESS_SECONDS.
    """
    print(f"HOMEBOUND_SEED={_SEED}")  # noqa: T201 - what a failed test printed is in its report
    with Stress(seconds=_STRESS_SECONDS, seed=_SEED) as stress:
        yield stress
    counts = sorted(stress.counts.items())
    counted = ", ".join(f"{count} {what}" for what, count in counts) or "nothing counted"
    print(counted)  # noqa: T201
    line = f"{request.node.nodeid}: seed {_SEED}, {_STRESS_SECONDS} s: {counted}"
    request.config.stash.setdefault(_races, []).append(line)
