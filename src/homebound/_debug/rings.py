"""Rings among those who wait: the part that knows nothing of what they are.

Whoever waits needs others: all of them, or one of several. Somebody is *stuck* if one of those he
needs all of is stuck, or if all of those he needs one of are. Who needs nobody, or nobody that is
known, is not. So what is left when all who can get on have been taken away is stuck for good.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Node = Any  # anything hashable


@dataclass(frozen=True, slots=True)
class Way:
    """`how` a node needs another. The objects in `proof` are there for as long as it does."""

    how: str
    node: Node
    proof: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Needs:
    """What a node cannot do without: all of it, or any."""

    ways: tuple[Way, ...] = ()
    any: bool = False


Ring = tuple[tuple[Node, Way], ...]  # each with its way to the next; the last one's to the first
NOTHING = Needs()


def stuck(needs: Mapping[Node, Needs]) -> dict[Node, Needs]:
    """Those who can never go on, with their needs; of all of them those that are stuck."""
    left = dict(needs)
    before = -1
    while before != len(left):
        before = len(left)
        for node, need in reversed(tuple(left.items())):
            quantifier = all if need.any else any
            if not need.ways or not quantifier(way.node in left for way in need.ways):
                del left[node]
    return {
        node: Needs(tuple(way for way in need.ways if way.node in left), need.any)
        for node, need in left.items()
    }


def rings(left: Mapping[Node, Needs]) -> list[Ring]:
    """Of what `stuck` left: the shortest ring through each one that is on any, each ring once.

    Those that are one because one of several would be enough for all of them count as one.
    """
    found: list[Ring] = []
    covered: set[Node] = set()
    for node in left:
        if node not in covered:
            ring = _shortest(node, left)
            if ring and not any(each in covered and left[each].any for each, _ in ring):
                found.append(ring)
            covered.update(each for each, _ in ring)
    return found


def _shortest(start: Node, left: Mapping[Node, Needs]) -> Ring:
    """Breadth first, until it comes back; () if it does not."""
    came: dict[Node, tuple[Node, Way]] = {}
    ahead = deque([start])
    while ahead:
        node = ahead.popleft()
        for way in left[node].ways:
            if way.node == start:
                came[start] = (node, way)
                return tuple(reversed(tuple(_back(start, came))))
            if way.node not in came:
                came[way.node] = (node, way)
                ahead.append(way.node)
    return ()


def _back(start: Node, came: Mapping[Node, tuple[Node, Way]]) -> Iterator[tuple[Node, Way]]:
    node = start
    while True:
        before, way = came[node]
        yield before, way
        node = before
        if node == start:
            return


def proof(ring: Ring, left: Mapping[Node, Needs]) -> tuple[object, ...]:
    """The objects that are there for as long as all of the ring's waits go on.

    Where one of several would have been enough, those of the others too.
    """
    objects: list[object] = []
    seen: set[Node] = set()
    ahead: deque[tuple[Node, tuple[Way, ...]]] = deque((node, (way,)) for node, way in ring)
    while ahead:
        node, ways = ahead.popleft()
        if node in seen:
            continue
        seen.add(node)
        need = left[node]
        for way in need.ways if need.any else ways:
            objects += way.proof
            ahead.append((way.node, left[way.node].ways))
    return tuple(objects)
