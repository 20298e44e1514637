"""Run a script, and see what kind of disk it is."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from types import ModuleType

from .errors import failure_in
from .nbdkit_module import install

_numbers = count(1)


def load_script(path: str) -> ModuleType:
    """Run a script in a module of its own. Raises ScriptError, or OSError if it cannot be read.

    The module is in `sys.modules`, for dataclasses and pickles. The script's directory is the last
    one that modules are looked for in, so that `file.py` beside it does not hide a module.
    """
    source = Path(path).read_bytes()
    install()
    directory = str(Path(path).resolve().parent)
    if directory not in sys.path:
        sys.path.append(directory)
    name = f"homebound_script{next(_numbers)}_{Path(path).stem}"
    module = ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module
    try:
        code = compile(source, path, "exec", dont_inherit=True)
        exec(code, vars(module))  # noqa: S102  (to run it is what the user asks for)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise failure_in(path, error) from error
    return module


def is_plugin(module: ModuleType) -> bool:
    """Return whether a script is an nbdkit plugin."""
    if "API_VERSION" in vars(module):
        return True
    return all(callable(getattr(module, name, None)) for name in ("open", "get_size", "pread"))
