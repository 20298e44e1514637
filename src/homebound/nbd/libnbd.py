"""libnbd's Python interface, without libnbd: `from homebound.nbd import libnbd as nbd`.

Programs that `import nbd` run with this module in its place: `sys.modules["nbd"] = libnbd`. Its
calls block, whatever thread or task makes them; in a task use `NBDDisk`.
"""

from .. import __version__
from .._os.public_names import publish as _publish
from ._libnbd.buffer import Buffer as Buffer  # noqa: PLC0414  (exports it)
from ._libnbd.constants import *  # noqa: F403
from ._libnbd.error import ClosedHandle as ClosedHandle  # noqa: PLC0414  (exports it)
from ._libnbd.error import Error as Error  # noqa: PLC0414  (exports it)
from ._libnbd.handle import NBD as NBD  # noqa: PLC0414  (exports it)

__version__ = __version__  # noqa: PLW0127  (programs print it)


_publish(globals())
