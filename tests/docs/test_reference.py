"""The reference and the page of errors have everything that the packages export."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import homebound
import homebound.block
import homebound.debug
import homebound.nbd
import homebound.nbd.libnbd
import homebound.testing

ROOT = Path(__file__).parents[2]
PACKAGES = (
    homebound,
    homebound.block,
    homebound.debug,
    homebound.nbd,
    homebound.nbd.libnbd,
    homebound.testing,
)
PLAN = tomllib.loads((ROOT / "docs" / "reference.toml").read_text())


def exported(package: ModuleType) -> dict[str, object]:
    names = getattr(package, "__all__", None) or [
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == package.__name__
    ]
    return {
        f"{package.__name__}.{name}".removeprefix("homebound."): getattr(package, name)
        for name in names
    }


def is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


PUBLIC = {name: value for package in PACKAGES for name, value in exported(package).items()}
ERRORS = sorted(name for name, value in PUBLIC.items() if is_error(value))
ENTRIES = sorted(name for name, value in PUBLIC.items() if not is_error(value))


def sections() -> dict[str, str]:
    """What stands under each public name's heading."""
    found = {}
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        for part in re.split(r"^## ", page.read_text(), flags=re.MULTILINE)[1:]:
            name, _, text = part.partition("\n")
            found[name] = text
    return found


SECTIONS = sections()


@pytest.mark.parametrize("name", ENTRIES)
def test_name_stands_in_the_reference(name: str):
    assert name in SECTIONS, "run scripts/reference; a new name needs a page in reference.toml"


def test_reference_has_nothing_else():
    assert sorted(SECTIONS) == ENTRIES


def members(cls: type) -> set[str]:
    """The public members of a class that its bases with an entry of their own do not have."""
    bases = [base for base in cls.__mro__ if base.__module__.startswith("homebound")]
    own = {
        name
        for base in bases
        for name in {*vars(base), *getattr(base, "__annotations__", ())}
        if not name.startswith("_")
    }
    for base in bases[1:]:
        if any(base is value for value in PUBLIC.values()):
            own -= members(base)
    return own


@pytest.mark.parametrize("name", [name for name in ENTRIES if isinstance(PUBLIC[name], type)])
def test_members_stand_in_the_reference(name: str):
    cls = PUBLIC[name]
    assert isinstance(cls, type)
    text = SECTIONS[name]
    missing = {
        each
        for each in members(cls)
        if f"### {name}.{each}\n" not in text
        and f"`{each}`" not in text
        and f"{name}.{each}" not in PLAN["hidden"]
    }
    inherited = {
        each
        for each in missing
        if not getattr(inspect.getattr_static(cls, each, None), "__doc__", None)
    }  # an override without words of its own: the base's entry holds
    assert missing == inherited


@pytest.mark.parametrize("name", [name for name in ENTRIES if "." not in name])
def test_functions_say_where_they_may_be_called(name: str):
    if isinstance(PUBLIC[name], FunctionType):
        assert "Called from: **" in SECTIONS[name]


@pytest.mark.parametrize("name", ENTRIES)
def test_members_say_where_they_may_be_called(name: str):
    _, *entries = re.split(r"^### ", SECTIONS[name], flags=re.MULTILINE)
    untagged = [each.partition("\n")[0] for each in entries if "Called from: **" not in each]
    assert not untagged


def test_named_members():
    """Those that readers have missed."""
    wanted = {
        "Task": ["wake", "home"],
        "AioContext": ["loop", "name", "workers"],
        "IOThread": ["name", "context"],
        "IOThreadPool": ["threads"],
        "block.Disk": ["size", "read_only"],
        "WorkerPool": ["map"],
        "ContextStats": list(homebound.ContextStats.__annotations__),
        "nbd.ServerStats": list(homebound.nbd.ServerStats.__annotations__),
    }
    for name, each in wanted.items():
        for member in each:
            entry = rf"^(### {name}\.{member}$|\| `{member}` \|)"
            assert re.search(entry, SECTIONS[name], re.MULTILINE), f"{name}.{member}"


def test_each_error_has_an_entry():
    """A new error needs one in docs/errors.toml, and an old one is removed with the error."""
    said = tomllib.loads((ROOT / "docs" / "errors.toml").read_text())
    assert sorted(name.removeprefix("homebound.") for name in said) == ERRORS
    page = (ROOT / "docs" / "errors.md").read_text()
    for name, entry in said.items():
        assert f"\n## {name.removeprefix('homebound.')}\n" in page
        assert all(entry[key].endswith(".") for key in ("means", "why", "do"))
