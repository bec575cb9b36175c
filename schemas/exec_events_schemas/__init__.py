"""The contract of exec-events: its event schemas, the record they are sealed in, and how readers read them."""

from __future__ import annotations

from .catalogue import SCHEMA_ID, SchemaName, catalogue, load
from .errors import ContractError, UnknownSchema
from .upcast import upcast

__all__ = ["SCHEMA_ID", "ContractError", "SchemaName", "UnknownSchema", "catalogue", "load", "upcast"]
