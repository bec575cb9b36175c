"""The server's memory over many executions."""

from __future__ import annotations

from .figures import Figure
from .fleet import fleet, progress, recorder_exists, rotated, settle

MEGABYTE = 1_000_000
FLAT_MEGABYTES = 5.0


async def measure(quick: bool) -> list[Figure]:
    """Growth from the first tenth of the executions to the last, less the stock server's own growth."""
    if not recorder_exists():
        return []
    total = 2_000 if quick else 20_000
    marks = (total // 10, total // 2, total)
    resident: dict[str, list[float]] = {"stock": [], "recorder": []}
    async with fleet(stock=None, recorder="") as servers:
        done = 0
        for turn, mark in enumerate(marks):
            for one in rotated(servers, turn):
                await one.pipelined(mark - done)
                await settle()
                resident[one.name].append(one.resident_bytes / MEGABYTE)
                progress(f"memory: {one.name} {resident[one.name][-1]:.1f} MB after {mark:,} executions")
            done = mark
    growth = {name: values[-1] - values[0] for name, values in resident.items()}
    note = (
        " / ".join(f"{value:.1f}" for value in resident["recorder"])
        + " MB after "
        + " / ".join(f"{m:,}" for m in marks)
    )
    own = growth["recorder"] - growth["stock"]
    label = f"memory growth from {marks[0]:,} to {total:,} executions"
    return [
        Figure(label + ", less stock's", own, "MB", FLAT_MEGABYTES, "at most", note, tuple(resident["recorder"])),
        Figure(label + ", stock", growth["stock"], "MB", rounds=tuple(resident["stock"])),
    ]
