"""Synchronous faces of asynchronous functions, iterators, context managers and classes."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from .._core.coroutines import shown
from .sessions import ContextManagerFace, IteratorFace

if TYPE_CHECKING:
    from collections.abc import Callable

    from .background import Background


def face_of(background: Background, target: Any) -> Any:
    """Return the synchronous face of `target`. Called from: any thread."""
    if isinstance(target, type):
        return _class_face(background, target)
    face = _value_face(background, target)
    if face is not target:
        return face
    if not callable(target):
        hint = ""
        if inspect.isawaitable(target):
            hint = "; Background.block_on waits for one, Background.spawn runs it"
            if inspect.iscoroutine(target):
                target.close()  # it is not awaited
        message = (
            "Background.sync takes an async function, class, iterator or context manager, got "
            f"{shown(target)}{hint}"
        )
        raise TypeError(message)
    return _function_face(background, target)


def _value_face(background: Background, value: Any) -> Any:
    """Return the face of an iterator or context manager, else the value itself."""
    kind = type(value)
    if hasattr(kind, "__aenter__") and hasattr(kind, "__aexit__"):
        return ContextManagerFace(background, value)
    if hasattr(kind, "__anext__") or hasattr(kind, "__aiter__"):
        return IteratorFace(background, value)
    return value


def _function_face(background: Background, function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(function):
        # Made in the caller's thread, as it runs nothing: so wrong arguments are refused at once.
        def face(*args: Any, **kwargs: Any) -> Any:
            return IteratorFace(background, function(*args, **kwargs))
    else:

        def face(*args: Any, **kwargs: Any) -> Any:
            value, awaited = background.block_on(_result_of(function, args, kwargs))
            return value if awaited else _value_face(background, value)

    functools.update_wrapper(face, function)
    return face


async def _result_of(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, bool]:
    """Call it, and return what it returns; or, if that can be awaited, its result and True."""
    result = function(*args, **kwargs)
    return (await result, True) if inspect.isawaitable(result) else (result, False)


class _Face:
    """The base of classes that are a synchronous face; `_wrapped` is the object behind it."""

    _background: Background
    _class: type[Any] = object

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Made at home: objects as aiohttp's sessions want a running loop.
        self._wrapped: Any = self._background.block_on(_make(self._class, args, kwargs))

    def __getattr__(self, name: str) -> Any:
        if name == "_wrapped":  # it could not be made
            raise AttributeError(name)
        value = getattr(self._wrapped, name)
        return _function_face(self._background, value) if inspect.isroutine(value) else value

    def __repr__(self) -> str:
        return f"<synchronous {self._wrapped!r}>"


async def _make(cls: type[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return cls(*args, **kwargs)


def _class_face(background: Background, cls: type[Any]) -> type[Any]:
    namespace: dict[str, Any] = {
        name: _method_face(member)
        for name, member in inspect.getmembers_static(cls, inspect.isfunction)
        if not name.startswith("_")
    }
    if hasattr(cls, "__aenter__") and hasattr(cls, "__aexit__"):
        namespace.update(__enter__=_enter, __exit__=_exit)
    if hasattr(cls, "__aiter__"):
        namespace["__iter__"] = _iter
    namespace.update(
        _background=background,
        _class=cls,
        __doc__=cls.__doc__,
        __module__=cls.__module__,
        __qualname__=cls.__qualname__,
    )
    try:
        namespace["__signature__"] = inspect.signature(cls)
    except ValueError:
        pass  # a class in C without one
    return type(cls.__name__, (_Face,), namespace)


def _method_face(method: Callable[..., Any]) -> Callable[..., Any]:
    def face(self: _Face, *args: Any, **kwargs: Any) -> Any:
        bound = getattr(self._wrapped, method.__name__)
        result = _function_face(self._background, bound)(*args, **kwargs)
        return self if result is self._wrapped else result

    functools.update_wrapper(face, method)
    return face


def _enter(self: Any) -> Any:
    self._entered = ContextManagerFace(self._background, self._wrapped)
    value = self._entered.__enter__()
    return self if value is self._wrapped else value


def _exit(self: Any, *error: Any) -> bool | None:
    entered: ContextManagerFace[Any] = self._entered
    return entered.__exit__(*error)


def _iter(self: Any) -> IteratorFace[Any, Any]:
    return IteratorFace(self._background, self._wrapped)
