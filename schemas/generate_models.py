"""Write ``exec_events_schemas/models.py`` from the schemas; with --check, only say whether that would change it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# A script's own folder comes first on the path: these are the schemas beside it, not those of an installed package.
from exec_events_schemas.errors import ContractError
from exec_events_schemas.generate import COMMAND, MODELS, models_source, stale

FOLDER = Path(__file__).parent / "exec_events_schemas"


def main() -> int:
    """Generate or check; 1 when the models are stale or cannot be made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="Write nothing; exit 1 when models.py is stale.")
    check = parser.parse_args().check
    try:
        if not check:
            (FOLDER / MODELS).write_text(models_source(FOLDER), encoding="utf-8")
        elif stale(FOLDER):
            print(f"{MODELS} is stale: run {COMMAND} and commit it", file=sys.stderr)
            return 1
    except ContractError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
