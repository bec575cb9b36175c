"""What stands in the project's own tests, and in this folder's parent, is used here too."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1]
REPOSITORY = FOLDER.parents[1]
sys.path += [str(FOLDER), *(str(REPOSITORY / "tests" / name) for name in ("", "consumers", "browser"))]
