"""The exports that the options name, opened."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from ..block import OverlayDisk, ScriptError
from ..block._names import MEMORY, OVERLAY
from ..block._scripts.open import open_script
from ..block._scripts.plugin import Plugin
from ._announce import NamedDisk, NamedSource
from ._directory import Directory
from ._disks import AUTO, check_image, is_image, label_of
from ._found import FoundExports, PluginExports
from ._stdio import tell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import ExitStack

    from ..block import Disk
    from ..nbd import Exports, NBDDisk
    from ._announce import Announced
    from ._disks import Opener


def split_export(text: str) -> tuple[str, str]:
    """Return the name and the disk of `NAME=SPEC`. Raises ValueError.

    >>> from homebound.cli._exports import split_export
    >>> split_export("root=/images/root=1.img")
    ('root', '/images/root=1.img')
    """
    name, _, spec = text.partition("=")
    if not spec:
        raise ValueError(
            f"{text!r} is not an export; write NAME=IMAGE, NAME=URI or NAME={MEMORY}SIZE"
        )
    return name, check_image(spec)


@dataclass(frozen=True)
class Choice:
    """The options that choose what is served."""

    named: Sequence[tuple[str, str]] = ()  # name and SPEC
    directory: str | None = None
    script: str | None = None
    parameters: Sequence[tuple[str, str]] = ()  # of the script
    name: str = ""  # of its export
    overlay: str | None = None
    overlay_per_client: bool = False

    def check(self, *, read_only: bool, image_format: str, lock: bool) -> None:
        """Raise UsageError for options that contradict each other, or have no use."""
        if image_format != AUTO:
            self._check_for_images(f"--format {image_format}")
        if not lock:
            self._check_for_images("--no-lock")
        if self.overlay is not None:
            single = len(self.named) + (self.script is not None) == 1 and self.directory is None
            if not single or self.overlay_per_client:
                text = "--overlay is for one image; --overlay-per-client is for any number"
                raise click.UsageError(text)
        if self.overlay_per_client and read_only:
            raise click.UsageError("--overlay-per-client keeps writes, which --read-only rejects")

    def _check_for_images(self, option: str) -> None:
        specs = [spec for _, spec in self.named]
        for spec in specs:
            if spec.startswith(OVERLAY):
                raise click.UsageError(
                    f"{option} is for images; the file of {spec!r} has a format of its own, and is "
                    "always locked, as two writers would destroy it"
                )
        if self.directory is None and not any(map(is_image, specs)):
            raise click.UsageError(f"{option} is for images, and none is served")

    @property
    def has_overlay(self) -> bool:
        """True if the images are only read, and writes go to an overlay."""
        return self.overlay is not None or self.overlay_per_client


@dataclass(frozen=True)
class Opened:
    """The exports that are served, for NBDServer and for the announcement."""

    exports: Mapping[str, Disk] | Exports
    shown: Sequence[Announced]
    remotes: Sequence[NBDDisk] = ()  # those of the disks whose sockets want a home
    find_timeout: float | None = 10.0


def open_exports(choice: Choice, opener: Opener, disks: ExitStack, *, round_size: int) -> Opened:
    """Open what is open as long as the server; the stack `disks` closes it.

    Raises DiskError, UsageError, and OSError if a directory or a script cannot be read.
    """
    fixed = [
        NamedDisk(name, label_of(spec), disks.enter_context(opener.open(spec)))
        for name, spec in choice.named
    ]
    plugin = None
    if choice.script is not None:
        opened = _run(choice.script, choice.parameters, opener)
        if isinstance(opened, Plugin):
            disks.callback(_clean_up, opened)
            plugin = PluginExports(opened, _stop)
        else:
            disk = disks.enter_context(opened)
            fixed.insert(0, NamedDisk(choice.name, choice.script, disk))
    if choice.overlay is not None:
        fixed = [_overlaid(fixed, choice.overlay, opener, disks)]
    overlaid = choice.overlay_per_client
    fixed = [replace(export, round_size=round_size, overlaid=overlaid) for export in fixed]
    _check_names(fixed)
    directory = None if choice.directory is None else Directory(choice.directory, opener)
    by_name = {export.name: export.disk for export in fixed}
    shown: list[Announced] = [*fixed]
    if directory is not None:
        shown.append(NamedSource("", f"the images in {directory.path}", by_name=True))
    if plugin is not None:
        shown.append(NamedSource("", plugin.plugin.path))
    if directory is None and plugin is None and not overlaid:
        return Opened(by_name, shown, opener.remotes)
    exports = FoundExports(by_name, directory, plugin, overlay=overlaid)
    # A plugin may make a client wait until another one has gone.
    return Opened(exports, shown, opener.remotes, None if plugin is not None else 10.0)


def _run(path: str, parameters: Sequence[tuple[str, str]], opener: Opener) -> Disk | Plugin:
    try:
        return open_script(path, parameters, read_only=opener.read_only)
    except OSError as error:
        error.filename = error.filename or path
        raise


def _overlaid(fixed: Sequence[NamedDisk], path: str, opener: Opener, disks: ExitStack) -> NamedDisk:
    if len(fixed) != 1:
        raise click.UsageError("--overlay is for one image; a plugin has --overlay-per-client")
    (base,) = fixed
    disk = disks.enter_context(OverlayDisk(base.disk, path, read_only=opener.overlay_read_only))
    return NamedDisk(base.name, f"{label_of(path)} over {base.label}", disk)


def _check_names(fixed: Sequence[NamedDisk]) -> None:
    names = [export.name for export in fixed]
    for name in names:
        if names.count(name) > 1:
            raise click.UsageError(f"two exports are named {name!r}")


def _clean_up(plugin: Plugin) -> None:
    try:
        plugin.stop()
    except ScriptError as error:
        tell(f"homebound: {error}")


def _stop() -> None:
    """Stop the server, as by a signal from outside."""
    os.kill(os.getpid(), signal.SIGTERM)
