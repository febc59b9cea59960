"""What each verb of the command line does: it reads its arguments, calls the stage, and says in one line what became of it.

Nothing heavy is imported before its verb is called, so that `memleak --help` answers at once.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from memleak import params as params_room
from memleak import plugins
from memleak.designs import Shard, shard_of
from memleak.params import Dataset, GivenModel, Recipe, Training, markdown


def fetch(a: argparse.Namespace) -> str:
    from memleak.data import stage

    facts = stage.fetch(Dataset(**json.loads(a.dataset)), a.output)
    return (
        f"{facts['name']}: {facts['n']} samples of shape {tuple(facts['shape'])}, {facts['n_classes']} classes, {facts['n_groups']} distinct contents"
    )


def plan(a: argparse.Namespace) -> str:
    audit = json.loads(a.audit)
    if audit["design"]["kind"] == "imported":
        from memleak.imports import stage as imported

        return f"{imported.plan(a.data, audit, a.output, a.samples)} models"
    from memleak.data import stage

    return f"{stage.plan(a.data, audit, a.output, a.samples)} models"


def features(a: argparse.Namespace) -> str:
    from memleak.data import stage

    return f"{stage.features(a.data, a.samples, a.output)} records"


def train(a: argparse.Namespace) -> str:
    from memleak.training import stage

    recipe = json.loads(a.recipe)
    done = stage.train(a.data, recipe["name"], Recipe(**recipe["recipe"]), _shard(a.shard), a.output, a.device, Training(**json.loads(a.training)))
    return f"{done['trained']} models trained, {done['adopted']} adopted, {done['seconds']:.1f} s"


def pretrain(a: argparse.Namespace) -> str:
    import tempfile

    from memleak import data
    from memleak.data import stage
    from memleak.training import devices, language

    dataset = _written(a.dataset, "dataset") if _is_key(a.dataset) else Dataset(**_mapping(a.dataset, "--dataset"))
    recipe = _written(a.recipe, "recipe") if _is_key(a.recipe) else params_room.recipe_of(_mapping(a.recipe, "--recipe"))
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "dataset.json"
        stage.fetch(dataset, prepared)
        done = language.pretrain(data.read(prepared), recipe, a.output, devices.prepare_torch(a.device), a.seed)
    return f"{a.output}: a base trained on {done['n']} texts ({done['n_tokens']:,} tokens), {done['train_loss']:.2f} nats a token in the last epoch"


def _is_key(text: str) -> bool:
    return not text.lstrip().startswith("{")


def _written(key: str, what: str) -> Any:
    """A data set or a recipe that stands in the params.yaml of this folder."""
    known: dict[str, Any] = getattr(params_room.load(Path("params.yaml")), f"{what}s")
    if key not in known:
        raise ValueError(f"--{what}: no {what} is called '{key}' in params.yaml{plugins.nearest(key, list(known))}")
    return known[key]


def query(a: argparse.Namespace) -> str:
    from memleak.signals import stage

    recipe = json.loads(a.recipe)
    n = stage.query(a.models, a.data, recipe["name"], Recipe(**recipe["recipe"]), _shard(a.shard), json.loads(a.query), a.output, a.device)
    return f"{n} answers"


def query_given(a: argparse.Namespace) -> str:
    from memleak.signals import stage

    known = json.loads(a.model)
    return f"{stage.query_given(known['name'], GivenModel(**known['model']), a.data, json.loads(a.query), a.output, a.device)} answers"


def score(a: argparse.Namespace) -> str:
    from memleak.attacks import stage

    return f"{stage.score(a.plan, a.samples, a.signals, a.population, json.loads(a.attack), a.output)} scores"


def threshold(a: argparse.Namespace) -> str:
    from memleak.metrics import stage

    return f"rules for {stage.threshold(a.plan, a.signals, a.scores, json.loads(a.attack), a.output)} targets"


def decide(a: argparse.Namespace) -> str:
    from memleak.metrics import stage

    return f"{stage.decide(a.plan, a.signals, a.thresholds, a.scores, a.output)} decisions"


def measure(a: argparse.Namespace) -> str:
    from memleak.metrics import stage

    metrics = stage.measure(
        a.plan, a.samples, a.signals, a.thresholds, a.scores, a.decisions, json.loads(a.headline), a.metrics, a.exposure, a.roc, a.plots,
        a.exposed, a.features[0] if a.features else None,
    )  # fmt: skip
    return f"{len(metrics['attacks'])} attacks measured"


def figure(a: argparse.Namespace) -> str:
    from memleak.report import stage

    more = {"score_paths": a.scores, "exposure_path": a.exposure, "data_path": a.records[0] if a.records else None}
    stage.figure(a.name, a.plan, a.signals, a.thresholds, a.metrics, a.roc, a.svg, a.png, **more)
    return f"{a.name} drawn"


def timings(a: argparse.Namespace) -> str:
    from memleak.report import stage

    return f"{stage.timings(a.benchmarks, a.models, a.audit, a.output)} jobs"


def report(a: argparse.Namespace) -> str:
    from memleak.report import stage

    return stage.report(a.metrics, a.plan, a.decisions, a.timings, a.figures, json.loads(a.params), a.output)


def summary(a: argparse.Namespace) -> str:
    from memleak.report import stage

    return stage.summary(a.metrics, json.loads(a.params), a.output)


def pdf(a: argparse.Namespace) -> str:
    from memleak.report import pdf

    output = a.output or a.page.with_suffix(".pdf")
    pdf.write(a.page, output)
    return f"written: {output}"


def index(a: argparse.Namespace) -> str:
    from memleak.report import stage

    return f"{stage.index(a.metrics, a.output, a.sweeps)} audits"


def frontier(a: argparse.Namespace) -> str:
    from memleak.metrics import frontier

    found = frontier.measure(json.loads(a.sweep), a.output, a.table)
    return f"{len(found['variants'])} variants compared"


def frontier_figure(a: argparse.Namespace) -> str:
    from memleak.report import stage

    stage.frontier_figure(a.name, a.frontier, a.svg, a.png)
    return f"{a.name} drawn"


def frontier_page(a: argparse.Namespace) -> str:
    from memleak.report import stage

    return stage.frontier(a.frontier, a.figures, a.output)


def budget(a: argparse.Namespace) -> str:
    from memleak import budget
    from memleak.budget.text import text

    found = budget.budget(a.params, a.cores, a.fpr, a.tpr, measure=a.measure, directory=a.directory)
    return json.dumps(found, indent=1, allow_nan=False) if a.json else text(found)


def stats(a: argparse.Namespace) -> str:
    from memleak.report import stage

    return stage.stats(a.scores, a.output, a.name or a.scores.stem)


def schema(a: argparse.Namespace) -> str:
    if a.metrics:
        from memleak.metrics import schema as of_metrics

        found, page = of_metrics.schema(), markdown.of_metrics
    else:
        found, page = params_room.schema(), markdown.of_params
    text = page(found) if a.markdown else json.dumps(found, indent=1) + "\n"
    if a.output:
        a.output.write_text(text)
        return f"schema written to {a.output}"
    return text


def gate(a: argparse.Namespace) -> tuple[str, int]:
    from memleak.report import gate

    limits = [gate.Limit(name, gate.bound_of(name, given)) for name in gate.LIMITS if (given := getattr(a, name)) is not None]
    if not limits:
        raise gate.GateError(f"name at least one limit, such as --max-tpr-at-1pct 0.05; there are {', '.join(f'--{name}' for name in gate.LIMITS)}")
    judged = [gate.judge(subject, limit, a.judge, a.attacks) for subject in gate.subjects(a.directory, a.audits, a.metrics) for limit in limits]
    told = json.dumps(gate.as_dict(judged, a.judge), indent=1, allow_nan=False) if a.json else gate.text(judged)
    return told, gate.exit_code(judged)


def status(a: argparse.Namespace) -> str:
    from memleak import pipeline
    from memleak.report import status

    if a.index is not None:
        return status.of_failed_run(a.directory, a.index)
    return status.text(a.directory, pipeline.is_locked(a.directory), pipeline.is_at_work(a.directory))


def single_point(a: argparse.Namespace) -> str:
    from memleak import pipeline

    return pipeline.single_point(a)


def audit(a: argparse.Namespace) -> str:
    from memleak import pipeline

    return str(pipeline.audit(a.params, cores=a.cores, directory=a.directory))


def init(a: argparse.Namespace) -> str:
    from memleak import pipeline

    written = ", ".join(str(path) for path in pipeline.start(a.folder)) or "nothing, for all of it is there"
    return f"written: {written}\nnow: cd {a.folder} && snakemake --cores all"


def tester(a: argparse.Namespace) -> str:
    from memleak.tester import MembershipTester, files

    train, test = files.read(a.train, a.column), files.read(a.test, a.column)
    others = None if a.population is None else files.read(a.population, a.column)["text"].tolist()
    device, is_local = None if a.device == "auto" else a.device, a.offline or None
    with MembershipTester(
        a.model, device, a.max_length, a.batch_size, reference=a.reference, tokenizer=a.tokenizer, seed=a.seed, local_files_only=is_local
    ) as audited:
        if audited.task in files.IN_PYTHON:
            raise ValueError(f"--model: {a.model} is asked as {audited.task}, and a file of texts cannot say that; audit it from Python")
        report = audited.run_attacks(
            train, test, attacks=a.attacks or "default", population=others, effort=a.effort, on_overlap=a.on_overlap, directory=a.directory,
            progress=a.progress or None,
        )  # fmt: skip
    said = [str(report), "", "What to do:", *(f"{i}. {one}" for i, one in enumerate(report.recommendations(), 1))]
    for path, write in ((a.output, report.to_html), (a.json, report.to_json), (a.csv, report.to_csv)):
        if path is not None:
            write(path)
            said.append(f"written: {path}")
    return "\n".join([*said, *([f"artefacts: {a.directory}"] if a.directory else [])])


def app(a: argparse.Namespace) -> str:
    from memleak.app import serve

    serve.serve(a.folder, a.port, a.address, not a.no_browser, a.max_upload_mb)
    return ""


def import_(a: argparse.Namespace) -> str:
    from memleak import imports, pipeline

    run = imports.read(a.source, a.kind, a.labels)
    written = [*imports.project(run, a.output), *pipeline.start(a.output)]
    said = [*run.notes, f"written: {', '.join(str(path) for path in written)}"]
    if a.output / "params.yaml" not in written:
        said.append(f"{a.output / 'params.yaml'} was there and stays; put this into it:\n{imports.params_text(run)}")
    said.append(f"now: cd {a.output} && snakemake --cores all")
    return f"{len(run.model_id)} models, {len(run.sample_id):,} samples\n" + "\n".join(said)


def export(a: argparse.Namespace) -> str:
    from memleak import plan
    from memleak.imports import export

    planned = plan.build(params_room.load(a.params)).audits
    if a.audit not in planned:
        raise ValueError(f"no audit is called '{a.audit}'{plugins.nearest(a.audit, list(planned))}")
    folder = Path("results/audits") / a.audit
    signals = [Path(path) for path in planned[a.audit].signals()]
    said = export.write(a.kind, folder / "plan.parquet", folder / "samples.parquet", signals, a.output)
    return "\n".join([f"written: {a.output}", *said])


def import_tasks(a: argparse.Namespace) -> str:
    import yaml

    from memleak import artefacts, tasks

    config, remarks = tasks.convert(a.tasks)
    text = "".join(f"# {remark}\n" for remark in remarks) + yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=140)
    if a.output is None:
        return text
    if a.output.exists():
        raise ValueError(f"{a.output}: is there already; name another file with --output")
    with artefacts.atomic(a.output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return "\n".join([*remarks, f"written: {a.output}"])


def check(a: argparse.Namespace) -> str:
    from memleak import contracts

    options = _mapping(a.options, "--options")
    if a.room == "attacks":
        from memleak.contracts import attacks

        return contracts.told(attacks.check(a.name, options), a.name)
    if a.room == "datasets":
        from memleak.contracts import datasets

        return contracts.told(datasets.check(a.name, a.source), a.name)
    if a.room == "releases":
        from memleak.contracts import releases

        return contracts.told(releases.check(a.name, options, a.classes), a.name)
    if a.room == "signals":
        from memleak.contracts import signals

        return contracts.told(signals.check(a.name, options, tuple(a.shape), a.classes), a.name)
    from memleak.training import devices

    if a.room == "models":
        from memleak.contracts import models

        if a.data is None:
            raise ValueError("a model is asked about records; name a data set, as in `--data my_data.py:get_dataset`")
        model = params_room.given_model_of({"name": a.name, **_mapping(a.model, "--model")})
        return contracts.told(models.check(model, a.data, a.source, devices.prepare_torch(a.device)), a.name)
    from memleak.contracts import trainers

    if a.architecture is None:
        raise ValueError("a trainer trains the architecture of a recipe; name it, as in `--architecture mlp`")
    fields = {"architecture": a.architecture, **_mapping(a.recipe, "--recipe"), "trainer": a.name, "trainer_options": options}
    recipe = params_room.recipe_of(fields)
    return contracts.told(trainers.check(recipe, tuple(a.shape), a.classes, devices.prepare_torch(a.device)), a.name)


def _mapping(text: str, option: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{option}: this is not JSON ({error}); write for example '{{\"epochs\": 3}}'") from None
    if not isinstance(found, dict):
        raise ValueError(f"{option}: expected a mapping such as '{{\"epochs\": 3}}', found {text}")
    return found


def tune(a: argparse.Namespace) -> str:
    from memleak.training import tune

    for said in tune.proposals(a.params, a.device, a.stacks, a.seconds):
        print(said, flush=True)
    return ""


def unlock(a: argparse.Namespace) -> str:
    from memleak import pipeline

    return "a lock that a killed run left behind was removed" if pipeline.unlock(Path.cwd()) else ""


def _shard(text: str) -> Shard:
    return shard_of(json.loads(text))
