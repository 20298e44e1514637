"""An nbdkit Python plugin: its life from `config` to `cleanup`, and its thread model.

nbdkit-python-plugin(3) and nbdkit-plugin(3) say which function is called when, and with what.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from ..._os.guard import new_guard
from .errors import failure_in, wrong
from .load import load_script
from .nbdkit_module import PARALLEL, SERIALIZE_ALL_REQUESTS, SERIALIZE_REQUESTS, Session, here

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType
    from typing import Any

_REQUIRED = ("open", "get_size", "pread")
_NEWEST = 2  # API_VERSION


class Plugin:
    """A plugin whose script has been run. Its functions block; a worker calls them.

    Raises ScriptError if a function is missing, or for an API_VERSION that is not known.
    """

    def __init__(self, path: str, module: ModuleType | None = None, *, read_only: bool) -> None:
        self.path = path
        self.module = load_script(path) if module is None else module
        self.read_only = read_only
        self.model = SERIALIZE_ALL_REQUESTS
        self._lock: AbstractContextManager[Any] = new_guard()
        missing = [name for name in _REQUIRED if not self.has(name)]
        if missing:
            text = f"an nbdkit plugin must define {', '.join(_REQUIRED)}; {missing[0]} is missing"
            raise wrong(path, None, text)
        self.version = getattr(self.module, "API_VERSION", 1)
        if self.version not in range(1, _NEWEST + 1):
            text = f"API_VERSION is {self.version!r}; 1 and {_NEWEST} are known"
            raise wrong(path, None, text)

    def __repr__(self) -> str:
        return f"<nbdkit plugin {self.path!r}>"

    def has(self, name: str) -> bool:
        """Return whether the plugin defines a function."""
        return callable(getattr(self.module, name, None))

    def function(self, name: str) -> Any:
        """Return a function of the plugin, or None."""
        return getattr(self.module, name, None)

    # Its life.

    def start(self, parameters: Iterable[tuple[str, str]] = ()) -> None:
        """Configure it, and tell it that clients will come. Raises ScriptError."""
        for key, value in parameters:
            if not self.has("config"):
                text = f"{key}={value} has no use: the plugin defines no config(key, value)"
                raise wrong(self.path, None, text)
            self.call(None, "config", key, value)
        self._call_if_defined("config_complete")
        if self.has("thread_model"):
            self.model = self._thread_model()
        if self.model >= SERIALIZE_REQUESTS:
            self._lock = nullcontext()
        self._call_if_defined("get_ready")
        self._call_if_defined("after_fork")

    def _thread_model(self) -> int:
        model = self.call(None, "thread_model")
        if model not in range(PARALLEL + 1):
            text = f"thread_model() returned {model!r}; it must be one of nbdkit.THREAD_MODEL_*"
            raise wrong(self.path, self.function("thread_model"), text)
        return int(model)

    def stop(self) -> None:
        """Tell it that no client will come any more. Raises ScriptError."""
        self._call_if_defined("cleanup")

    def _call_if_defined(self, name: str) -> None:
        if self.has(name):
            self.call(None, name)

    # What clients ask before they have a disk.

    def exports(self, session: Session) -> list[tuple[str, str]]:
        """Return names and descriptions of its exports. Raises ScriptError."""
        tls = self._tls(session)
        if not self.has("list_exports"):
            return [(self.default_export(session), "")]
        listed = self.call(session, "list_exports", self.read_only, tls)
        try:
            return [_pair(each) for each in listed]
        except (TypeError, ValueError):
            text = f"list_exports() returned {listed!r}; it must return names, or pairs of strings"
            raise wrong(self.path, self.function("list_exports"), text) from None

    def default_export(self, session: Session) -> str:
        """Return the name that the empty name stands for. Raises ScriptError."""
        if not self.has("default_export"):
            return ""
        name = self.call(session, "default_export", self.read_only, self._tls(session))
        if not isinstance(name, str):
            text = f"default_export() returned {name!r}; it must return a string"
            raise wrong(self.path, self.function("default_export"), text)
        return name

    @staticmethod
    def _tls(session: Session) -> bool:
        return bool(getattr(session.client, "tls", False))

    # Calls.

    def lock_of_handle(self) -> AbstractContextManager[Any]:
        """Return what the calls for one connection hold, by the thread model."""
        if self.model == SERIALIZE_REQUESTS:
            lock: AbstractContextManager[Any] = new_guard()
            return lock
        return self._lock

    def call(self, session: Session | None, name: str, *arguments: Any) -> Any:
        """Call a function that is not about a handle. Raises ScriptError."""
        with self._lock:
            return self.call_inside(session, name, *arguments)

    def call_inside(self, session: Session | None, name: str, *arguments: Any) -> Any:
        """Call a function; the caller holds the lock. Raises ScriptError."""
        before, here.session, here.error = here.session, session, 0
        try:
            return self.function(name)(*arguments)
        except (Exception, SystemExit) as error:
            raise failure_in(self.path, error, here.error or None) from error
        finally:
            here.session = before


def _pair(each: object) -> tuple[str, str]:
    if isinstance(each, str):
        return each, ""
    if isinstance(each, tuple):
        name, description = each
        if isinstance(name, str) and isinstance(description, str):
            return name, description
    raise TypeError
