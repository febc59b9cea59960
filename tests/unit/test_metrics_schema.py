"""The documented form of metrics, held against what audits of every kind write."""

from __future__ import annotations

import copy
import json

import jsonschema
import pytest
from documented import errors_of

from memleak import cli
from memleak.metrics import schema

KINDS = ("walk", "referenced", "pool_walk", "coins", "given_walk", "given_alone")  # imported, units, texts: in their own tests


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(schema.schema())
    assert schema.schema()["$schema"].endswith("2020-12/schema")


def test_the_committed_schema_is_the_one_that_is_printed(project, capsys):
    assert cli.main(["schema", "--metrics"]) == 0

    assert json.loads(capsys.readouterr().out) == json.loads((project / "workflow/schemas/metrics.schema.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_of_every_kind_are_as_documented(kind, request):
    metrics = request.getfixturevalue(kind).metrics

    assert errors_of(metrics) == []
    assert list(metrics)[:3] == ["format", "memleak", "of"]


@pytest.mark.parametrize("place", ["attacks/lira/auc", "attacks/lira/rates/0", "models", "controls/null", "exposure/most/0", "data", ""])
def test_a_new_field_without_documentation_is_noticed(pool_walk, place):
    metrics = copy.deepcopy(pool_walk.metrics)
    part = metrics
    for key in filter(None, place.split("/")):
        part = part[int(key) if key.isdecimal() else key]
    part["novelty"] = 1

    assert any("novelty" in error for error in errors_of(metrics))


def test_a_field_that_is_gone_is_noticed(walk):
    metrics = copy.deepcopy(walk.metrics)
    del metrics["targets"]["random00"]["effect"]["n_rounds"]

    assert any("n_rounds" in error for error in errors_of(metrics))


def test_every_field_is_described():
    def undescribed(part, place):
        if isinstance(part, dict):
            if "type" in part and not part.get("description"):
                yield place
            for key, value in part.items():
                yield from undescribed(value, f"{place}/{key}")

    assert (
        list(undescribed({key: value for key, value in schema.schema().items() if key == "oneOf"} | dict(enumerate(schema.schema()["oneOf"])), ""))
        == []
    )
