"""Documents and code say the same: the schema, params.yaml, the README, the examples."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from memleak import cli, params, plan, plugins
from memleak.params import audits, datasets, defences, designs, markdown, recipes, sweeps, texts

ROOT = Path(__file__).parents[2]
PARAMS = (audits, datasets, defences, designs, recipes, sweeps, texts)  # where the parts of params.yaml are defined


def prose(text):
    """A document without its blocks of code."""
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


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


@pytest.fixture(scope="module")
def documents():
    """README.md, the pages of docs/ and the READMEs of examples, by their paths."""
    paths = (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*/README.md"))
    return {path: path.read_text(encoding="utf-8") for path in sorted(paths)}


def test_the_params_of_the_documents_are_valid(documents):
    blocks = [
        (path.name, block) for path, text in documents.items() for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "audits:" in block
    ]

    assert len(blocks) >= 4
    for name, block in blocks:
        params.parse(block, name)


def test_every_example_of_params_md_is_what_it_stands_for():
    models = {
        kind.__name__: kind for module in PARAMS for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, params.Frozen)
    }

    parts = {name for name, part in params.schema()["$defs"].items() if part.get("properties")}
    assert parts - markdown.EXAMPLES.keys() == {"Imported"}  # whose file must exist
    for name, text in markdown.EXAMPLES.items():
        assert models[name](**yaml.safe_load(text)).model_fields_set, name


@pytest.mark.parametrize(("name", "command"), [("params", "schema"), ("metrics", "schema --metrics")])
def test_the_pages_of_keys_are_written_from_the_schemas(project, tmp_path, name, command):
    page = tmp_path / "page.md"
    assert cli.main([*command.split(), "--markdown", "--output", str(page)]) == 0

    assert (project / f"docs/{name}.md").read_text() == page.read_text(), f"run: memleak {command} --markdown --output docs/{name}.md"


def test_params_md_says_what_every_key_means():
    """The tables of attacks are told apart by a link; those of params.yaml itself have a meaning in every row."""
    page = markdown.of_params(params.schema()).partition("\n## Options of attacks")[0]
    rows = re.findall(r"^\| `(.*?)` \| (.*) \| (.*?) \| (.*) \|$", page, re.MULTILINE)

    assert len(rows) > 100
    assert [key for key, takes, _, meaning in rows if not takes.strip() or not meaning.strip()] == []


def test_attacks_md_has_every_attack_with_its_options(project):
    sections = {part.partition("\n")[0]: part for part in (project / "docs/attacks.md").read_text().split("\n### ")[1:]}

    assert sections.keys() == plugins.BUILT_IN["attacks"].keys()
    for name, text in sections.items():
        options = plugins.module_of("attacks", name).Options.model_fields
        assert [option for option in options if f"`{option}" not in text] == [], name


def test_defences_md_names_every_defence_with_its_options_and_the_variants_of_its_sweep(project):
    text = (project / "docs/defences.md").read_text()
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
    sweep = params.parse(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0], "defences.md").sweeps["defences"]
    named = set(re.findall(r"`(defences-[a-z0-9-]+)`", text))
    assert len(named) >= 3 and named <= {variant.audit for variant in sweep.values()}


def test_links_lead_to_files_and_headings_that_exist(documents):
    dead = []
    for path, text in documents.items():
        for link in re.findall(r"\]\((?!https?://)([^)\s]+)\)", prose(text)):
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
                dead.append(f"{path.name}: {link}")
    assert dead == []


def test_every_page_of_docs_is_reached_from_the_readme(project):
    text = (project / "README.md").read_text()

    assert [path.name for path in (project / "docs").glob("*.md") if f"(docs/{path.name})" not in text] == []


def test_pictures_are_small_and_say_what_they_show(documents):
    shown = [(path.parent / name, words) for path, text in documents.items() for words, name in re.findall(r"!\[([^\]]*)\]\((.*?)\)", text)]

    assert shown and {path.resolve() for path, _ in shown} == set((ROOT / "docs/images").iterdir())
    for path, words in shown:
        assert path.stat().st_size < 150_000 and len(words.split()) >= 8, path.name


def test_no_sentence_stands_in_two_documents(documents):
    """Sentences of at least ten words; commands may be needed twice."""
    seen, twice = {}, []
    for path, text in documents.items():
        for sentence in re.split(r"(?<=[.:?]) |\n\n|\n- |\|", prose(text)):
            words = " ".join(sentence.split())
            if len(words.split()) >= 10 and seen.setdefault(words, path) != path and "written by" not in words.lower():
                twice.append(f"{path.name} and {seen[words].name}: {words}")
    assert twice == []


def test_examples_and_options_that_the_documents_name_exist(project, documents):
    options = {verb: {option for action in parser._actions for option in action.option_strings} for verb, parser in _verbs().items()}
    wrong = []
    for path, text in documents.items():
        wrong += [
            f"{path.name}: {folder}" for folder in re.findall(r"--directory (examples\S+)", text) if not (project / folder / "params.yaml").is_file()
        ]
        for verb, rest in re.findall(r"memleak ([a-z-]+)((?: [^`\n#;|]*)?)", text):
            if verb in options:
                wrong += [f"{path.name}: {verb} {option}" for option in set(re.findall(r"(?<=\s)--[a-z0-9.-]+", rest)) - options[verb]]
    assert wrong == []


def anchors(text):
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).replace("`", "")).strip().lower().replace(" ", "-")
        for heading in headings
    }


def _verbs():
    return next(action for action in cli.parser()._actions if hasattr(action, "choices") and action.choices).choices
