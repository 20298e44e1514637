"""Exports as the handshake describes them, and the table of all of them. No disk in here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import ExportNameError
from .wire import MAX_PAYLOAD, MAX_STRING, TransmissionFlag

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# "Size constraints": the sizes that hold unless the server sends others.
DEFAULT_BLOCK_SIZES = (1, 4096, MAX_PAYLOAD)


def check_string(text: str, what: str) -> None:
    """Raise ExportNameError unless `text` can be an NBD string ("Conventions")."""
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise ExportNameError(f"{what} {text!r} is not valid Unicode: {error}") from error
    if "\0" in text:
        raise ExportNameError(f"{what} {text!r} holds a NUL character, which NBD forbids")
    if len(encoded) > MAX_STRING:
        raise ExportNameError(
            f"{what} {text[:20]!r}... takes {len(encoded)} bytes; NBD allows {MAX_STRING}"
        )


def decode_name(raw: bytes) -> str | None:
    """Return the name of an export; None if NBD does not allow it."""
    if len(raw) > MAX_STRING or 0 in raw:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


@dataclass(frozen=True, slots=True)
class ExportInfo:
    """One export in the handshake: sizes in bytes, flags as in "Transmission flags"."""

    name: str
    size: int
    flags: TransmissionFlag
    description: str = ""
    # minimum, preferred, largest payload
    block_sizes: tuple[int, int, int] = DEFAULT_BLOCK_SIZES

    def __post_init__(self) -> None:
        check_string(self.name, "export name")
        check_string(self.description, "export description")
        minimum, preferred, payload = self.block_sizes
        # The rules of "Size constraints", so that no disk makes the server advertise invalid sizes.
        if not (
            _is_power_of_two(minimum)
            and minimum <= 1 << 16
            and _is_power_of_two(preferred)
            and preferred >= max(512, minimum)
            and payload >= preferred
        ):
            raise ValueError(f"block sizes {self.block_sizes} break the protocol's rules")


def _is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


class ExportTable:
    """The exports by name. The empty name means `default`, if there is one.

    Read by the handshakes of all threads, so it never changes.
    """

    __slots__ = ("_by_name", "_default")

    def __init__(self, exports: Iterable[ExportInfo], default: str | None = None) -> None:
        by_name: dict[str, ExportInfo] = {}
        for info in exports:
            if info.name in by_name:
                raise ExportNameError(f"two exports are named {info.name!r}")
            by_name[info.name] = info
        if default is not None and default not in by_name:
            raise ExportNameError(
                f"the default export {default!r} is not among {', '.join(map(repr, by_name))}"
            )
        self._by_name = by_name
        self._default = default

    def wanted(self, option: int, data: bytes) -> None:
        """Return None: nothing has to be looked up (see `Lookups`).

        Called from: any thread.
        """

    def find(self, name: str) -> ExportInfo | None:
        """Return the export of that name, or None.

        Called from: any thread.
        """
        info = self._by_name.get(name)
        if info is None and not name and self._default is not None:
            info = self._by_name[self._default]
        return info

    def __iter__(self) -> Iterator[ExportInfo]:
        return iter(self._by_name.values())
