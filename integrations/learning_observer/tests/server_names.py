"""
A stand-in for the names of Learning Observer that this module imports, for tests where the server is not installed.

It shows that the module imports and what it hands over; not that the server makes of it what it should.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import Enum
from types import ModuleType
from typing import Any

PUBLISHED: dict[str, Callable[..., Any]] = {}


class KeyField(Enum):
    STUDENT = 1


class EventField(str):
    """The value of an event's member."""


class Scope(frozenset[Any]):
    """What a state is kept for."""


def kvs_pipeline(scope: Scope) -> Callable[[Any], Any]:
    """Keep the function as it is, with the scope it was given."""

    def decorate(function: Any) -> Any:
        function.scope = scope
        return function

    return decorate


def publish_function(name: str) -> Callable[[Any], Any]:
    """Note the function under its name."""

    def decorate(function: Any) -> Any:
        PUBLISHED[name] = function
        return function

    return decorate


def call(name: str) -> Callable[..., dict[str, Any]]:
    """A function that the server calls."""
    return lambda **given: {"call": name, "given": given}


def keys(reducer: str, **given: Any) -> dict[str, Any]:
    """The keys of a reducer's states."""
    return {"keys": reducer, "given": given}


def select(of: Any, fields: dict[str, str]) -> dict[str, Any]:
    """What is read of them."""
    return {"select": of, "fields": fields}


def join(**given: Any) -> dict[str, Any]:
    """Two lists made one."""
    return {"join": given}


def variable(name: str) -> dict[str, Any]:
    """What another node gives."""
    return {"variable": name}


def parameter(name: str, required: bool = False) -> dict[str, Any]:
    """What who asks must say."""
    return {"parameter": name}


def _module(name: str, **members: Any) -> ModuleType:
    module = ModuleType(f"learning_observer{name}")
    vars(module).update(members)
    sys.modules[module.__name__] = module
    return module


query = _module(
    ".communication_protocol.query",
    call=call,
    keys=keys,
    select=select,
    join=join,
    variable=variable,
    parameter=parameter,
)
_module("")
_module(".stream_analytics")
_module(".stream_analytics.fields", EventField=EventField, KeyField=KeyField, Scope=Scope)
_module(".stream_analytics.helpers", kvs_pipeline=kvs_pipeline)
_module(".communication_protocol", query=query)
_module(".communication_protocol.integration", publish_function=publish_function)
