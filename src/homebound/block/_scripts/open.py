"""Open a script as a disk, or as an nbdkit plugin that opens disks."""

from __future__ import annotations

import inspect
import logging
from functools import partial
from typing import TYPE_CHECKING

from .._disk import Disk
from .disk import disk_of
from .errors import ScriptError, failure_in, wrong
from .functions import Functions
from .load import is_plugin, load_script
from .nbdkit_module import Session
from .plugin import Plugin
from .plugin_disk import PluginDisk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any

    Parameters = Sequence[tuple[str, str]]

logger = logging.getLogger("homebound.block")


def open_script(path: str, parameters: Parameters = (), *, read_only: bool) -> Disk | Plugin:
    """Run a script: return its disk, or the plugin, which is configured. Blocks.

    Raises ScriptError, or OSError if the script cannot be read.
    """
    module = load_script(path)
    if is_plugin(module):
        plugin = Plugin(path, module, read_only=read_only)
        plugin.start(parameters)
        return plugin
    owner = _owner(path, module, parameters)
    if isinstance(owner, Disk):
        owner.read_only = owner.read_only or read_only
        return owner
    return disk_of(Functions(path, owner), read_only=read_only)


def open_script_disk(path: str, *, read_only: bool) -> Disk:
    """Open a script that needs no parameters, a plugin too, as one disk. Blocks."""
    opened = open_script(path, read_only=read_only)
    if isinstance(opened, Disk):
        return opened
    disk = PluginDisk(opened, Session(opened.default_export(Session())))
    disk.owns(partial(_stop, opened))
    return disk


def _stop(plugin: Plugin) -> None:
    try:
        plugin.stop()
    except ScriptError as error:
        logger.warning("%s", error)


def _owner(path: str, module: ModuleType, parameters: Parameters) -> Any:
    """Return the object whose functions are the disk's: the module, or an instance of its class."""
    named = dict(parameters)
    if len(named) < len(parameters):
        twice = next(key for key, _ in parameters if [k for k, _ in parameters].count(key) > 1)
        raise wrong(path, None, f"the parameter {twice} is given twice")
    disk = _class_in(path, module)
    if disk is not None:
        return _call(path, disk, getattr(disk, "__init__", None), disk.__name__, named)
    configure = getattr(module, "configure", None)
    if callable(configure):
        _call(path, configure, configure, "configure", named)
    elif named:
        given = " ".join(f"{key}={value}" for key, value in named.items())
        text = f"{given} has no use: the script defines no configure(**parameters)"
        raise wrong(path, None, text)
    return module


def _class_in(path: str, module: ModuleType) -> type | None:
    """Return the class that the script defines a disk by: `Disk`, or the only one that reads."""
    own = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == module.__name__
    ]
    if any(callable(getattr(module, name, None)) for name in ("read", "pread", "read_into")):
        return None
    readers = [
        each for each in own if any(hasattr(each, name) for name in ("read", "pread", "read_into"))
    ]
    named = [each for each in readers if each.__name__ == "Disk"]
    if len(named or readers) > 1:
        names = ", ".join(each.__name__ for each in readers)
        raise wrong(path, None, f"one class can be the disk, not {names}; name one of them Disk")
    return next(iter(named or readers), None)


def _call(path: str, function: Any, place: Any, name: str, parameters: dict[str, str]) -> Any:
    try:
        inspect.signature(function).bind(**parameters)
    except TypeError as error:
        raise wrong(path, place, f"{name}: {error}") from None
    except ValueError:
        pass  # it does not tell what it takes
    try:
        return function(**parameters)
    except (Exception, SystemExit) as error:
        raise failure_in(path, error) from error
