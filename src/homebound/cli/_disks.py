"""The disks that the command line names. Those of rarer kinds are loaded when one is opened."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

from .._threads.run import run
from ..block import FileDisk, ImageError, ImageLocked
from ..block._names import MEMORY, OVERLAY, SCRIPT, is_path, is_uri, parse_size
from ..block._open import open_prefixed
from ..block._probe import QCOW2, RAW, begins_as_overlay, probe
from ..nbd import ConnectError
from ._remote import Link, check_uri

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..block import Disk
    from ..nbd import NBDDisk

AUTO = "auto"


def _read_qcow2(path: str, *, read_only: bool, lock: bool, asked: bool) -> Disk:
    """Open a qcow2 image, which is read-only whatever was asked.

    It may name a backing file only if the user has said that it is qcow2: a guest that could write
    a header into a raw image would else have any file served.
    """
    from ..block import Qcow2Disk  # noqa: PLC0415  (see above)

    del read_only
    return Qcow2Disk(path, backing=asked, lock=lock)


def _read_raw(path: str, *, read_only: bool, lock: bool, asked: bool) -> Disk:
    del asked
    return FileDisk(path, read_only=read_only, lock=lock)


# What opens the images of each format. `asked`: the user has named the format.
_READERS: dict[str, Callable[..., Disk]] = {RAW: _read_raw, QCOW2: _read_qcow2}
FORMATS = (AUTO, *_READERS)
_URL = re.compile(r"(nbds?(?:\+\w+)?(?=:)|[a-z][a-z0-9+.-]+(?=://))", re.IGNORECASE)
_ONCE = Link()
_LONGEST_OPENING = 3.0  # seconds after the signal; nothing is served yet


def check_spec(spec: str) -> str:
    """Return `spec` unchanged. Raises ValueError if it cannot name a disk."""
    if not spec:
        raise ValueError("it is empty")
    if spec.startswith(MEMORY):
        parse_size(spec.removeprefix(MEMORY))
    scheme = _URL.match(spec)
    if scheme is not None:
        raise ValueError(f"{spec!r} {_advice(scheme[0].lower(), spec)}")
    return spec


def check_image(spec: str) -> str:
    """Return `spec` unchanged. Raises ValueError if it cannot name a disk to serve."""
    if spec == "-":
        raise ValueError("'-' is a stream, not an image; store it first: homebound copy - IMAGE")
    return check_uri(spec) if is_uri(spec) else check_spec(spec)


def is_script(spec: str) -> bool:
    """Return whether `spec` is the path of a Python script."""
    return spec.endswith(SCRIPT) and not is_uri(spec)


def is_image(spec: str) -> bool:
    """Return whether `spec` is the path of an image, whose format may be named.

    >>> from homebound.cli._disks import is_image
    >>> is_image("disk.img"), is_image("disk.py"), is_image("memory:1G")
    (True, False, False)
    """
    return is_path(spec) and not is_script(spec)


def _advice(scheme: str, spec: str) -> str:
    """Return why a URL is no image, and what to do."""
    if scheme == "file":
        return "is a URL; write the path alone"
    if scheme in {"http", "https", "ftp"}:
        return (
            f"is a URL, not a disk; fetch it first (curl -O {spec}), or read it in place "
            "through a script whose disk is a homebound.block.FsspecDisk"
        )
    return f"is a URL, and {scheme}:// is no scheme of disks; they are paths and NBD URIs"


class Opener:
    """Opens disks as the options say."""

    def __init__(
        self,
        image_format: str,
        *,
        read_only: bool,
        lock: bool,
        overlay: bool = False,
        link: Link = _ONCE,
    ) -> None:
        self._format = image_format
        # Below an overlay, disks are only read; the overlay itself is as the option says.
        self.read_only = read_only or overlay
        self.overlay_read_only = read_only
        self._lock = lock
        self._link = link
        self.remotes: list[NBDDisk] = []  # those that were opened
        self._opening = ""  # read by another thread

    def open(self, spec: str) -> Disk:
        """Open the disk that a checked `spec` names, as `open_disk` does, but as the options say.

        Raises DiskError.
        """
        self._opening = spec
        if is_uri(spec):
            return self._connect(spec)
        if not is_path(spec):
            return open_prefixed(spec, read_only=self.read_only)
        if is_script(spec):
            from ..block._scripts.open import open_script_disk  # noqa: PLC0415  (see above)

            return open_script_disk(spec, read_only=self.read_only)
        name = _format_of(spec) if self._format == AUTO else self._format
        if name not in _READERS:
            raise _not_read(spec, name)
        try:
            asked = self._format != AUTO
            return _READERS[name](spec, read_only=self.read_only, lock=self._lock, asked=asked)
        except ImageLocked as error:
            advice = "--no-lock opens it anyway"
            if name == RAW:
                advice = f"--read-only shares it, {advice}"
            raise ImageLocked(error.errno, f"{error}; {advice}") from error

    def _connect(self, uri: str) -> Disk:
        """Connect to another server, in a loop that ends then; the next one serves the sockets."""
        if self._format not in (AUTO, RAW):
            text = f"{uri!r} is an NBD server's disk, whose bytes are served as they are"
            raise ImageError(errno.EINVAL, f"{text}; --format {self._format} is for images")
        try:
            disk = run(self._link.connect(uri, read_only=self.read_only))
        except ConnectError as error:
            if error.errno != errno.ETIMEDOUT:
                raise
            advice = "if it serves an export of this server, each waits for the other"
            raise ConnectError(error.errno, f"{error}; {advice}") from error
        self.remotes.append(disk)
        return disk

    def overdue(self, seconds: float) -> str | None:
        """Return why the program has not ended `seconds` after a signal, while it opens disks."""
        late = seconds > _LONGEST_OPENING
        return f"opening {self._opening!r} has not ended" if late else None


def _format_of(path: str) -> str:
    try:
        found, is_overlay = probe(path), begins_as_overlay(path)
    except OSError:
        return RAW  # opening it raises an error that says what is wrong
    if is_overlay:
        text = f"it is an overlay; open it as {OVERLAY}{path}, or serve its bytes: --format raw"
        raise ImageError(errno.EINVAL, f"cannot open image {path!r}: {text}")
    return found


def _not_read(path: str, name: str) -> ImageError:
    """Make the error for an unsupported format; served raw, the first write would destroy it."""
    return ImageError(
        errno.EINVAL,
        f"cannot open image {path!r}: it is a {name} image, which is not supported; convert it "
        "(qemu-img convert -O raw), or serve its bytes as they are: --format raw",
    )


def label_of(spec: str) -> str:
    """Return the name for messages: `spec`, or its repr if it is not printable."""
    if spec.startswith(MEMORY):
        return "memory"
    return spec if spec.isprintable() else repr(spec)
