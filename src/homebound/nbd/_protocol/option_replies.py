"""The data of the replies to a client's options: parsed, and checked before it is believed."""

from __future__ import annotations

from .errors import RemoteProtocolError
from .wire import COUNT, ID, INFO_BLOCK_SIZE, INFO_EXPORT, LENGTH, MAX_STRING, Info

MAX_REPLY = 4 + 2 * MAX_STRING  # bytes: an export's name and description are the most
MAX_ERROR_TEXT = MAX_STRING
_LARGEST_MINIMUM = 64 << 10  # "Size constraints"


def parse_text(data: bytes) -> str:
    """Return an error's text, whatever bytes it has."""
    text = data.decode(errors="replace")
    return "".join(each if each.isprintable() else " " for each in text).strip()


def parse_export(data: bytes) -> tuple[str, str]:
    """Return the name and the description in a reply of type SERVER."""
    if len(data) < LENGTH.size:
        raise RemoteProtocolError(f"an entry of the list of exports has {len(data)} bytes")
    (length,) = LENGTH.unpack_from(data)
    start = LENGTH.size
    if start + length > len(data):
        raise RemoteProtocolError(f"an export's name of {length} bytes is beyond its reply")
    return _name(data[start : start + length], "name"), parse_text(data[start + length :])


def parse_context(data: bytes) -> tuple[int, str]:
    """Return the id and the name in a reply of type META_CONTEXT."""
    if len(data) <= ID.size:
        raise RemoteProtocolError(f"a metadata context has {len(data)} bytes")
    (number,) = ID.unpack_from(data)
    return number, _name(data[ID.size :], "metadata context")


def parse_info(data: bytes) -> dict[str, object]:
    """Return the fields that a reply of type INFO has of a RemoteExport; of others, none."""
    if len(data) < COUNT.size:
        raise RemoteProtocolError(f"an information reply has {len(data)} bytes")
    (kind,) = COUNT.unpack_from(data)
    if kind == Info.EXPORT:
        _check_length(data, INFO_EXPORT.size, "INFO_EXPORT")
        _, size, flags = INFO_EXPORT.unpack(data)
        return {"size": size, "flags": flags}
    if kind == Info.BLOCK_SIZE:
        _check_length(data, INFO_BLOCK_SIZE.size, "INFO_BLOCK_SIZE")
        _, *sizes = INFO_BLOCK_SIZE.unpack(data)
        return {"block_sizes": _block_sizes(*sizes)}
    if kind == Info.NAME:
        return {"canonical_name": _name(data[COUNT.size :], "name")}
    if kind == Info.DESCRIPTION:
        return {"description": parse_text(data[COUNT.size :])}
    return {}


def _block_sizes(minimum: int, preferred: int, largest: int) -> tuple[int, int, int]:
    right = (
        all(each > 0 and not each & (each - 1) for each in (minimum, preferred))
        and minimum <= _LARGEST_MINIMUM
        and minimum <= preferred <= largest
    )
    if not right:
        text = f"the server gives invalid block sizes: {minimum}, {preferred}, {largest}"
        raise RemoteProtocolError(text)
    return minimum, preferred, largest


def _check_length(data: bytes, size: int, what: str) -> None:
    if len(data) != size:
        raise RemoteProtocolError(f"{what} has {len(data)} bytes, not {size}")


def _name(data: bytes, what: str) -> str:
    if len(data) > MAX_STRING:
        raise RemoteProtocolError(f"a {what} has {len(data)} bytes, {MAX_STRING} are allowed")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(f"a {what} is no UTF-8: {data[:40]!r}") from error
