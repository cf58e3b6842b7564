"""How the documentation is built: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

import squall

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "Squall"
author = "The Squall contributors"
copyright = "the Squall contributors"  # noqa: A001 - Sphinx asks for this name
version = release = squall.__version__

extensions = ["myst_parser", "reference_pages"]
exclude_patterns = ["_build", "_ext", "README.md"]
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist", "fieldlist", "linkify"]
myst_heading_anchors = 4
nitpicky = True

html_theme = "furo"
html_title = f"Squall {version}"
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
suppress_warnings = ["myst.header"]  # a benchmark's table may stand one level deeper than its page's outline
