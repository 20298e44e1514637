"""NBD: serving disks over the network, and the protocol itself, without I/O."""

from __future__ import annotations

from ._errors import AddressInUse as AddressInUse
from ._errors import ExportNameError as ExportNameError
from ._errors import ListenError as ListenError
from ._errors import LocalProtocolError as LocalProtocolError
from ._errors import NBDError as NBDError
from ._errors import RemoteProtocolError as RemoteProtocolError
from ._export import ExportInfo as ExportInfo
from ._export import ExportTable as ExportTable
from ._handshake import Chosen as Chosen
from ._handshake import Closed as Closed
from ._handshake import HandshakeState as HandshakeState
from ._handshake import Reply as Reply
from ._handshake import ServerHandshake as ServerHandshake
from ._published import Export as Export
from ._published import ServerStats as ServerStats
from ._server import NBDServer as NBDServer
from ._wire import TransmissionFlag as TransmissionFlag
