"""Metrics held against their documented form."""

from __future__ import annotations

from typing import Any

import jsonschema

from memleak.metrics import schema


def errors_of(metrics: dict[str, Any]) -> list[str]:
    """Where metrics are not as documented, in words."""
    pairs, pool = schema.schema()["oneOf"]
    part = pairs if metrics["kind"] == "pairs" else pool  # by its kind, so that an error names the field and not both forms
    errors = jsonschema.Draft202012Validator(part).iter_errors(metrics)
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message[-300:]}" for error in errors]
