"""How the documentation is built: `sphinx-build -W docs docs/_build`."""

from __future__ import annotations

from importlib.metadata import version as installed_version

project = "homebound"
author = "homebound contributors"
copyright = f"2026, {author}"  # noqa: A001 - the name that Sphinx reads
version = release = installed_version("homebound")

extensions = ["myst_parser"]  # scripts/reference writes the reference
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"homebound {version}"
myst_heading_anchors = 3
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_sourcelink = False
html_theme_options: dict[str, object] = {"top_of_page_buttons": []}
pygments_dark_style = "github-dark"  # the theme's own underlines each module
