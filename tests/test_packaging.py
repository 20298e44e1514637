"""Promises about the whole package: thread tags, layers, sizes, examples, the wheel."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAX_LINES = 500
TAGS = {
    "Called from: any thread.",
    "Called from: home thread.",
    "Called from: task.",
    "Called from: big lock or home.",
}


def modules() -> list[ModuleType]:
    # Importing __main__ would run the command line.
    names = [
        found.name
        for found in pkgutil.walk_packages(homebound.__path__, "homebound.")
        if not found.name.endswith(".__main__")
    ]
    return [homebound, *map(importlib.import_module, names)]


def public_packages() -> list[ModuleType]:
    """Return the modules for users: no underscore in the path, and not the command line."""
    return [module for module in modules() if not re.search(r"\._|\.cli\b", module.__name__)]


def public_callables() -> Iterator[tuple[str, Any]]:
    for module in public_packages():
        for name, value in public_members(module):
            if inspect.isclass(value):
                yield from public_methods(f"{module.__name__}.{name}", value)
            elif callable(value):
                yield f"{module.__name__}.{name}", value


def public_members(module: ModuleType) -> list[tuple[str, Any]]:
    """Return a module's public names: its __all__, or its own names and a package's re-exports."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_")
            and not inspect.ismodule(value)
            and str(getattr(value, "__module__", "")).startswith(
                "homebound" if hasattr(module, "__path__") else module.__name__
            )
        ]
    return [(name, getattr(module, name)) for name in names]


def public_methods(prefix: str, cls: type) -> Iterator[tuple[str, Any]]:
    """Return the methods written in this package; inherited ones are documented by asyncio."""
    for owner in cls.__mro__:
        if owner.__module__.startswith("homebound"):
            for name, value in vars(owner).items():
                function = getattr(value, "__func__", value)  # of a classmethod or staticmethod
                if not name.startswith("_") and inspect.isroutine(function):
                    yield f"{prefix}.{name}", function


def last_line(function: object) -> str:
    return (inspect.getdoc(function) or "").rpartition("\n")[2]


def test_public_callables_say_where_they_may_be_called_from():
    untagged = sorted(
        name for name, function in public_callables() if last_line(function) not in TAGS
    )
    assert not untagged, f"the docstring's last line must be one of {sorted(TAGS)}"


def test_reference_has_every_public_module():
    plan = tomllib.loads((ROOT / "docs" / "reference.toml").read_text())
    listed = {name.rpartition(".")[0] for page in plan["page"] for name in page["names"]}
    listed.add("homebound.testing.pytest_plugin")  # docs/testing.md has its fixtures
    assert listed == {module.__name__ for module in public_packages()}


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [
        example
        for module in modules()
        # A fresh namespace, not the module's: an example shows its imports.
        for example in finder.find(module, module.__name__, module=module, globs={})
    ]
    return [example for example in found if example.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_docstring_examples_run(example: doctest.DocTest):
    if any(line.source.startswith("import fsspec") for line in example.examples):
        pytest.importorskip("fsspec")  # an extra
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    failed, _ = runner.run(example, out=report.append, clear_globs=True)
    assert not failed, "".join(report)


CONTRACTS = PYPROJECT["tool"]["importlinter"]["contracts"]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract["containers"][0])
def test_every_module_has_a_layer(contract: dict[str, Any]):
    """import-linter's `exhaustive` says the same, but only where it is installed."""
    assert contract["exhaustive"]
    layered = {name for layer in contract["layers"] for name in re.split(r"\s*[:|]\s*", layer)}
    (container,) = contract["containers"]
    package = ROOT.joinpath("src", *container.split("."))
    present = {path.stem for path in package.glob("*.py")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    unlike = (present - {"__init__"}) ^ layered
    assert not unlike, "name each module there is, and no other, in [tool.importlinter]"


def test_the_package_holds_rooms():
    """A module belongs in a room; import-linter has contracts for all and for the inside of two."""
    package = ROOT / "src" / "homebound"
    assert {path.name for path in package.glob("*.py")} == {
        "__init__.py",
        "__main__.py",
        "_errors.py",
    }
    containers = {contract["containers"][0] for contract in CONTRACTS}
    assert {"homebound", "homebound._core"} <= containers


def test_no_source_file_is_too_long():
    lengths = {path: len(path.read_text().splitlines()) for path in SOURCES}
    assert not {path: lines for path, lines in lengths.items() if lines > MAX_LINES}


@pytest.mark.slow
def test_wheel_has_the_sources_and_the_typing_marker(tmp_path: Path):
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("homebound-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "homebound/py.typed" in names
    expected = {str(path.relative_to(ROOT / "src")) for path in SOURCES}
    assert {name for name in names if name.endswith(".py")} == expected
