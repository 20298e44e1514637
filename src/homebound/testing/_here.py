"""The context of the running test, for assertions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.context import whereabouts
from .._core.current import current_context
from .._errors import ContextError

if TYPE_CHECKING:
    from .._core.context import AioContext


def here() -> AioContext:
    """`current_context()`, where there must be one. Raises ContextError if there is none.

    >>> import homebound
    >>> from homebound.testing import here
    >>> async def main():
    ...     return here().name
    >>> homebound.run(main())
    'main'

    Called from: any thread.
    """
    context = current_context()
    if context is None:
        message = f"here() in {whereabouts()}: call it in a task, or under the big lock"
        raise ContextError(message)
    return context
