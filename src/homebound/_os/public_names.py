"""The public names of a package: some are loaded at their first use, and all say that they are its.

A class in a private module says in its repr, in `help`, in a pickle and in a TypeError where it is
imported from, and so do the private bases from which it has its methods. On Python 3.13 and later
the class then has no line number, and inspect.getsource(class) fails instead of finding another
file's lines; that of a method, and of a function, is found.
"""

from __future__ import annotations

from importlib import import_module
from sys import modules
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


def loaded_later(namespace: dict[str, Any], places: Mapping[str, str]) -> Callable[[str], object]:
    """Return a package's `__getattr__`, which loads a name from its module, of those in `places`.

    Called from: the package, when it is imported.
    """
    package = namespace["__name__"]

    def load(name: str) -> object:
        module = places.get(name)
        if module is None:
            message = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(message, name=name, obj=modules[package])  # for suggestions
        value = namespace[name] = getattr(import_module(f".{module}", package), name)
        publish(namespace, [name])
        return value

    return load


def listed(namespace: dict[str, Any]) -> Callable[[], list[str]]:
    """Return a package's `__dir__`: its names, packages that were imported, and Python's own.

    Called from: the package, when it is imported.
    """

    def names() -> list[str]:
        packages = {name for name, value in namespace.items() if isinstance(value, ModuleType)}
        shown = {name for name in packages if not name.startswith("_")}
        python = {name for name in namespace if name.startswith("__")}
        return sorted({*namespace["__all__"]} | shown | python)

    return names


def publish(namespace: dict[str, Any], names: Iterable[str] | None = None) -> None:
    """Make what a package's namespace has of `names` (default: all that is public) say it is its.

    Called from: the package, when it is imported.
    """
    package = namespace["__name__"]
    if names is None:
        names = [name for name in namespace if not name.startswith("_")]
    classes = []
    for value in [namespace[name] for name in names if name in namespace]:
        if isinstance(value, type) and _is_private(value):
            classes.append(value)
        elif isinstance(value, FunctionType) and _is_private(value):
            value.__module__ = package
    owners: dict[type, list[str]] = {}
    for public in classes:
        for base in public.__mro__:
            if _is_private(base):
                owners.setdefault(base, []).append(public.__qualname__)
    for base, its in owners.items():
        _show(base, package, base.__qualname__ if base in classes else _name_for(its))


def _is_private(value: Any) -> bool:
    return value.__module__.startswith("homebound.") and "._" in value.__module__


def _name_for(owners: list[str]) -> str | None:
    """Return the class that methods of a private base are said to be of: Queue, for LifoQueue too.

    None if its public classes are of several kinds.
    """
    shortest = min(owners, key=len)
    return shortest if all(owner.endswith(shortest) for owner in owners) else None


def _show(cls: type, package: str, name: str | None) -> None:
    """Have a class and its methods say that they are the package's; methods, of class `name`.

    Methods that classes of several kinds have say no class: acquire(), of Lock and Semaphore.
    """
    cls.__module__ = package
    for each in vars(cls).values():
        if isinstance(each, type) and _is_private(each):
            each.__module__ = package  # help shows it, as a part of this one
        function = getattr(each, "__func__", each)  # of a class method
        if not isinstance(function, FunctionType) or not _is_private(function):
            continue
        function.__module__ = package
        method = function.__name__
        if function.__qualname__ != f"{cls.__name__}.{method}":
            continue
        if name is not None:
            function.__qualname__ = f"{name}.{method}"
        elif not method.startswith("_"):
            function.__qualname__ = method
