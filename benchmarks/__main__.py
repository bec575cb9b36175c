"""``python -m benchmarks``: measures, prints one table (or JSON), and fails when a target is missed."""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module

import psutil
from rich.console import Console

from .figures import Figure, as_json, table
from .fleet import progress

# --only NAME -> module and function
FAMILIES = {
    "rounds": ("rounds", "measure"),
    "large": ("large", "measure"),
    "memory": ("memory", "measure"),
    "required": ("required", "measure"),
    "spool": ("producer", "measure_spool"),
    "emit": ("producer", "measure_emit"),
    "verify": ("verify", "measure"),
    "lab-page": ("lab_page", "measure"),
    "kafka-rate": ("kafka_rate", "measure"),
    "kafka-visible": ("kafka_visible", "measure"),
    "kafka-away": ("kafka_away", "measure"),
    "kafka-silent": ("kafka_silent", "measure"),
    "consume-rate": ("consume_rate", "measure"),
    "consume-growth": ("consume_growth", "measure"),
    "consume-memory": ("consume_memory", "measure"),
    "consume-dashboard": ("consume_dashboard", "measure"),
    "consume-forward": ("consume_forward", "measure"),
    "hub-spawn": ("hub_spawn", "measure"),
}
# Several by one name.
GROUPS = {group: [name for name in FAMILIES if name.startswith(f"{group}-")] for group in ("kafka", "consume")}


def main() -> int:
    """Run the families asked for; 1 when a target is missed or a family cannot run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=[*FAMILIES, *GROUPS], help="one family; may be given again")
    parser.add_argument("--quick", action="store_true", help="a short run: shows that it runs, proves little")
    parser.add_argument("--json", action="store_true", help="JSON on stdout, each round's value included")
    arguments = parser.parse_args()
    figures: list[Figure] = []
    failed = []
    for name in [family for chosen in arguments.only or FAMILIES for family in GROUPS.get(chosen, [chosen])]:
        began = time.monotonic()
        try:
            module, function = FAMILIES[name]
            measure: Callable[[bool], Awaitable[list[Figure]]] = getattr(
                import_module(f"benchmarks.{module}"), function
            )
            figures += asyncio.run(_run(measure, arguments.quick))
        except Exception as error:
            progress(f"{name} failed: {type(error).__name__}: {error}")
            failed.append(name)
        progress(f"{name}: {time.monotonic() - began:.0f} s")
    if arguments.json:
        machine = {"python": platform.python_version(), "platform": platform.platform(), "cpus": psutil.cpu_count()}
        document = {"machine": machine, "quick": arguments.quick, "failed": failed, "figures": as_json(figures)}
        print(json.dumps(document, indent=2))
    else:
        # Wide enough for every column where the output is a file.
        console = Console() if sys.stdout.isatty() else Console(width=150)
        console.print(table(figures))
        if failed:
            console.print(f"could not be measured: {', '.join(failed)} (the reason is above)")
    return 1 if failed or any(figure.ok is False for figure in figures) else 0


async def _run(measure: Callable[[bool], Awaitable[list[Figure]]], quick: bool) -> list[Figure]:
    return await measure(quick)


if __name__ == "__main__":
    sys.exit(main())
