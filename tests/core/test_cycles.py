"""The part of the deadlock search that knows nothing of tasks: stuck nodes and their cycles."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from homebound._debug.cycles import Edge, Needs, cycles, proof, stuck


def graph(_any: str = "", **needs: str) -> dict[Any, Needs]:
    """A graph: with `a="bc"`, a needs b and c, or one of them if a is in `_any`."""
    nodes = set(needs) | set("".join(needs.values()))
    return {
        node: Needs(
            tuple(Edge("", each, (node + each,)) for each in needs.get(node, "")), node in _any
        )
        for node in sorted(nodes)
    }


def found(needs: dict[Any, Needs]) -> list[str]:
    return ["".join(sorted(node for node, _ in cycle)) for cycle in cycles(stuck(needs))]


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        (graph(a="b", b="c"), []),
        (graph(a="a"), ["a"]),
        (graph(a="b", b="a"), ["ab"]),
        (graph(a="b", b="a", c="d", d="c"), ["ab", "cd"]),
        (graph(x="a", a="b", b="c", c="a"), ["abc"]),  # x is stuck, and in no cycle
        (graph(a="bc", b="a"), ["ab"]),  # one that it cannot get is enough
        (graph("a", a="bc", b="a"), []),  # c will come
        (graph("a", a="bc", b="a", c="a"), ["ab"]),  # one cycle for the two
        (graph("a", a="bc", b="d", d="b", c="a"), ["ac", "bd"]),
    ],
)
def test_cycles(needs: dict[Any, Needs], expected: list[str]):
    assert found(needs) == expected


def test_all_small_graphs_of_one_need_each():
    """Where each node needs one other, following that finds the cycles."""
    for edges in product("abcd-", repeat=4):
        needs = graph(
            **{node: edge for node, edge in zip("abcd", edges, strict=True) if edge != "-"}
        )
        expected = set()
        for start in "abcd":
            at, path = start, ""
            while at not in path and edges["abcd".index(at)] != "-":
                path += at
                at = edges["abcd".index(at)]
            if at in path:
                expected.add("".join(sorted(path[path.index(at) :])))
        assert sorted(found(needs)) == sorted(expected)


def test_the_proof_covers_the_nodes_that_would_have_been_enough():
    needs = graph("a", a="bc", b="a", c="a")
    left = stuck(needs)
    [cycle] = cycles(left)
    assert set(proof(cycle, left)) == {"ab", "ac", "ba", "ca"}
