"""NBD: a server of disks, a disk on a server, and the protocol itself without I/O.

The server's names are loaded when they are first used: a program that only connects to servers, as
`homebound copy` does, would spend on them a third of what it takes to start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._os.public_names import listed as _listed
from .._os.public_names import loaded_later as _loaded_later
from .._os.public_names import publish as _publish
from ._client.described import StatusExtent as StatusExtent
from ._client.disk import NBDDisk as NBDDisk
from ._client.errors import ConnectError as ConnectError
from ._client.errors import ConnectionLost as ConnectionLost
from ._client.errors import ServerViolation as ServerViolation
from ._client.uri import URIError as URIError
from ._protocol.errors import AddressInUse as AddressInUse
from ._protocol.errors import ExportNameError as ExportNameError
from ._protocol.errors import ListenError as ListenError
from ._protocol.errors import LocalProtocolError as LocalProtocolError
from ._protocol.errors import NBDError as NBDError
from ._protocol.errors import OptionRefused as OptionRefused
from ._protocol.errors import RemoteProtocolError as RemoteProtocolError
from ._protocol.export import ExportInfo as ExportInfo
from ._protocol.export import ExportTable as ExportTable
from ._protocol.wire import TransmissionFlag as TransmissionFlag

if TYPE_CHECKING:
    from ._protocol.handshake import Chosen as Chosen
    from ._protocol.handshake import Closed as Closed
    from ._protocol.handshake import HandshakeState as HandshakeState
    from ._protocol.handshake import Reply as Reply
    from ._protocol.handshake import ServerHandshake as ServerHandshake
    from ._server.client_info import ClientInfo as ClientInfo
    from ._server.published import Export as Export
    from ._server.published import ServerStats as ServerStats
    from ._server.server import NBDServer as NBDServer
    from ._server.visits import Exports as Exports

_LATER = {
    "Chosen": "_protocol.handshake",
    "Closed": "_protocol.handshake",
    "HandshakeState": "_protocol.handshake",
    "Reply": "_protocol.handshake",
    "ServerHandshake": "_protocol.handshake",
    "ClientInfo": "_server.client_info",
    "Export": "_server.published",
    "ServerStats": "_server.published",
    "NBDServer": "_server.server",
    "Exports": "_server.visits",
}

__all__ = (
    "AddressInUse",
    "Chosen",
    "ClientInfo",
    "Closed",
    "ConnectError",
    "ConnectionLost",
    "Export",
    "ExportInfo",
    "ExportNameError",
    "ExportTable",
    "Exports",
    "HandshakeState",
    "ListenError",
    "LocalProtocolError",
    "NBDDisk",
    "NBDError",
    "NBDServer",
    "OptionRefused",
    "RemoteProtocolError",
    "Reply",
    "ServerHandshake",
    "ServerStats",
    "ServerViolation",
    "StatusExtent",
    "TransmissionFlag",
    "URIError",
)

if not TYPE_CHECKING:  # for a type checker, a module with this function has every attribute
    __getattr__ = _loaded_later(globals(), _LATER)
    __dir__ = _listed(globals())


_publish(globals(), __all__)
