"""A program seen from outside while it runs: what `homebound ps`, `pstree` and `top` connect to.

Only programs, the command line and `HOMEBOUND_TOP` import it. Its thread serves no task.
"""

from .._os.public_names import publish as _publish
from ._listener import Listener as Listener
from ._listener import listen as listen

_publish(globals())
