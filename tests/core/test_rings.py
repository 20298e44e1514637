"""The part of the deadlock search that knows nothing of tasks: who is stuck, and in what rings."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from homebound._debug.rings import Needs, Way, proof, rings, stuck


def graph(_any: str = "", **needs: str) -> dict[Any, Needs]:
    """`a="bc"`: a needs b and c; one of them, if a is in `_any`. Others need nobody."""
    nodes = set(needs) | set("".join(needs.values()))
    return {
        node: Needs(
            tuple(Way("", each, (node + each,)) for each in needs.get(node, "")), node in _any
        )
        for node in sorted(nodes)
    }


def found(needs: dict[Any, Needs]) -> list[str]:
    return ["".join(sorted(node for node, _ in ring)) for ring in rings(stuck(needs))]


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        (graph(a="b", b="c"), []),
        (graph(a="a"), ["a"]),
        (graph(a="b", b="a"), ["ab"]),
        (graph(a="b", b="a", c="d", d="c"), ["ab", "cd"]),
        (graph(x="a", a="b", b="c", c="a"), ["abc"]),  # x is stuck, and in no ring
        (graph(a="bc", b="a"), ["ab"]),  # one that it cannot get is enough
        (graph("a", a="bc", b="a"), []),  # c will come
        (graph("a", a="bc", b="a", c="a"), ["ab"]),  # one ring for the two
        (graph("a", a="bc", b="d", d="b", c="a"), ["ac", "bd"]),
    ],
)
def test_rings(needs: dict[Any, Needs], expected: list[str]):
    assert found(needs) == expected


def test_all_small_graphs_of_one_need_each():
    """Who needs one each: the rings are those of following it."""
    for ways in product("abcd-", repeat=4):
        needs = graph(**{node: way for node, way in zip("abcd", ways, strict=True) if way != "-"})
        expected = set()
        for start in "abcd":
            at, path = start, ""
            while at not in path and ways["abcd".index(at)] != "-":
                path += at
                at = ways["abcd".index(at)]
            if at in path:
                expected.add("".join(sorted(path[path.index(at) :])))
        assert sorted(found(needs)) == sorted(expected)


def test_the_proof_covers_those_who_would_have_been_enough():
    needs = graph("a", a="bc", b="a", c="a")
    left = stuck(needs)
    [ring] = rings(left)
    assert set(proof(ring, left)) == {"ab", "ac", "ba", "ca"}
