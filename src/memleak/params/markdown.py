"""The schemas of params.yaml and of an audit's metrics as pages of Markdown: one table a part, one row a key.

`memleak schema --markdown` writes docs/params.md, and with `--metrics` docs/metrics.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

GENERATED = "<!-- Written by `memleak schema --markdown`; what stands here is changed in the code. -->"
OF_PARAMS = """
Every key, in the order in which you meet it. A key without a default may be left out; what then happens is part of its meaning. Ids (of data sets,
recipes, audits, attacks) have small letters, digits and `-`. A misspelt key is an error that names the nearest known one, and a value out of its
range one that says what was expected, before anything runs.

An editor checks and completes all of this where params.yaml begins with `# yaml-language-server: $schema=workflow/schemas/params.schema.json`
([the schema](../workflow/schemas/params.schema.json), which `memleak schema` prints too). How audits are run: [workflow.md](workflow.md).
"""
OF_METRICS = """
`results/metrics/AUDIT.json` holds every number of an audit: what its page shows, and what `memleak gate` and the app read. Rates are fractions from
0 to 1, losses and margins are in nats, times in seconds. [statistics.md](statistics.md) says how they are found. An *estimate* is a mapping of `value`,
`low` and `high`: the ends of its interval. `[]` is each entry of a list, `{id}` each key of a mapping. `memleak schema --metrics` prints
[the schema](../workflow/schemas/metrics.schema.json).
"""
EXAMPLES = {  # of the parts of params.yaml, which a test reads as such
    "Dataset": "name: cifar10\nsource: torchvision",
    "Recipe": "# a preset and what differs, or an architecture with epochs, batch_size and learning_rate\npreset: cifar-fast\nepochs: 20\nprecision: bfloat16",
    "Audit": "dataset: digits\nrecipe: digits-cnn\ndesign: {kind: halves, models: 64, pool: 1400}\nattacks:\n  lira: {name: lira}\n  rmia: {name: rmia, mode: offline}\nheadline: lira",
    "Training": "engine: ensemble\nstack: 16",
    "Part": "name: digits",
    "Text": "layers: 4\nwidth: 128\nheads: 4\nmax_length: 256",
    "EarlyStopping": "records: 200\npatience: 3",
    "Distillation": "records: 600\ntemperature: 2",
    "Selena": "models: 8\nleft_out: 3",
    "Stacking": "hidden: 64",
    "DPSGD": "epsilon: 8\ndelta: 1.0e-5\nclip: 1.0",
    "Pairs": "kind: pairs\ntargets: {random: 3, atypical: 2, mislabelled: 1}\nrounds: 24\nholdout_rounds: 16\nsubset_size: 500",
    "Halves": "kind: halves\nmodels: 64\npool: 1400",
    "Canaries": "kind: canaries\ncanaries: 300\nsubset_size: 700\nmodels: 4\nmislabelled: true",
    "Given": "kind: given\nmodel: {checkpoint: gpt2, max_length: 128}\nsample: 1000\noverlap: drop",
    "Sweep": "recipe:\n  dropout: {dropout: {each: [0.2, 0.5]}}\nrelease:\n  top3: [{top_k: 3}, {round: 2}]",
    "Epsilon": "delta: 1.0e-5\nconfidence: 0.95\nstrategy: bonferroni",
    "Lora": "rank: 8\nalpha: 16",
    "Targets": "random: 3\nmislabelled: 1\nindex: [17, null]   # null: a random one more",
    "GivenModel": "checkpoint: gpt2\nmax_length: 128",
    "Shadows": "kind: shadow\nmodels: 8\nparts: [shadow]",
    "ReferenceHalves": "kind: halves\nmodels: 16",
}
HEAD = "| key | what it takes | default | meaning |\n|---|---|---|---|"
HEAD_OF_METRICS = "| key | what it is | always there | meaning |\n|---|---|---|---|"
ESTIMATE = {"value", "low", "high"}
WORDS = {
    "integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "nothing", "object": "mapping",
    "array": "list",
}  # fmt: skip
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}

Schema = Mapping[str, Any]


def of_params(schema: Schema) -> str:
    """docs/params.md: all parts of params.yaml, then the options of every attack and of every step of a release."""
    audit = schema["$defs"]["Audit"]["properties"]
    attacks = next(iter(audit["attacks"]["patternProperties"].values()))["anyOf"]
    steps = [step for step in audit["release"]["items"]["anyOf"] if "const" in step.get("properties", {}).get("name", {})]
    return "\n".join(
        [
            page("params.yaml, key by key", OF_PARAMS, schema, EXAMPLES),
            _choices("Options of attacks", "attack", attacks, "attacks.md", "`references: N` beside them uses so many of the reference models."),
            _choices("Options of a release's steps", "step", steps, "defences.md#steps-of-a-release", "In order; `{top_k: 3}` is short for `{name: top_k, k: 3}`."),
        ]
    )  # fmt: skip


def of_metrics(schema: Schema) -> str:
    """docs/metrics.md: what the metrics of all audits have, then what those of some have beside it."""
    kinds = schema["oneOf"]
    first = kinds[0]["properties"]
    common = {key: field for key, field in first.items() if all(kind["properties"].get(key) == field for kind in kinds)}
    parts = [GENERATED, "# metrics.json, key by key", OF_METRICS.strip()]
    parts += ["## Of every audit", *_parts({**kinds[0], "properties": common})]
    for kind in kinds:
        named = " and ".join(kind["properties"]["kind"]["enum"])
        own = {key: field for key, field in kind["properties"].items() if key not in common}
        parts += [f"## Of {named}", f"{_sentence(kind)}.", *_parts({**kind, "properties": own})]
    return "\n\n".join(filter(None, parts)) + "\n"


def _parts(part: Schema) -> Iterator[str]:
    """A table of the keys that stand alone, then one of each mapping."""
    fields = part["properties"]
    alone = {key: field for key, field in fields.items() if not _inner(field)[1]}
    yield _table({**part, "properties": alone}, HEAD_OF_METRICS)
    for key, field in fields.items():
        if key not in alone:
            yield from (f"### {key}", _sentence(field), _table({"properties": {key: field}}, HEAD_OF_METRICS, without=key))


def page(title: str, introduction: str, schema: Schema, examples: Mapping[str, str] | None = None) -> str:
    """A schema as a page: its own keys, then every part that it names, with an example where there is one."""
    parts = [GENERATED, f"# {title}", introduction.strip(), _table(schema)]
    for name in _named(schema):
        part = schema["$defs"][name]
        parts += [f"## {name}", _sentence(part), _example((examples or {}).get(name)), _table(part)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _choices(title: str, kind: str, entries: list[Schema], where: str, introduction: str) -> str:
    """Entries that are told apart by their name: a heading and a table each, but for what all of them have."""
    parts = [f"## {title}", f"{introduction} What each is, and when to use it: [{where.partition('#')[0]}]({where})."]
    for entry in entries:
        own = {key: field for key, field in entry["properties"].items() if key not in ("name", "references")}
        parts += [f"### {kind} {entry['title']}", _sentence(entry), _table({**entry, "properties": own})]
    return "\n\n".join(filter(None, parts)) + "\n"


def _named(schema: Schema) -> list[str]:
    """The parts in the order in which a reader meets them, each once."""
    found: list[str] = []

    def walk(part: Any) -> None:
        if isinstance(part, Mapping):
            name = str(part.get("$ref", "")).rpartition("/")[2]
            if name and name not in found and schema["$defs"][name].get("properties"):
                found.append(name)
            for key, value in part.items():
                walk(value if key != "$defs" else None)
        elif isinstance(part, list):
            for value in part:
                walk(value)

    walk(schema)
    for name in found:  # grows while it is walked through: parts of parts come after the parts
        walk(schema["$defs"][name])
    return found


def _table(part: Schema, head: str = HEAD, without: str | None = None) -> str:
    yes = "yes" if head == HEAD_OF_METRICS else "*required*"
    rows = [_row(key, field, yes if is_there else _default(field)) for key, field, is_there in _fields(part) if key != without]
    return "\n".join([head, *rows]) if rows else ""


def _fields(part: Schema, before: str = "") -> Iterator[tuple[str, Schema, bool]]:
    """Keys and what they take; those of a mapping inside with a dot."""
    for key, field in part.get("properties", {}).items():
        yield before + key, field, key in part.get("required", ())
        where, inner = _inner(field)
        yield from _fields(inner, f"{before}{key}{where}.")


def _inner(field: Schema) -> tuple[str, Schema]:
    """The mapping that a field is, or that each of its entries is, and how these are written; nothing where it has a table of its own, or none."""
    if field.get("properties"):
        own = {key: inner for key, inner in field["properties"].items() if not (_is_estimate(field) and key in ESTIMATE)}
        return "", {**field, "properties": own} if own else {}
    kinds = _kinds(field)
    if len(kinds) == 1:
        return _inner(kinds[0])
    for where, below in (("[]", field.get("items")), *(("{id}", each) for each in _each(field))):
        if isinstance(below, Mapping):
            more, found = _inner(below)
            if found:
                return (where if where == "[]" else f".{where}") + more, found
    return "", {}


def _each(field: Schema) -> list[Any]:
    """What the keys of a mapping stand for, where they are anybody's."""
    return [*field.get("patternProperties", {}).values(), field.get("additionalProperties")]


def _is_estimate(field: Schema) -> bool:
    """Whether a mapping is a value with its interval."""
    return field.get("properties", {}).keys() >= ESTIMATE


def _kinds(field: Schema) -> list[Schema]:
    """The kinds of value that a field may be, but for none at all."""
    return [kind for several in ("anyOf", "oneOf") for kind in field.get(several, ()) if kind.get("type") != "null"]


def _row(key: str, field: Schema, default: str) -> str:
    cells = (f"`{key}`", _takes(field), default, field.get("description", ""))
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


def _default(field: Schema) -> str:
    value = field.get("default")
    return "" if value is None or isinstance(value, dict) else _code(value)


def _code(value: Any) -> str:
    """As it is written in YAML: texts without quotes."""
    return f"`{json.dumps(value)}`".replace('"', "")


def _takes(field: Schema) -> str:
    """What may stand there, in words: a type and its range, or a link to the part that it is."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})" if name != "JsonValue" else "anything"
    if "const" in field or "enum" in field:
        return ", ".join(map(_code, field.get("enum", [field.get("const")])))
    if _is_estimate(field):
        return "estimate"
    if kinds := _kinds(field):
        return " or ".join(dict.fromkeys(map(_takes, kinds)))
    kind = field.get("type", "")
    if isinstance(kind, list):
        return " or ".join(_takes({**field, "type": one}) for one in kind if one != "null")
    return f"{WORDS.get(kind, 'anything')}{_entries(field)} {_range(field)}".strip()


def _entries(field: Schema) -> str:
    """What a list holds, or a mapping from ids."""
    of = field.get("items") or next(filter(None, _each(field)), None)
    if not isinstance(of, Mapping) or len(of.get("anyOf", ())) > 4:
        return ""
    if field["type"] == "array":
        return f" of {_takes(of).replace('number', 'numbers').replace('mapping', 'mappings').replace('estimate', 'estimates')}"
    return f" from ids to {_takes(of)}"


def _range(field: Schema) -> str:
    bounds = [f"{sign} {field[key]:g}" for key, sign in BOUNDS.items() if key in field]
    return ", ".join(bounds + ([f"a multiple of {field['multipleOf']}"] if "multipleOf" in field else []))


def _sentence(part: Schema) -> str:
    """The first paragraph of a description, as one line."""
    text = " ".join(part.get("description", "").split("\n\n")[0].split())
    return text[:1].upper() + text[1:]


def _example(text: str | None) -> str:
    return f"```yaml\n{text}\n```" if text else ""
