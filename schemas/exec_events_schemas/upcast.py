"""
An event of any known version in, the same event in the newest known version out, one step at a time.

The step from vN to vN+1 of an event is the pure function ``upcast`` in ``<event>/upcast_vN_to_vN+1.py``:
adding the file is all it takes to add the step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from .catalogue import SCHEMA_ID, SchemaName, catalogue
from .errors import ContractError, UnknownSchema

Event = dict[str, Any]
Step = Callable[[Event], Event]


def upcast(event: Event) -> Event:
    """
    An event, with its ``__schema__``, in the newest version of its kind that is known here.

    An event of that version already is returned as it is. So is one of a version newer than all known:
    what it adds is for its reader to leave alone, and what it breaks shows when it is parsed.

    Raises:
        UnknownSchema: ``__schema__`` is missing or names no event known here.
    """
    name = schema_of(event)
    newest = newest_version(name.event)
    for version in range(name.version, newest):
        target = SchemaName(name.event, version + 1)
        event = {
            **step(name.event, version)(dict(event)),
            "__schema__": target.id,
            "__schema_version__": str(target.version),
        }
    return event


def schema_of(event: Event) -> SchemaName:
    """The event and version that ``__schema__`` names, known or newer than known; raises UnknownSchema."""
    schema = event.get("__schema__")
    match = SCHEMA_ID.fullmatch(schema) if isinstance(schema, str) else None
    if match is None:
        raise UnknownSchema(f"not an event of ours: its __schema__ is {schema!r}; {_known()}")
    name = SchemaName(match["event"], int(match["version"]))
    if not newest_version(name.event):
        raise UnknownSchema(f"there is no event {name.event!r}; {_known()}")
    return name


@cache
def newest_version(event: str) -> int:
    """The newest version of an event that is known here; 0 when the event is not."""
    return max((name.version for name in catalogue() if name.event == event), default=0)


@cache
def step(event: str, version: int) -> Step:
    """The step from this version of an event to the next; raises ContractError when it is missing."""
    module = f"{__package__}.{event}.{step_module(version)}"
    try:
        found: Step = import_module(module).upcast
    except (ModuleNotFoundError, AttributeError) as error:
        raise ContractError(
            f"{event} v{version} cannot be read as v{version + 1}: {module} has no function upcast; write it"
        ) from error
    return found


def step_module(version: int) -> str:
    """The name of the module that holds the step from this version to the next."""
    return f"upcast_v{version}_to_v{version + 1}"


def _known() -> str:
    return f"known are: {', '.join(map(str, catalogue()))}"
