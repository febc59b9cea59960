"""Documents and code say the same: the schema, params.yaml, the README, the examples."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from memleak import cli, params, plan


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


def test_every_params_file_is_valid_and_plans(project):
    files = [project / "params.yaml", *sorted(project.glob("examples/**/params.yaml"))]
    files = [path for path in files if "classic-tasks" not in path.parts]  # plug-ins of its own folder: test_classic_tasks
    for path in files:
        built = plan.build(params.load(path))
        assert built.models(), path
        assert re.match(r"# yaml-language-server: \$schema=(\S+)", path.read_text()), path
        schema = path.parent / re.match(r"# yaml-language-server: \$schema=(\S+)", path.read_text())[1]
        assert schema.is_file(), path


def test_the_params_of_the_readme_are_valid(project):
    text = (project / "README.md").read_text()
    blocks = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "audits:" in block]

    assert blocks
    for block in blocks:
        params.parse(block, "README.md")


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
