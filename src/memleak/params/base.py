"""What all parts of params.yaml share: immutable, and helpful about misspelt keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from memleak import plugins, provenance

Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Probability = Annotated[float, Field(gt=0, lt=1)]


class ParamsError(ValueError):
    """params.yaml says something that cannot be done; the text is one sentence a fault."""


class Frozen(BaseModel):
    """A part of params.yaml: immutable, and a key that it does not know is an error naming the nearest."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            known = list(cls.model_fields)
            for key in value:
                if key not in known:
                    raise ValueError(f"unknown key '{key}'{plugins.nearest(str(key), known)}")
        return value


def plugin_code(room: str, name: str) -> dict[str, str]:
    """The digest of a user's plug-in file, to be part of a name; nothing for built-in functions."""
    if not plugins.is_file(room, name):
        return {}
    return {"code": provenance.plugin_digest(plugins.locate(room, name)[0])}
