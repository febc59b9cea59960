"""Documents and code say the same: the schema, params.yaml, the README, the examples."""

from __future__ import annotations

import json
import re
from typing import get_args

import pytest
import yaml

from memleak import cli, params, plan, plugins


def test_the_committed_schema_is_that_of_the_code(project):
    committed = json.loads((project / "workflow/schemas/params.schema.json").read_text())

    assert committed == params.schema(), "run: memleak schema --output workflow/schemas/params.schema.json"


def test_the_schema_accepts_params_yaml_and_refuses_a_misspelt_key(project):
    jsonschema = pytest.importorskip("jsonschema")
    config = yaml.safe_load((project / "params.yaml").read_text())
    jsonschema.validate(config, params.schema())

    config["audits"]["digits-single-point"]["attacks"]["np-kde"]["fits"] = "kde"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, params.schema())


def test_every_params_file_is_valid_and_plans(params_files, monkeypatch):
    for path in params_files:
        monkeypatch.chdir(path.parent)  # as `snakemake --directory` does
        built = plan.build(params.load(path))
        assert built.models(), path
        assert re.match(r"# yaml-language-server: \$schema=(\S+)", path.read_text()), path
        schema = path.parent / re.match(r"# yaml-language-server: \$schema=(\S+)", path.read_text())[1]
        assert schema.is_file(), path


@pytest.mark.parametrize("example", ["defences-digits", "defences-cifar10"])
def test_the_schema_accepts_sweeps_and_short_forms_of_a_release(project, example):
    jsonschema = pytest.importorskip("jsonschema")
    config = yaml.safe_load((project / f"examples/{example}/params.yaml").read_text())
    jsonschema.validate(config, params.schema())

    sweep = next(audit["sweep"] for audit in config["audits"].values() if "sweep" in audit)
    sweep["releases"] = {"few": [{"top_k": 3}]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, params.schema())


def test_in_the_example_of_defences_a_release_trains_nothing(project):
    """A sweep of releases asks the models of the recipe that the other sweep has without a defence."""
    built = plan.build(params.load(project / "examples/defences-digits/params.yaml"))
    models = {name: set(audit.models()) for name, audit in built.audits.items()}
    released = set().union(*(models[variant.audit] for variant in built.params.sweeps["release"].values()))
    trained = [models[variant.audit] for variant in built.params.sweeps["training"].values()]

    assert released == models["training-none"]
    assert len(set().union(*trained)) == sum(map(len, trained))  # every other recipe has models of its own
    assert len(built.models()) == sum(map(len, trained)) + len(models["dp-verified"])


def test_the_params_of_the_readme_are_valid(project):
    text = (project / "README.md").read_text()
    blocks = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "audits:" in block]

    assert blocks
    for block in blocks:
        params.parse(block, "README.md")


def test_the_readme_names_every_defence_with_its_options_and_the_variants_of_its_sweep(project):
    text = (project / "README.md").read_text().partition("\n## Defences\n")[2].partition("\n## ")[0]
    cells = {
        head: re.findall(r"^\| (`.*?) \|", text.partition(f"| {head} | |")[2].partition("\n\n")[0], re.MULTILINE)
        for head in ("field of a recipe", "step of a release")
    }
    fields = dict(re.findall(r"`(\w+)(?:: \{(.*?)\})?`", " ".join(cells["field of a recipe"])))
    nested = {name for name, field in params.Recipe.model_fields.items() if "memleak.params.defences" in str(field.annotation)}

    plain = {"dropout", "weight_decay", "label_smoothing", "epochs", "mixup", "flooding", "relaxed_loss"}

    assert nested | plain <= fields.keys() <= params.Recipe.model_fields.keys()
    for name in nested:
        options = next(kind for kind in get_args(params.Recipe.model_fields[name].annotation) if kind is not type(None)).model_fields
        assert set(re.split(r", | or ", fields[name])) == set(options), name
    assert {re.search(r"\w+", cell)[0] for cell in cells["step of a release"]} == set(plugins.BUILT_IN["releases"])
    sweep = params.parse(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0], "README.md").sweeps["defences"]
    named = set(re.findall(r"`(defences-[a-z0-9-]+)`", text))
    assert len(named) >= 3 and named <= {variant.audit for variant in sweep.values()}


def test_files_and_options_that_the_readme_names_exist(project):
    text = (project / "README.md").read_text()
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (project / link).exists(), link
    for folder in re.findall(r"--directory (\S+)", text):
        assert (project / folder / "params.yaml").is_file(), folder
    known = {option for action in _actions() for option in action.option_strings}
    for line in re.findall(r"memleak single-point (.*)", text):
        assert set(re.findall(r"--[a-z-]+", line)) <= known | {"--help"}


def _actions():
    verbs = next(action for action in cli.parser()._actions if hasattr(action, "choices") and action.choices)
    return [action for verb in verbs.choices.values() for action in verb._actions]
