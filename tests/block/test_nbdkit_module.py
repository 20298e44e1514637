"""The module `nbdkit` that plugins import, and the exports that a plugin lists."""

from __future__ import annotations

import errno
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from homebound.block import ScriptError
from homebound.block._scripts.nbdkit_module import Session

from .nbdkit_plugins import RAM, connected, started
from .scripts import do


class TestModule:
    def test_in_a_connection(self, script: Any):
        gone: list[bool] = []
        client = SimpleNamespace(
            address=("192.0.2.7", 1234),
            process=11,
            user=12,
            group=13,
            tls=True,
            tls_subject="CN=x",
            disconnect=lambda *, force: gone.append(force),
        )
        stopped: list[int] = []
        session = Session("the name", client, lambda: stopped.append(1))
        path = script(
            RAM
            + """
    def open(readonly):
        nbdkit.debug("opened")
        nbdkit.nanosleep(0, 1)
        return (
            nbdkit.export_name(), nbdkit.peer_name(), nbdkit.peer_pid(), nbdkit.peer_uid(),
            nbdkit.peer_gid(), nbdkit.is_tls(), nbdkit.peer_tls_dn(), nbdkit.stdio_safe(),
        )
    def flush(h, flags):
        nbdkit.disconnect(True)
        nbdkit.disconnect(False)
        nbdkit.shutdown()
    """
        )
        disk, _ = connected(path, session)
        with disk:
            assert disk._handle.handle == (
                *("the name", ("192.0.2.7", 1234), 11, 12, 13),
                *(True, "CN=x", False),
            )
            do(disk.flush)
        assert (gone, stopped) == ([True, False], [1])

    def test_outside_of_one(self, script: Any):
        started(script(RAM))
        nbdkit: Any = sys.modules["nbdkit"]
        for function in ("export_name", "peer_name", "is_tls", "peer_pid"):
            with pytest.raises(RuntimeError, match=rf"nbdkit\.{function} failed"):
                getattr(nbdkit, function)()
        with pytest.raises(RuntimeError, match="no server to stop"):
            nbdkit.shutdown()
        with pytest.raises(TypeError):
            nbdkit.set_error("EIO")

    def test_parse_size(self, script: Any):
        started(script(RAM))
        parse: Any = sys.modules["nbdkit"].parse_size
        assert [parse(text) for text in ("511", "7k", "17M", "1G", "3s", "2b")] == [
            *(511, 7 << 10, 17 << 20, 1 << 30, 1536, 2)
        ]
        for text in ("foo", "", "-1", "1.5M"):
            with pytest.raises(ValueError, match="parse"):
                parse(text)
        with pytest.raises(TypeError):
            parse(17)

    def test_set_error(self, script: Any):
        """It says what the exception stands for, and holds for one call."""
        path = script(
            RAM
            + """
    import errno
    def pread(h, buf, offset, flags):
        if offset == 0:
            nbdkit.set_error(errno.ENOSPC)
        raise RuntimeError("no")
    """
        )
        disk, _ = connected(path)
        with disk:
            for offset, number in ((0, errno.ENOSPC), (1, errno.EIO)):
                with pytest.raises(ScriptError, match=r"line \d+, in pread: RuntimeErr") as caught:
                    do(disk.read, offset, 1)
                assert caught.value.errno == number


class TestExports:
    def test_without_functions_for_them(self, script: Any):
        plugin = started(script(RAM))
        assert plugin.exports(Session()) == [("", "")]

    def test_with(self, script: Any):
        plugin = started(
            script(
                RAM
                + """
    def list_exports(readonly, is_tls):
        calls.append((readonly, is_tls))
        return [("a", "the first"), "b"]
    def default_export(readonly, is_tls): return "b"
    """
            )
        )
        session = Session("", SimpleNamespace(tls=True))
        assert plugin.exports(session) == [("a", "the first"), ("b", "")]
        assert plugin.default_export(session) == "b"
        assert plugin.module.calls == [(False, True)]

    @pytest.mark.parametrize("listed", ["None", "[1]", "[('a', 'b', 'c')]", "[('a', 1)]"])
    def test_wrong_ones(self, script: Any, listed: str):
        plugin = started(script(f"{RAM}\n    def list_exports(r, t): return {listed}\n"))
        with pytest.raises(ScriptError, match=r"disk\.py, line \d+: list_exports\(\) returned"):
            plugin.exports(Session())
