"""A file that fsspec finds by its URL. All of it blocks, and may be called in several threads."""

from __future__ import annotations

import asyncio
import errno
import importlib
import re
from typing import TYPE_CHECKING, Any

from .._errors import DiskError, ImageError

if TYPE_CHECKING:
    from collections.abc import Mapping

# What file systems say of a file that differs between its versions.
_MARKS = (
    "ETag",
    "etag",
    "Content-MD5",
    "Digest",
    "md5",
    "checksum",
    "content_hash",
    "generation",
    "VersionId",
    "version_id",
    "mtime",
    "LastModified",
    "Last-Modified",
    "last_modified",
    "updated",
    "modified",
    "ino",
)
_MADE = ("created", "timeCreated", "creation_time")  # where there is none of those
_HTTP = ("http://", "https://")
_USER = re.compile(r"//[^/@]*@")
_GONE = {404, 410}
_NONE = "there is no such file"
_FINAL = {403, 404, 405, 410, 416, 451}  # what a server says for good
_BAD_USE = (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError, ValueError)


class Changed(DiskError):  # noqa: N818  (says what has happened, as DiskClosed does)
    """The file is another by now."""


class Remote:
    """The file at `url`, of the size and version that it had first."""

    def __init__(self, url: str, options: Mapping[str, Any], timeout: float) -> None:
        self.name: str = without_secrets(url)
        self._timeout = timeout
        self._sessions: list[Any] = []  # of aiohttp; made in fsspec's loop
        if url.startswith(_HTTP):
            options = {"get_client": self._make_session} | dict(options)
        self._sync, self._fs, self._path = _find(url, options, self.name)
        try:
            self.size, self._version = self._look()
            self._file = self._open()
        except BaseException as error:
            self.close()
            if isinstance(error, Exception):
                raise self._refusal(error) from error
            raise

    async def _make_session(self, **options: Any) -> Any:
        """Make what has the connections, as fsspec does, to be closed with the disk."""
        http = importlib.import_module("fsspec.implementations.http")
        session = await http.get_client(**options)
        self._sessions.append(session)
        return session

    def _refusal(self, error: Exception) -> ImageError:
        """Return the error for a file that cannot be opened."""
        if isinstance(error, ImageError):
            return error
        number = getattr(error, "errno", None) or errno.EIO
        if in_words(error) == _NONE:
            number = errno.ENOENT
        return ImageError(number, f"cannot open {self.name!r}: {in_words(error)}")

    def _look(self) -> tuple[int, dict[str, Any]]:
        """Return its size, and what tells its version."""
        self._fs.invalidate_cache(self._path)
        info = self._call("info", self._path)
        size = info.get("size")
        if info.get("type") == "directory":
            text = f"cannot open {self.name!r}: it is a directory"
            raise ImageError(errno.EISDIR, text)
        if not isinstance(size, int) or size <= 0:
            text = "it is empty" if size == 0 else "its server does not tell its size"
            raise ImageError(errno.EINVAL, f"cannot open {self.name!r}: {text}")
        marks = [mark for mark in _MARKS if info.get(mark) is not None] or _MADE
        return size, {"size": size} | {mark: info.get(mark) for mark in marks}

    def _open(self) -> Any:
        """Return what fetches ranges over HTTP, and finds out if a server ignores them.

        Other file systems do that by themselves: None.
        """
        protocols = self._fs.protocol
        if "http" not in ((protocols,) if isinstance(protocols, str) else protocols):
            return None
        options = {"block_size": 1 << 20, "cache_type": "none", "size": self.size}
        file = self._fs.open(self._path, "rb", **options)
        return file if hasattr(file, "async_fetch_range") else None

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes of a range. Raises Changed if the file is another, or what fsspec does.

        The version is looked at afterwards: then all that was read before is of that version.
        """
        if self._file is not None:
            fetch = self._file.async_fetch_range
            data = self._sync(self._fs.loop, fetch, start, stop, timeout=self._timeout)
        else:
            data = self._call("cat_file", self._path, start=start, end=stop)
        self.check()
        if len(data) != stop - start:
            text = f"{len(data)} bytes came for {stop - start} at {start}"
            raise OSError(errno.EIO, text)
        return bytes(data)

    def check(self) -> None:
        """Raise Changed unless the file is what it was."""
        try:
            _, version = self._look()
        except ImageError as error:
            raise Changed(errno.ESTALE, f"{self.name!r} has changed since: {error}") from error
        if version != self._version:
            old, new = self._version, version
            parts = [f"{key} was {old.get(key)}, is {new.get(key)}" for key in {**old, **new}]
            text = ", ".join(part for part in parts if _differs(part, old, new))
            raise Changed(errno.ESTALE, f"{self.name!r} has changed since it was opened: {text}")

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        """Call a method of the file system, with a limit of time where it is asynchronous."""
        if getattr(self._fs, "async_impl", False):
            method = getattr(self._fs, f"_{name}")
            return self._sync(self._fs.loop, method, *args, timeout=self._timeout, **options)
        return getattr(self._fs, name)(*args, **options)

    def close(self) -> None:
        """End the connections, or leave that to the file system. Never waits."""
        for session in self._sessions:
            coro = session.close()
            try:
                asyncio.run_coroutine_threadsafe(coro, self._fs.loop)
            except RuntimeError:  # at the end of the program, say
                coro.close()


def _differs(part: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    key = part.partition(" was ")[0]
    return bool(old.get(key) != new.get(key))


def _find(url: str, options: Mapping[str, Any], name: str) -> tuple[Any, Any, str]:
    """Return fsspec's way to wait for its loop, the file system, and the path in it."""
    try:
        fsspec = importlib.import_module("fsspec")
        sync = importlib.import_module("fsspec.asyn").sync
    except ImportError as error:
        text = f"cannot open {name!r}: fsspec is not installed (pip install homebound[fsspec])"
        raise ImageError(errno.ENOTSUP, text) from error
    # An instance of its own, and without old listings: others' caches stay as they are.
    own = {"skip_instance_cache": True, "use_listings_cache": False}
    try:
        file_system, path = fsspec.url_to_fs(url, **(own | dict(options)))
    except (ImportError, ValueError, TypeError) as error:
        text = f"cannot open {name!r}: {in_words(error)}"
        raise ImageError(errno.EINVAL, text) from error
    return sync, file_system, path


def _reason(error: BaseException) -> BaseException:
    """Return the error itself: a look over HTTP turns every one into FileNotFoundError."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or cause is None:
        return error
    of_http = type(cause).__module__.startswith("aiohttp")
    return cause if of_http or isinstance(cause, TimeoutError) else error


def is_final(error: BaseException) -> bool:
    """Return whether trying again would be of no use."""
    reason = _reason(error)
    status = getattr(reason, "status", None)
    if isinstance(status, int):
        return status in _FINAL
    return isinstance(reason, (*_BAD_USE, ImageError, Changed))


def in_words(error: BaseException) -> str:
    """Return what an error says, in a line and without what a URL may hide."""
    reason = _reason(error)
    status, message = getattr(reason, "status", None), getattr(reason, "message", None)
    if isinstance(reason, FileNotFoundError) or status in _GONE:
        return _NONE
    if isinstance(status, int):
        return f"the server answered {status} {message or ''}".rstrip()
    text = getattr(reason, "strerror", None) or str(reason)
    kind = type(reason).__name__
    return without_secrets(" ".join(text.split())) if text else kind


def without_secrets(url: str) -> str:
    """Return a URL without passwords, and without the query that may be a signature."""
    return _USER.sub("//", url).partition("?")[0]
