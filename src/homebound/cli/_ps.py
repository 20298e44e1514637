"""Texts of a snapshot: a table of tasks, a tree of them, a table of homes with rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Snapshot = dict[str, Any]

_RATES = ("iterations", "entered", "wakeups")


def tasks(seen: Snapshot) -> Iterator[str]:
    """Return a line for each task, and for each waiting thread, under a line of titles."""
    rows = [("TASK", "HOME", "COROUTINE", "DOES")]
    rows += [
        (task["name"], task["home"], task["coroutine"], task["does"]) for task in seen["tasks"]
    ]
    rows += [(each["name"], "", "(thread)", each["does"]) for each in seen["threads"]]
    yield from _columns(rows)
    yield from _news(seen)


def tree(seen: Snapshot) -> Iterator[str]:
    """Return the tasks of each home; below each the tasks that it awaits.

    A task that several await stands below each of them, its own part below the first.
    """
    by_id = {task["id"]: task for task in seen["tasks"]}
    awaited = {each for task in seen["tasks"] for each in task["awaits"]}
    shown: set[int] = set()
    for home in seen["homes"]:
        yield _title(home)
        mine = [task for task in seen["tasks"] if task["home"] == home["name"]]
        roots = [task for task in mine if task["id"] not in awaited]
        yield from _branches(roots, by_id, shown, "")
    for left in seen["tasks"]:  # tasks that await each other: no root leads to them
        if left["id"] not in shown:
            yield "cycle"
            yield from _branches([left], by_id, shown, "")
    yield from _news(seen)


def homes(seen: Snapshot, before: Snapshot | None = None) -> Iterator[str]:
    """Return a line for each home, with rates a second since the snapshot before."""
    rows = [("HOME", "THREAD", "STATE", "TASKS", "READY", "ITER/S", "ENTERED/S", "WAKEUPS/S")]
    earlier = {} if before is None else {home["name"]: home for home in before["homes"]}
    seconds = 0.0 if before is None else seen["time"] - before["time"]
    for home in seen["homes"]:
        rates = _rates(home, earlier.get(home["name"]), seconds)
        name = f"{home['name']} (main)" if home["main"] else home["name"]
        numbers = (str(home["tasks"]), str(home["ready"]), *rates)
        rows.append((name, home["thread"] or "-", home["state"], *numbers))
    lock = seen["big_lock"]
    holder = f"held by {lock['holder']}" if lock["holder"] else "free"
    waiting = f", waiting: {', '.join(lock['waiters'])}" if lock["waiters"] else ""
    yield f"process {seen['pid']}, Python {seen['python']}; big lock {holder}{waiting}"
    yield from _columns(rows)
    yield from _news(seen)


def _rates(home: Snapshot, before: Snapshot | None, seconds: float) -> tuple[str, ...]:
    if before is None or seconds <= 0:
        return ("-",) * len(_RATES)
    return tuple(f"{(home[what] - before[what]) / seconds:.0f}" for what in _RATES)


def _title(home: Snapshot) -> str:
    main = " (main)" if home["main"] else ""
    return f"{home['name']}{main}, thread {home['thread'] or 'none'}, {home['state']}"


def _branches(
    nodes: list[Snapshot], by_id: dict[int, Snapshot], shown: set[int], indent: str
) -> Iterator[str]:
    for node in nodes:
        is_last = node is nodes[-1]
        away = "" if not indent else f" [{node['home']}]"
        yield f"{indent}{'└─ ' if is_last else '├─ '}{node['name']}{away}: {node['does']}"
        if node["id"] not in shown:
            shown.add(node["id"])
            below = [by_id[each] for each in node["awaits"] if each in by_id]
            yield from _branches(below, by_id, shown, indent + ("   " if is_last else "│  "))


def _news(seen: Snapshot) -> Iterator[str]:
    for deadlock in seen["deadlocks"]:
        yield ""
        yield from deadlock.splitlines()


def _columns(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Return the rows as lines, each column as wide as its widest text."""
    texts = [tuple(str(cell) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()
