"""How Sphinx builds the documentation: `make docs` writes it to docs/_build."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "pgneural"
author = "the authors of pgneural"
version = release = installed("pgneural")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "sql_reference"]
exclude_patterns = ["_build"]
smartquotes = False  # quotation marks and hyphens are those that one types

html_theme = "furo"
html_title = "pgneural"

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

# docstrings name things in single backquotes, and have their types in the signature
default_role = "py:obj"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
