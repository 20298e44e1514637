"""nbdkit plugins in Python that the tests extend, and disks of them."""

from __future__ import annotations

from typing import Any

from homebound.block._scripts.nbdkit_module import Session
from homebound.block._scripts.open import open_script
from homebound.block._scripts.plugin import Plugin
from homebound.block._scripts.plugin_disk import PluginDisk

RAM = """
    import nbdkit

    API_VERSION = 2
    data = bytearray(100_001)
    calls = []

    def open(readonly):
        return {"readonly": readonly}

    def get_size(h):
        return len(data)

    def pread(h, buf, offset, flags):
        assert flags == 0
        buf[:] = data[offset:offset + len(buf)]

    def pwrite(h, buf, offset, flags):
        calls.append(("pwrite", len(buf), flags))
        data[offset:offset + len(buf)] = buf
"""


OLD = """
    data = bytearray(100_001)
    calls = []

    def open(readonly):
        return 1

    def get_size(h):
        return len(data)

    def pread(h, count, offset):
        return data[offset:offset + count] + b"more than was asked for"

    def pwrite(h, buf, offset):
        data[offset:offset + len(buf)] = buf

    def flush(h):
        calls.append("flush")

    def trim(h, count, offset):
        calls.append(("trim", count, offset))

    def zero(h, count, offset, may_trim):
        calls.append(("zero", count, offset, may_trim))
        data[offset:offset + count] = bytes(count)
"""


FULL = (
    RAM
    + """
    def flush(h, flags):
        calls.append(("flush", flags))

    def trim(h, count, offset, flags):
        calls.append(("trim", count, offset, flags))

    def zero(h, count, offset, flags):
        calls.append(("zero", count, offset, flags))
        data[offset:offset + count] = bytes(count)

    def cache(h, count, offset, flags):
        calls.append(("cache", count, offset, flags))

    def close(h):
        calls.append("close")
"""
)


def started(path: str, *parameters: tuple[str, str], read_only: bool = False) -> Plugin:
    plugin = open_script(path, parameters, read_only=read_only)
    assert isinstance(plugin, Plugin)
    return plugin


def connected(path: str, session: Session | None = None, **options: Any) -> tuple[PluginDisk, Any]:
    """Return the disk of a connection, and the calls that the plugin has recorded."""
    plugin = started(path, **options)
    return PluginDisk(plugin, session or Session()), getattr(plugin.module, "calls", None)
