"""Cycles in a wait-for graph, without any knowledge of what its nodes are.

A node that waits needs others: all of them, or one of several. It is *stuck* if one of the nodes
that it needs all of is stuck, or if each of those that it needs one of is. A node that needs no
other, or only unknown ones, is not stuck. So the nodes that are left when all that can go on have
been removed are stuck forever.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Node = Any  # anything hashable


@dataclass(frozen=True, slots=True)
class Edge:
    """One node's need of another, and `how`. The objects in `proof` live for as long as it does."""

    how: str
    node: Node
    proof: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Needs:
    """All that a node needs in order to go on: every edge, or any one of them."""

    edges: tuple[Edge, ...] = ()
    any: bool = False


Cycle = tuple[tuple[Node, Edge], ...]  # each node with its edge to the next; the last to the first
NOTHING = Needs()


def stuck(needs: Mapping[Node, Needs]) -> dict[Node, Needs]:
    """Return the nodes that can never go on, with the needs of each that are stuck themselves."""
    left = dict(needs)
    before = -1
    while before != len(left):
        before = len(left)
        for node, need in reversed(tuple(left.items())):
            quantifier = all if need.any else any
            if not need.edges or not quantifier(edge.node in left for edge in need.edges):
                del left[node]
    return {
        node: Needs(tuple(edge for edge in need.edges if edge.node in left), need.any)
        for node, need in left.items()
    }


def cycles(left: Mapping[Node, Needs]) -> list[Cycle]:
    """Return the shortest cycle through each node of `left` that is on one, each cycle once.

    `left` is a result of `stuck`. Cycles that share a node for which one of several would be enough
    count as one.
    """
    found: list[Cycle] = []
    covered: set[Node] = set()
    for node in left:
        if node not in covered:
            cycle = _shortest(node, left)
            if cycle and not any(each in covered and left[each].any for each, _ in cycle):
                found.append(cycle)
            covered.update(each for each, _ in cycle)
    return found


def _shortest(start: Node, left: Mapping[Node, Needs]) -> Cycle:
    """Return the shortest way from `start` back to it, breadth first; () if there is none."""
    came: dict[Node, tuple[Node, Edge]] = {}
    ahead = deque([start])
    while ahead:
        node = ahead.popleft()
        for edge in left[node].edges:
            if edge.node == start:
                came[start] = (node, edge)
                return tuple(reversed(tuple(_back(start, came))))
            if edge.node not in came:
                came[edge.node] = (node, edge)
                ahead.append(edge.node)
    return ()


def _back(start: Node, came: Mapping[Node, tuple[Node, Edge]]) -> Iterator[tuple[Node, Edge]]:
    node = start
    while True:
        before, edge = came[node]
        yield before, edge
        node = before
        if node == start:
            return


def proof(cycle: Cycle, left: Mapping[Node, Needs]) -> tuple[object, ...]:
    """Return the objects that live for as long as all waits of the cycle go on.

    Where one of several would have been enough, the objects of all of them.
    """
    objects: list[object] = []
    seen: set[Node] = set()
    ahead: deque[tuple[Node, tuple[Edge, ...]]] = deque((node, (edge,)) for node, edge in cycle)
    while ahead:
        node, edges = ahead.popleft()
        if node in seen:
            continue
        seen.add(node)
        need = left[node]
        for edge in need.edges if need.any else edges:
            objects += edge.proof
            ahead.append((edge.node, left[edge.node].edges))
    return tuple(objects)
