"""Notifications to systemd, by sd_notify's protocol."""

from __future__ import annotations

import os
import socket

from ._stdio import tell

_VARIABLE = "NOTIFY_SOCKET"


class Notifier:
    """Notifies the service manager that started this process, if one wants to be notified."""

    def __init__(self) -> None:
        # Removed from the environment: the manager does not wait for this process's children.
        self._address = os.environ.pop(_VARIABLE, "")

    def ready(self, status: str) -> None:
        """Notify that clients can connect."""
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """Notify that the server is stopping."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        # "@" stands for the NUL byte that begins an abstract name.
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
                manager.connect(name)
                manager.sendall(text.encode(errors="replace"))
        except OSError as error:
            tell(
                f"homebound: cannot notify the service manager at {self._address!r} "
                f"({_VARIABLE}): {error.strerror or error}"
            )
            self._address = ""
