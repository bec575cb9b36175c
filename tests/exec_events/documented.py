"""Code that the documentation shows, as a package that can be installed: what is tested is what people read."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The fenced code blocks of a page in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def install(folder: Path, module: str, code: str, entry_points: str) -> None:
    """Install a module with entry points, written as in pyproject.toml, into a folder for PYTHONPATH."""
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    # [project.entry-points."group"] and name = "module:attribute", as an installer writes them
    text = re.sub(r'^\[project\.entry-points\."(.*)"\]$', r"[\1]", entry_points, flags=re.MULTILINE)
    (info / "entry_points.txt").write_text(text.replace('"', ""))
