"""Asking a server what it has, without choosing an export."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..._os.clock import monotonic
from ..._workers.to_worker import to_worker
from .._protocol.client_handshake import ClientHandshake, RemoteExport
from .._protocol.errors import OptionRefused
from .dial import ATTEMPT_SECONDS, Attempt, Shell
from .errors import connect_error
from .uri import parse_uri

if TYPE_CHECKING:
    from .uri import Target


@dataclass(frozen=True)
class OfferedExport:
    """An export, and the names of all its metadata contexts."""

    export: RemoteExport
    contexts: tuple[str, ...]


@dataclass
class Answer:
    """A server's answers."""

    fixed: bool = False  # it speaks the fixed newstyle handshake
    tls: bool = False
    structured: bool = False
    exports: list[OfferedExport] = field(default_factory=list)
    refused: dict[str, OptionRefused] = field(default_factory=dict)  # listed, but not described


class Survey(Attempt):
    """Questions to a server, in a worker; any thread may cancel them."""

    __slots__ = ("_lists",)

    def __init__(self, target: Target, *, lists: bool) -> None:
        super().__init__(target, (), id)
        self._lists = lists  # all exports, not that of the target

    def ask(self) -> Answer:
        """Ask; blocks. Raises ConnectError."""
        target = self._target
        try:
            deadline = monotonic() + ATTEMPT_SECONDS
            shell = Shell(self._connect(deadline), deadline, self._use)
            try:
                return self._ask(shell, ClientHandshake())
            finally:
                self._forget(shell.sock)
        except Exception as error:
            raise connect_error(target, error) from error

    def _ask(self, shell: Shell, handshake: ClientHandshake) -> Answer:
        target = self._target
        shell.run(handshake.greet())
        if target.tls:
            shell.run(handshake.begin_tls())
            shell.begin_tls(target)
        shell.run(handshake.structured_replies())
        answer = Answer(handshake.fixed, handshake.tls, handshake.structured)
        try:
            if self._lists:
                for name, description in shell.run(handshake.list_exports()):
                    try:
                        self._describe(shell, handshake, answer, name, description)
                    except OptionRefused as error:
                        answer.refused[name] = error
            else:
                self._describe(shell, handshake, answer, target.export)
        finally:
            with contextlib.suppress(OSError):  # it may have gone
                shell.run(handshake.abort())
        return answer

    def _describe(
        self, shell: Shell, handshake: ClientHandshake, answer: Answer, name: str, words: str = ""
    ) -> None:
        export = shell.run(handshake.info(name))
        if words and not export.description:
            export = replace(export, description=words)
        answer.exports.append(OfferedExport(export, self._contexts(shell, handshake, name)))

    def _contexts(self, shell: Shell, handshake: ClientHandshake, name: str) -> tuple[str, ...]:
        if not handshake.structured:
            return ()
        try:
            return tuple(shell.run(handshake.list_contexts(name)))
        except OptionRefused:
            return ()


async def ask_server(uri: str, *, lists: bool) -> Answer:
    """Ask the server for its exports; without `lists` for the one that the URI names.

    Raises ConnectError, an OSError; URIError, a ValueError.
    """
    survey = Survey(parse_uri(uri), lists=lists)
    try:
        return await to_worker(survey.ask)
    except asyncio.CancelledError:
        survey.cancel()
        raise
