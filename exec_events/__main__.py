"""``python -m exec_events VERB``: the command line, where its script is not on the PATH."""

from __future__ import annotations

from exec_events.cli import main

if __name__ == "__main__":
    main(prog_name="exec-events")
