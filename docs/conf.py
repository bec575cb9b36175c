"""How the documentation is built: MyST pages, and traits, schemas and commands rendered from their sources."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from traitlets import Enum

from exec_events import __version__
from exec_events.app import ExecEvents
from exec_events_consumers.tables import metadata

project = "exec-events"
author = "exec-events contributors"
copyright = "exec-events contributors"
version = release = __version__

extensions = ["myst_parser", "autodoc_traits", "sphinx-jsonschema", "sphinx_click"]
exclude_patterns = ["_build", "_tables.md"]
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


def write_tables(app: Sphinx) -> None:
    """Every table and column of the aggregate, from their own comments, for tables.md to include."""
    lines = []
    for table in metadata.sorted_tables:
        lines += [f"## {table.name}", "", str(table.comment), "", "| column | type | is |", "|---|---|---|"]
        for column in table.columns:
            key = ", key" if column.primary_key else ""
            may_be_null = ", may be null" if column.nullable else ""
            kind = type(column.type).__name__.lower().replace("largebinary", "bytes").replace("biginteger", "integer")
            lines.append(f"| `{column.name}` | {kind}{key}{may_be_null} | {column.comment} |")
        lines.append("")
    Path(__file__).with_name("_tables.md").write_text("\n".join(lines), encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_tables)
    app.connect("autodoc-skip-member", skip_inherited)
    app.connect("autodoc-process-docstring", add_choices)
