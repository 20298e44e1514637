"""The names of the cases that fail in a conformance suite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def failed_cases(check: Callable[..., None], factory: Any, **options: Any) -> set[str]:
    """Return the names in the suite's error."""
    errors: list[BaseException] = []
    text = ""
    try:
        check(factory, **options)
    except (AssertionError, ExceptionGroup) as error:
        errors = list(getattr(error, "exceptions", [error]))
        text = str(error)
    assert all(type(error) is AssertionError for error in errors)
    assert all(repr(name_of(error)) in text for error in errors), text
    return {name_of(error) for error in errors}


def name_of(error: BaseException) -> str:
    return str(error).split("'")[1]
