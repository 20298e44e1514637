"""libnbd's exception, and how others become one."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .._client.errors import number_of
from .._protocol.errors import NBDError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Error(Exception):
    """The failure of a call; `string` is the text, `errnum` a number, or 0, `errno` its name.

    >>> from homebound.nbd.libnbd import Error
    >>> error = Error("nbd_pread: no such luck", 5)
    >>> error.errno, str(error)
    ('EIO', 'nbd_pread: no such luck (EIO)')

    Called from: any thread.
    """

    def __init__(self, string: str, errnum: int = 0) -> None:
        super().__init__(string, errnum)

    @property
    def string(self) -> str:
        """The text.

        Called from: any thread.
        """
        return str(self.args[0])

    @property
    def errnum(self) -> int:
        """The number of the error, 0 if there is none.

        Called from: any thread.
        """
        return int(self.args[1])

    @property
    def errno(self) -> str | None:
        """The name of the number, such as "EIO"; None if it has none.

        Called from: any thread.
        """
        return errno.errorcode.get(self.errnum)

    def __str__(self) -> str:
        return f"{self.string} ({self.errno})" if self.errno else self.string


class ClosedHandle(ValueError):  # noqa: N818  (libnbd's name)
    """A use of a handle after its `close`.

    >>> from homebound.nbd.libnbd import ClosedHandle
    >>> issubclass(ClosedHandle, ValueError)
    True

    Called from: any thread.
    """


def failure(call: str, text: str, number: int) -> Error:
    """Return the error of a call."""
    return Error(f"nbd_{call}: {text}: {os.strerror(number)}", number)


@contextmanager
def told_as(call: str) -> Iterator[None]:
    """Raise the failures of sockets and of the protocol as those of a call."""
    try:
        yield
    except Error:
        raise
    except (OSError, NBDError) as error:
        number = number_of(error)
        text = getattr(error, "strerror", None) or str(error)
        raise Error(f"nbd_{call}: {text}", number) from error
