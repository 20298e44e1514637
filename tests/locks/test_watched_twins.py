"""The watched twins of the locks' methods: the same calls, and one for each that needs one."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

import pytest

import homebound
from homebound import Lock, RWLock, Semaphore
from homebound._sync.holders import begin, end, twins
from homebound._sync.rw_lock import Side
from homebound._sync.tokens import TokenQueue
from homebound._sync.wait_queue import WaitQueue

PAIRS = [(owner, name, *pair) for owner, pairs in twins.items() for name, pair in pairs.items()]
IDS = [f"{owner.__name__}.{name}" for owner, name, _, _ in PAIRS]

# What says whether a lock is held. A method that changes it acquires or releases the lock.
STATE = {TokenQueue: "_stock", Lock: "_free", RWLock: "_owners"}
# Methods that change it and need no twin, with the reason.
WITHOUT_TWIN = {
    (Lock, "__init__"): "a new lock has no holder",
    (RWLock, "__init__"): "a new lock has no holder",
    (Lock, "_give_back"): "a record of a free lock is not read",
    (Lock, "_watched_take"): "it is a twin",
    (RWLock, "downgrade"): "the same holder goes on",
    (RWLock, "_upgrade_now"): "the same holder goes on",
}
ENTER, EXIT = ("__aenter__", "__enter__"), ("__aexit__", "__exit__")


def changes(function: Any, field: str) -> bool:
    """True if the function assigns `self.<field>` or calls a method of it that changes it."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))

    def is_it(node: ast.AST) -> bool:
        return isinstance(node, ast.Attribute) and node.attr == field

    for node in ast.walk(tree):
        if is_it(node) and isinstance(node.ctx, ast.Store):  # type: ignore[attr-defined]
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            method = node.func
            if is_it(method.value) and method.attr in ("append", "extend", "pop"):
                return True
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Del) and is_it(node.value):
            return True
    return False


def functions(owner: type) -> dict[str, Any]:
    """The class's own methods by the names they are called by; twins and aliases left out."""
    own = {name: each for name, each in vars(owner).items() if inspect.isfunction(each)}
    return {name: each for name, each in own.items() if each.__name__ == name}


@pytest.mark.parametrize(("owner", "name", "plain", "twin"), PAIRS, ids=IDS)
def test_a_twin_is_called_as_its_plain_method(owner: type, name: str, plain: Any, twin: Any):
    assert inspect.signature(twin) == inspect.signature(plain)
    assert inspect.iscoroutinefunction(twin) == inspect.iscoroutinefunction(plain)
    assert plain.__qualname__ == f"{owner.__qualname__}.{name}"
    assert twin.__code__.co_filename == plain.__code__.co_filename
    following = [each for each in functions(owner).values() if each.__code__ is not plain.__code__]
    lines = [each.__code__.co_firstlineno for each in following if each is not twin]
    first, second = plain.__code__.co_firstlineno, twin.__code__.co_firstlineno
    assert not [line for line in lines if first < line < second]  # right behind it


@pytest.mark.parametrize("owner", STATE, ids=lambda each: each.__name__)
def test_each_method_that_acquires_or_releases_has_a_twin(owner: type):
    changing = {name for name, each in functions(owner).items() if changes(each, STATE[owner])}
    excepted = {name for each, name in WITHOUT_TWIN if each is owner}
    twinned = set(twins[owner])
    assert changing - twinned - excepted == set()
    assert excepted <= changing  # no exception that is not needed
    assert changing  # it has looked for the right field


def test_each_way_into_a_with_block_has_a_twin():
    assert set(ENTER) <= set(twins[TokenQueue])
    assert set(ENTER) <= set(twins[Side])
    assert set(EXIT) <= set(twins[Semaphore])  # of the others, `release` has one
    assert "release" in twins[Lock]
    assert "release" in twins[RWLock]
    for owner in (Lock, Semaphore, homebound.BoundedSemaphore):
        own = set(ENTER) & set(vars(owner))  # else TokenQueue's
        assert own <= set(twins.get(owner, ()))
    for owner in (Lock, homebound.BoundedSemaphore):
        assert not set(EXIT) & set(vars(owner))


def test_the_twins_are_in_place_only_while_a_watch_is_on():
    def in_place() -> list[Any]:
        return [vars(owner)[name] for owner, name, _, _ in PAIRS]

    plain = [each for _, _, each, _ in PAIRS]
    assert WaitQueue in twins
    assert in_place() == plain
    begin()
    try:
        begin()
        assert in_place() == [each for _, _, _, each in PAIRS]
        end()
        assert in_place() == [each for _, _, _, each in PAIRS]
    finally:
        end()
    assert in_place() == plain
