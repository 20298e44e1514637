"""Arguments that are a number of things."""

from __future__ import annotations

from operator import index


def check_count(what: str, value: int, least: int) -> None:
    """Raise TypeError unless `value` is an integer, ValueError if it is below `least`.

    Called from: any thread.
    """
    try:
        index(value)
    except TypeError:
        shown = repr(value) if isinstance(value, (str, float)) else f"a {type(value).__name__}"
        message = f"{what} is {shown}; it must be a whole number"
        raise TypeError(message) from None
    if value < least:
        message = f"{what} is {value}; it must be at least {least}"
        raise ValueError(message)


def check_limit(what: str, value: object) -> None:
    """Raise TypeError for a limit that is no number, ValueError for NaN.

    Called from: any thread.
    """
    if not isinstance(value, (int, float)):
        message = f"{what} is {value!r}; it must be a number"
        raise TypeError(message)
    if value != value:  # noqa: PLR0124  (math.isnan takes no large integers)
        message = f"{what} is NaN; it must be a number"
        raise ValueError(message)
