"""How the documentation is built: `sphinx-build -W docs docs/_build`."""

from __future__ import annotations

from importlib.metadata import version as installed_version

project = "homebound"
author = "homebound contributors"
copyright = f"2026, {author}"  # noqa: A001 - the name that Sphinx reads
version = release = installed_version("homebound")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"homebound {version}"
default_role = "code"  # docstrings are written with `single` backquotes

autodoc_member_order = "bysource"
autodoc_typehints = "description"
myst_heading_anchors = 3
