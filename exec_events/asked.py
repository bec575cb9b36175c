"""What requests may hold; imported with the first of them, for pydantic takes its time."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import ConfigurationError

CELLS_LIMIT = 2000
Text = TypeVar("Text", bound=BaseModel)


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class AskedCell(_Closed):
    """A code cell as it stands."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    source: str


class AskedCells(_Closed):
    """The body of `POST cells`."""

    path: Annotated[str, Field(min_length=1, max_length=4096)]
    cells: Annotated[list[AskedCell], Field(max_length=CELLS_LIMIT)]


class AskedNotebook(_Closed):
    """The body of `POST verify`."""

    path: Annotated[str, Field(min_length=1, max_length=4096)]
    notebook: dict[str, Any]


class AskedConsent(_Closed):
    """The body of `PUT consent`."""

    version: Annotated[str, Field(min_length=1, max_length=64)]


def read(model: type[Text], body: bytes) -> Text:
    """A request's body; raises ConfigurationError, which says what is wrong and repeats nothing of it."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        at = "/".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"the request's body is not as openapi.yaml says, at /{at}: {first['msg']}") from None
