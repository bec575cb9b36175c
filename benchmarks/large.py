"""Large outputs: a 10 MB stream, a 5 MB image, 20,000 printed lines."""

from __future__ import annotations

from collections import defaultdict

from .figures import Figure
from .fleet import fleet, median_ratio, progress, recorder_exists, rotated, settle

# Made once in each kernel, so that only their output is timed.
PREPARE = """
import base64, os, sys
stream = ("x" * 99 + chr(10)) * 100_000
image = base64.b64encode(os.urandom(3_750_000)).decode()
"""
OUTPUTS = {
    "10 MB stream": "_ = sys.stdout.write(stream); sys.stdout.flush()",
    "5 MB image": "display({'image/png': image}, raw=True)",
    "20,000 lines": "for i in range(20_000): print(i)",
}


async def measure(quick: bool) -> list[Figure]:
    """The time of each, as a ratio to the stock server's."""
    rounds = 4 if quick else 40
    configurations: dict[str, str | None] = {"stock": None, "control": None}
    if recorder_exists():
        configurations["recorder"] = ""
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    async with fleet(**configurations) as servers:
        for one in servers:
            for code in (PREPARE, *OUTPUTS.values()):
                await one.run(code)
        for turn in range(rounds):
            for label, code in OUTPUTS.items():
                for one in rotated(servers, turn):
                    times[label, one.name].append(await one.run(code))
            await settle()
            if (turn + 1) % 5 == 0 or turn + 1 == rounds:
                progress(f"large outputs {turn + 1}/{rounds}")
    figures = []
    for label in OUTPUTS:
        control, ratios = median_ratio(times[label, "control"], times[label, "stock"])
        figures.append(Figure(f"{label}: time, stock against itself", control, "x", note="the control", rounds=ratios))
        if "recorder" in configurations:
            measured, ratios = median_ratio(times[label, "recorder"], times[label, "stock"])
            note = f"stock {1000 * sorted(times[label, 'stock'])[rounds // 2]:.0f} ms"
            figures.append(Figure(f"{label}: time", measured, "x", 1.08, "at most", note, ratios))
    return figures
