"""The bell of a sleeping home.

A context's `_bell` is AWAKE, or CLOSED, or a list of one element made for the sleep that goes on
(mailbox.py puts it up).
`list.pop` gives it to one of many producers; a slow one that still holds the bell of an earlier
sleep finds it empty or rings it to no harm. Nobody but the home, or who stands in for it under the
big lock, writes `_bell`, so a closed context stays closed however late a producer is.
"""

from __future__ import annotations

from typing import Any

AWAKE: Any = None  # a producer has nothing to do: the falsy value whose test costs least
CLOSED: Any = ("closed",)
