"""How the documentation is built: MyST pages, and traits, schemas and commands rendered from their sources."""

from __future__ import annotations

import warnings
from typing import Any

from sphinx.application import Sphinx
from traitlets import Enum

from exec_events import __version__
from exec_events.app import ExecEvents

project = "exec-events"
author = "exec-events contributors"
copyright = "exec-events contributors"
version = release = __version__

extensions = ["myst_parser", "autodoc_traits", "sphinx-jsonschema", "sphinx_click"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4

html_theme = "pydata_sphinx_theme"
html_title = "exec-events"
html_show_sourcelink = False

# Traits of Jupyter's own base class without help; they are skipped below.
warnings.filterwarnings("ignore", category=FutureWarning, module="autodoc_traits")


def skip_inherited(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the traits that every Jupyter application has."""
    own = ExecEvents.class_own_traits(config=True)
    return True if name not in own and name in ExecEvents.class_traits(config=True) else None


def add_choices(app: Sphinx, what: str, name: str, trait: Any, options: Any, lines: list[str]) -> None:
    """Below the help of a trait with a fixed set of values: which they are."""
    if isinstance(trait, Enum) and trait.values:
        lines += ["", "One of: " + ", ".join(f"``{value!r}``" for value in trait.values) + "."]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", skip_inherited)
    app.connect("autodoc-process-docstring", add_choices)
