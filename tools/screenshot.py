"""``make screenshot``: a class at work, made up, as the dashboard shows it, into docs/images."""

from __future__ import annotations

import random
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.sync_api import sync_playwright

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "tests" / name) for name in (".", "consumers", "browser")]

from chromium import launched  # noqa: E402
from dashboards import running  # noqa: E402
from logs import Log, aggregate, sqlite_url  # noqa: E402

from spool_files import FIRST, chain_of, execution  # noqa: E402

IMAGE = REPOSITORY / "docs/images/dashboard.png"
PEOPLE = 24
MINUTES = 90
CELLS = ("load", "clean", "explore", "plot", "model", "evaluate", "discuss")
ERRORS = ("NameError", "TypeError", "KeyError", "ValueError")


def main() -> None:
    """Make the image, or with an argument all pages' images in that folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = sqlite_url(folder)
        aggregate(url, class_at_work(random.Random(3), datetime.now(UTC)).records)
        arguments = ["dashboard", "--store", url, "--port", "0"]
        with running(folder, arguments) as one, sync_playwright() as playwright, launched(playwright) as browser:
            page = browser.new_page(viewport={"width": 1200, "height": 860})
            page.goto(one.url)
            if len(sys.argv) == 1:
                page.goto(f"{one.base}cohort?notebook=week-3.ipynb")
                IMAGE.parent.mkdir(exist_ok=True)
                page.screenshot(path=IMAGE)
                return
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                for path in PAGES:
                    page.goto(f"{one.base}{path}")
                    shown = path.partition("?")[0] or "now"
                    page.screenshot(path=Path(sys.argv[1]) / f"{shown}-{scheme}.png", full_page=scheme == "dark")


PAGES = (
    "",
    "person?subject=subject-3",
    "notebook?subject=subject-3&notebook=week-3.ipynb",
    "cohort?notebook=week-3.ipynb",
    "integrity",
)


def class_at_work(rng: random.Random, now: datetime) -> Log:
    """Runs of people who work through a notebook, at speeds of their own, until now."""
    runs = []
    for person in range(PEOPLE):
        at, cell, pace = now - timedelta(minutes=MINUTES - rng.random() * 10), 0, rng.uniform(1, 11)
        while at < now and cell < len(CELLS):
            failed = rng.random() < 0.12 + 0.09 * (cell % 3) + (0.5 if person % 9 == 4 and cell == 4 else 0)
            runs.append((at, person, cell, failed, rng.random() < 0.25))
            at += timedelta(minutes=rng.expovariate(1 / pace))
            cell += rng.random() < (0.16 if failed else 0.45)
    log = Log()
    for at, person, cell, failed, is_rerun in sorted(runs):
        time = f"{at:%Y-%m-%dT%H:%M:%S.%f}Z"
        code = f"sha256:{rng.randrange(4) + 10 * cell:064x}"
        event = execution(FIRST, person, len(log.records))
        event |= {"time": time, "requested_at": time, "started_at": time, "finished_at": time}
        event |= {"notebook": "week-3.ipynb", "cell_id": CELLS[cell], "status": "error" if failed else "ok"}
        event |= {"code_hash": code, "code_ast_hash": code, "code_lines": 3 + cell, "same_code_as_last_run": is_rerun}
        event |= {
            "lines_added": rng.randrange(4),
            "lines_removed": rng.randrange(2),
            "duration_us": rng.randrange(900_000),
        }
        log.add(event | ({"error_name": rng.choice(ERRORS)} if failed else {}), chain_of(FIRST, person))
    return log


if __name__ == "__main__":
    main()
