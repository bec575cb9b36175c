"""A wheel carries the JupyterLab extension, built with npm where it is not there yet; an editable install does not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = "labextension"
BUILT = "exec_events/labextension"
INSTALLED = "share/jupyter/labextensions/exec-events"


class LabExtensionHook(BuildHookInterface[Any]):
    """Called by hatchling before it writes a wheel or a source distribution."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See that the extension is built, and add it to the wheel; `make labextension` serves an editable install."""
        if self.target_name == "wheel" and version == "editable":
            return
        root = Path(self.root)
        if not (root / BUILT / "package.json").is_file():
            build(root / SOURCES)
        if self.target_name == "wheel":
            build_data["shared_data"][str(root / BUILT)] = INSTALLED
            build_data["shared_data"][str(root / SOURCES / "install.json")] = f"{INSTALLED}/install.json"
        else:
            build_data["artifacts"].append(f"/{BUILT}")


def build(sources: Path) -> None:
    """Run npm; raises RuntimeError where there is none."""
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("the JupyterLab extension is not built, and npm is missing: install Node.js 18 or later")
    for arguments in (["ci", "--no-audit", "--no-fund", "--loglevel=error"], ["run", "build"]):
        subprocess.run([npm, *arguments], cwd=sources, check=True)
