"""An event in, its pydantic model out; kept apart so that importing the package does not import pydantic."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from . import models
from .catalogue import SchemaName
from .errors import MalformedRecord, UnknownSchema
from .upcast import newest_version, schema_of, upcast


def parse(event: dict[str, Any]) -> BaseModel:
    """
    An event, with its ``__schema__``, as a model of the newest version of its kind.

    Properties the model does not know are left out.

    Raises:
        UnknownSchema: the event, or its version, is not known here.
        MalformedRecord: its data is not what its schema says.
    """
    name = schema_of(event)
    newest = SchemaName(name.event, newest_version(name.event))
    if name.version > newest.version:
        raise UnknownSchema(f"{name} is newer than {newest}, the newest known here; upgrade exec-events")
    model: type[BaseModel] = getattr(models, newest.model)
    try:
        return model.model_validate(upcast(event))
    except ValidationError as error:
        raise MalformedRecord(f"not an event of {name}: {error}") from error
