"""The state of a copy in a file, from which a later run goes on, after `kill -9` too."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import DiskError
from .._new_file import sync_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

_VERSION = 1
_LARGEST = 1 << 20  # bytes of a state file


class StateError(DiskError):
    """A state file that cannot be read or written, or belongs to another copy."""


@dataclass(frozen=True)
class CopyState:
    """The two ends of a copy, and its progress: everything before `done` is on stable storage.

    `source` and `target` identify the ends: a copy goes on only with the same ones.
    """

    source: Mapping[str, Any]
    target: Mapping[str, Any]
    bitmap: str | None = None
    done: int = 0


def load_state(path: str) -> CopyState | None:
    """Return the state in the file, None if there is no file. Blocks. Raises StateError."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(_LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failure("read", path, error) from error
    state = _parse(text)
    if state is None:
        words = f"{path!r} is not the state of a copy, or is damaged; remove it to begin anew"
        raise StateError(errno.EINVAL, words)
    return state


def _parse(text: bytes) -> CopyState | None:
    try:
        fields = json.loads(text)
        checksum = fields.pop("checksum")
        if checksum != _checksum(fields) or fields.pop("version") != _VERSION:
            return None
        return CopyState(**fields)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def save_state(path: str, state: CopyState) -> None:
    """Replace the file, atomically and on stable storage. Blocks. Raises StateError."""
    fields = {"version": _VERSION, **asdict(state)}
    text = json.dumps({**fields, "checksum": _checksum(fields)}, indent=1) + "\n"
    place = Path(path)
    draft = place.with_name(f".{place.name}.new")
    try:
        with draft.open("w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(place)
        sync_directory(place.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise _failure("write", path, error) from error


def remove_state(path: str) -> None:
    """Remove the file, if there is one. Blocks. Raises StateError."""
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise _failure("remove", path, error) from error


def check_same(path: str, found: CopyState, wanted: CopyState) -> None:
    """Raise StateError, which says what differs, unless both states are of the same copy."""
    for name in ("source", "target"):
        old, new = getattr(found, name), getattr(wanted, name)
        changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        if changed:
            key = changed[0]
            words = f"its {name} has another {key} ({old.get(key)!r} then, {new.get(key)!r} now)"
            raise _other_copy(path, words)
    if found.bitmap != wanted.bitmap:
        raise _other_copy(path, f"its bitmap is {found.bitmap!r}, not {wanted.bitmap!r}")


def _other_copy(path: str, words: str) -> StateError:
    return StateError(
        errno.EINVAL, f"{path!r} is the state of another copy: {words}; remove it to begin anew"
    )


def _checksum(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _failure(action: str, path: str, error: OSError) -> StateError:
    number = error.errno or errno.EIO
    return StateError(number, f"cannot {action} the state file {path!r}: {error.strerror or error}")
