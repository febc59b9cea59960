"""The command line: one verb a stage, as the rules call them, and `single-point` and `audit` for a whole run.

Nothing heavy is imported before its verb is called, so that `memleak --help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from memleak import params as params_room
from memleak import plugins
from memleak.designs import Shard, shard_of
from memleak.params import Dataset, GivenModel, Recipe, Training


def _fetch(a: argparse.Namespace) -> str:
    from memleak.data import stage

    facts = stage.fetch(Dataset(**json.loads(a.dataset)), a.output)
    return (
        f"{facts['name']}: {facts['n']} samples of shape {tuple(facts['shape'])}, {facts['n_classes']} classes, {facts['n_groups']} distinct contents"
    )


def _plan(a: argparse.Namespace) -> str:
    audit = json.loads(a.audit)
    if audit["design"]["kind"] == "imported":
        from memleak.imports import stage as imported

        return f"{imported.plan(a.data, audit, a.output, a.samples)} models"
    from memleak.data import stage

    return f"{stage.plan(a.data, audit, a.output, a.samples)} models"


def _features(a: argparse.Namespace) -> str:
    from memleak.data import stage

    return f"{stage.features(a.data, a.samples, a.output)} records"


def _train(a: argparse.Namespace) -> str:
    from memleak.training import stage

    recipe = json.loads(a.recipe)
    done = stage.train(a.data, recipe["name"], Recipe(**recipe["recipe"]), _shard(a.shard), a.output, a.device, Training(**json.loads(a.training)))
    return f"{done['trained']} models trained, {done['adopted']} adopted, {done['seconds']:.1f} s"


def _query(a: argparse.Namespace) -> str:
    from memleak.signals import stage

    recipe = json.loads(a.recipe)
    n = stage.query(a.models, a.data, recipe["name"], Recipe(**recipe["recipe"]), _shard(a.shard), json.loads(a.query), a.output, a.device)
    return f"{n} answers"


def _query_given(a: argparse.Namespace) -> str:
    from memleak.signals import stage

    known = json.loads(a.model)
    return f"{stage.query_given(known['name'], GivenModel(**known['model']), a.data, json.loads(a.query), a.output, a.device)} answers"


def _score(a: argparse.Namespace) -> str:
    from memleak.attacks import stage

    return f"{stage.score(a.plan, a.samples, a.signals, a.population, json.loads(a.attack), a.output)} scores"


def _threshold(a: argparse.Namespace) -> str:
    from memleak.metrics import stage

    return f"rules for {stage.threshold(a.plan, a.signals, a.scores, json.loads(a.attack), a.output)} targets"


def _decide(a: argparse.Namespace) -> str:
    from memleak.metrics import stage

    return f"{stage.decide(a.plan, a.signals, a.thresholds, a.scores, a.output)} decisions"


def _measure(a: argparse.Namespace) -> str:
    from memleak.metrics import stage

    metrics = stage.measure(
        a.plan, a.samples, a.signals, a.thresholds, a.scores, a.decisions, json.loads(a.headline), a.metrics, a.exposure, a.roc, a.plots,
        a.exposed, a.features[0] if a.features else None,
    )  # fmt: skip
    return f"{len(metrics['attacks'])} attacks measured"


def _figure(a: argparse.Namespace) -> str:
    from memleak.report import stage

    more = {"score_paths": a.scores, "exposure_path": a.exposure, "data_path": a.records[0] if a.records else None}
    stage.figure(a.name, a.plan, a.signals, a.thresholds, a.metrics, a.roc, a.svg, a.png, **more)
    return f"{a.name} drawn"


def _timings(a: argparse.Namespace) -> str:
    from memleak.report import stage

    return f"{stage.timings(a.benchmarks, a.models, a.audit, a.output)} jobs"


def _report(a: argparse.Namespace) -> str:
    from memleak.report import stage

    return stage.report(a.metrics, a.plan, a.decisions, a.timings, a.figures, json.loads(a.params), a.output)


def _summary(a: argparse.Namespace) -> str:
    from memleak.report import stage

    return stage.summary(a.metrics, json.loads(a.params), a.output)


def _index(a: argparse.Namespace) -> str:
    from memleak.report import stage

    return f"{stage.index(a.metrics, a.output, a.sweeps)} audits"


def _frontier(a: argparse.Namespace) -> str:
    from memleak.metrics import frontier

    found = frontier.measure(json.loads(a.sweep), a.output, a.table)
    return f"{len(found['variants'])} variants compared"


def _frontier_figure(a: argparse.Namespace) -> str:
    from memleak.report import stage

    stage.frontier_figure(a.name, a.frontier, a.svg, a.png)
    return f"{a.name} drawn"


def _frontier_page(a: argparse.Namespace) -> str:
    from memleak.report import stage

    return stage.frontier(a.frontier, a.figures, a.output)


def _budget(a: argparse.Namespace) -> str:
    from memleak import budget
    from memleak.budget.text import text

    found = budget.budget(a.params, a.cores, a.fpr, a.tpr, measure=a.measure, directory=a.directory)
    return json.dumps(found, indent=1, allow_nan=False) if a.json else text(found)


def _stats(a: argparse.Namespace) -> str:
    from memleak.report import stage

    return stage.stats(a.scores, a.output, a.name or a.scores.stem)


def _schema(a: argparse.Namespace) -> str:
    text = json.dumps(params_room.schema(), indent=1) + "\n"
    if a.output:
        a.output.write_text(text)
        return f"schema written to {a.output}"
    return text


def _single_point(a: argparse.Namespace) -> str:
    from memleak import pipeline

    return pipeline.single_point(a)


def _audit(a: argparse.Namespace) -> str:
    from memleak import pipeline

    return str(pipeline.audit(a.params, cores=a.cores, directory=a.directory))


def _init(a: argparse.Namespace) -> str:
    from memleak import pipeline

    written = ", ".join(str(path) for path in pipeline.start(a.folder)) or "nothing, for all of it is there"
    return f"written: {written}\nnow: cd {a.folder} && snakemake --cores all"


def _import(a: argparse.Namespace) -> str:
    from memleak import imports, pipeline

    run = imports.read(a.source, a.kind, a.labels)
    written = [*imports.project(run, a.output), *pipeline.start(a.output)]
    said = [*run.notes, f"written: {', '.join(str(path) for path in written)}"]
    if a.output / "params.yaml" not in written:
        said.append(f"{a.output / 'params.yaml'} was there and stays; put this into it:\n{imports.params_text(run)}")
    said.append(f"now: cd {a.output} && snakemake --cores all")
    return f"{len(run.model_id)} models, {len(run.sample_id):,} samples\n" + "\n".join(said)


def _export(a: argparse.Namespace) -> str:
    from memleak import plan
    from memleak.imports import export

    planned = plan.build(params_room.load(a.params)).audits
    if a.audit not in planned:
        raise ValueError(f"no audit is called '{a.audit}'{plugins.nearest(a.audit, list(planned))}")
    folder = Path("results/audits") / a.audit
    signals = [Path(path) for path in planned[a.audit].signals()]
    said = export.write(a.kind, folder / "plan.parquet", folder / "samples.parquet", signals, a.output)
    return "\n".join([f"written: {a.output}", *said])


def _import_tasks(a: argparse.Namespace) -> str:
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


def _check(a: argparse.Namespace) -> str:
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


def _tune(a: argparse.Namespace) -> str:
    from memleak.training import tune

    for said in tune.proposals(a.params, a.device, a.stacks, a.seconds):
        print(said, flush=True)
    return ""


def _unlock(a: argparse.Namespace) -> str:
    from memleak import pipeline

    return "a lock that a killed run left behind was removed" if pipeline.unlock(Path.cwd()) else ""


def _shard(text: str) -> Shard:
    return shard_of(json.loads(text))


def parser() -> argparse.ArgumentParser:
    """All verbs and their options."""
    root = argparse.ArgumentParser(
        prog="memleak", description="What can someone learn about who was in the training data of this model?",
        epilog="A whole audit: `snakemake --cores all`, `memleak audit params.yaml`, or `memleak single-point`. The other verbs are its stages.",
    )  # fmt: skip
    verbs = root.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, function: Any, help_: str, *paths: str, texts: tuple[str, ...] = (), lists: tuple[str, ...] = ()) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=help_, description=help_)
        for path in paths:
            added.add_argument(f"--{path}", type=Path, required=True)
        for text in texts:
            added.add_argument(f"--{text}", required=True, help="JSON")
        for list_ in lists:
            added.add_argument(f"--{list_}", type=Path, nargs="*", default=[])
        added.set_defaults(function=function)
        return added

    whole = verb("single-point", _single_point, "the classic run: train with and without one record, and decide")
    whole.add_argument("--dataset", default="digits", help="digits, cifar10, cifar100 or file.py:function (default: %(default)s)")
    whole.add_argument("--data-dir", help="torchvision, or a folder of Parquet files (default: the data set's own source)")
    whole.add_argument("--output-dir", type=Path, default=Path("single-point"), help="where params.yaml and results go (default: %(default)s)")
    whole.add_argument("--target-index", type=int, nargs="*", default=[], help="rows to audit (default: a random one)")
    whole.add_argument("--kind", choices=("random", "atypical", "mislabelled"), default="random", help="of targets, where no index is given")
    whole.add_argument("--n-targets", type=int, default=1, help="number of targets, where no index is given (default: %(default)s)")
    for option, type_, default, meaning in (
        ("rounds", int, 25, "paired trainings to fit"), ("holdout-rounds", int, 1, "fresh pairs to decide on"),
        ("subset-size", int, 500, "training records of one model"), ("epochs", int, 40, "passes over them"),
        ("batch-size", int, 64, "records of a step"), ("learning-rate", float, 0.05, "of the optimiser"),
        ("alpha", float, 0.05, "false-positive rate of the decision"), ("seed", int, 0, "of everything drawn"),
    ):  # fmt: skip
        whole.add_argument(f"--{option}", type=type_, default=default, help=f"{meaning} (default: %(default)s)")
    whole.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd")
    whole.add_argument("--architecture", default="small_cnn", help="small_cnn, mlp or file.py:function (default: %(default)s)")
    whole.add_argument("--fit", choices=("normal", "kde", "empirical"), default="normal")
    whole.add_argument("--signal", choices=("margin", "loss"), default="margin")
    whole.add_argument("--no-figures", action="store_true", help="draw none")
    whole.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    whole.add_argument("--cores", default="all")

    one = verb("audit", _audit, "run every audit of a params.yaml (through Snakemake)")
    one.add_argument("params", type=Path, help="a params.yaml")
    one.add_argument("--directory", type=Path, help="where results go (default: beside params.yaml)")
    one.add_argument("--cores", default="all")

    check = verb("check", _check, "does a plug-in of your own hold the laws that an audit rests on?")
    check.add_argument("room", choices=("attacks", "datasets", "models", "releases", "signals", "trainers"))
    check.add_argument("name", help="file.py:function")
    check.add_argument("--source", help="given to a data set's function")
    check.add_argument("--data", help="for a model: the data set whose records it is asked about, as `name:` in params.yaml")
    check.add_argument("--model", default="{}", help="for a model: further fields of `model:` in params.yaml, such as weights and output: JSON")
    check.add_argument("--options", default="{}", help="trainer_options of a recipe, or the options of an attack, release or signal: JSON")
    check.add_argument("--architecture", help="of the recipe, for a trainer: a built-in name or file.py:function")
    check.add_argument("--recipe", default="{}", help="other fields of the recipe, such as channels, for a trainer: JSON")
    check.add_argument("--shape", type=int, nargs="+", default=[16, 16, 1], help="of a record: H W C of images, or F of features (default: 16 16 1)")
    check.add_argument("--classes", type=int, default=4, help="of the made-up data (default: %(default)s)")
    check.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")

    costs = verb("budget", _budget, "what a params.yaml will cost and be able to say, before anything runs")
    costs.add_argument("params", type=Path, nargs="?", default=Path("params.yaml"), help="a params.yaml (default: %(default)s)")
    costs.add_argument("--directory", type=Path, help="where results are or will go (default: beside params.yaml)")
    costs.add_argument("--cores", default="all")
    costs.add_argument("--fpr", type=float, help="false-positive rate that is to be certified (default: each audit's alpha)")
    costs.add_argument("--tpr", type=float, help="true-positive rate that is to be shown (default: what a verdict LOW takes)")
    costs.add_argument("--measure", action="store_true", help="time a few steps of recipes of which no model was trained on this device")
    costs.add_argument("--json", action="store_true", help="print JSON")

    verb("init", _init, "begin a project of your own: params.yaml, Snakefile, profile").add_argument("folder", type=Path)
    importing = verb("import", _import, "begin an audit of models that another tool trained and asked")
    importing.add_argument("source", type=Path, help="a folder of LiRA's experiments or of Privacy Meter, or a Parquet or CSV file")
    importing.add_argument("--kind", choices=("lira", "privacy-meter", "table"), help="found out by looking where it is left out")
    importing.add_argument("--labels", type=Path, help="a .npy file of labels, where the run has none")
    importing.add_argument("--output", type=Path, default=Path("imported"), help="folder of the new project (default: %(default)s)")
    exporting = verb("export", _export, "write an audit's models and signals for another tool")
    exporting.add_argument("audit", help="a key of audits in params.yaml; its results must be there")
    exporting.add_argument("--kind", choices=("lira", "privacy-meter", "table"), default="table")
    exporting.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    exporting.add_argument("--output", type=Path, required=True, help="a folder, or for a table a .parquet or .csv file")
    tasks = verb("import-tasks", _import_tasks, "turn a classic YAML list of tasks (BASELINE, ML-LEAK, LABEL-ONLY) into params.yaml")
    tasks.add_argument("tasks", type=Path, help="such as mem_inf.yaml")
    tasks.add_argument("--output", type=Path, help="file to write (default: print it)")
    verb("fetch", _fetch, "prepare a data set", "output", texts=("dataset",))
    verb("plan", _plan, "draw who trains on what", "data", "output", "samples", texts=("audit",))
    verb("features", _features, "what can be seen of the audited records without a model, for the blind control", "data", "samples", "output")
    train = verb("train", _train, "train one shard of models", "data", "output", texts=("recipe", "shard"))
    query = verb("query", _query, "ask a shard's models about the audited samples", "models", "data", "output", texts=("recipe", "shard", "query"))
    train.add_argument("--training", default="{}", help="JSON: engine, stack, checkpoint_minutes")
    query_given = verb("query-given", _query_given, "ask a model of your own about the audited samples", "data", "output", texts=("model", "query"))
    for heavy in (train, query, query_given):
        heavy.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    verb("score", _score, "what an attack concludes", "plan", "samples", "output", texts=("attack",), lists=("signals", "population"))
    threshold = verb("threshold", _threshold, "fit, and set the rule that keeps alpha", "plan", "output", texts=("attack",), lists=("signals",))
    threshold.add_argument("--scores", type=Path, help="of the attack, unless it decides on the signal itself")
    verb("decide", _decide, "apply the rules to models that they were not fitted on", "plan", "output", lists=("signals", "thresholds", "scores"))
    verb(
        "measure",
        _measure,
        "rates, tests and controls",
        "plan",
        "samples",
        "decisions",
        "metrics",
        "exposure",
        "roc",
        "plots",
        "exposed",
        texts=("headline",),
        lists=("signals", "thresholds", "scores", "features"),
    )
    figure = verb("figure", _figure, "draw one figure", "plan", "metrics", "roc", "exposure", "svg", "png", lists=("signals", "thresholds", "scores"))
    figure.add_argument(
        "--name", required=True, help="overview, training or a target's id; where every model is audited: roc, scores, exposure, training"
    )
    figure.add_argument("--records", type=Path, nargs="*", default=[], help="the data set's description, if records may be shown")
    timings = verb("timings", _timings, "collect the time that every job took", "benchmarks", "output")
    timings.add_argument("--models", nargs="*", default=[], help="names of the audit's recipe and given model")
    timings.add_argument("--audit", required=True)
    verb("report", _report, "write the page of an audit", "metrics", "plan", "decisions", "timings", "output", texts=("params",), lists=("figures",))
    verb("summary", _summary, "write the one-page text report", "metrics", "output", texts=("params",))
    verb("index", _index, "write the page over all audits", "output", lists=("metrics", "sweeps"))
    verb("frontier", _frontier, "what each defence of a sweep costs and protects", "output", "table", texts=("sweep",))
    panel = verb("frontier-figure", _frontier_figure, "draw one figure of a sweep", "frontier", "svg", "png")
    panel.add_argument("--name", required=True, choices=("frontier", "gap"))
    verb("frontier-page", _frontier_page, "write the page of a sweep", "frontier", "output", lists=("figures",))
    stats = verb("stats", _stats, "figures with intervals, and a page, for anybody's scores")
    stats.add_argument(
        "scores", type=Path, help="Parquet or CSV with score (higher: rather a member) and is_member; optionally target_id and sample_id"
    )
    stats.add_argument("--output", type=Path, default=Path("stats"), help="folder to write (default: %(default)s)")
    stats.add_argument("--name", help="what the scores are called (default: the file's name)")
    tune = verb("tune", _tune, "measure which engine trains the recipes of a params.yaml fastest here, and propose it")
    tune.add_argument("params", type=Path, nargs="?", default=Path("params.yaml"), help="default: %(default)s; its data must be prepared")
    tune.add_argument("--stacks", type=int, nargs="+", default=[2, 4, 8, 16, 32], help="models at once to try (default: %(default)s)")
    tune.add_argument("--seconds", type=float, default=1.0, help="that each of three timings of a stack takes (default: %(default)s)")
    tune.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    verb("unlock", _unlock, "remove the lock of a killed run, unless a run is at work here")
    verb("schema", _schema, "print the JSON schema of params.yaml").add_argument("--output", type=Path)
    return root


def _end_with(process: int) -> None:
    """End this process soon after the workflow that started it is gone, so that a killed workflow leaves none behind."""

    import psutil

    try:
        starter = psutil.Process(process)
    except psutil.NoSuchProcess:
        os._exit(130)

    def watch() -> None:
        while starter.is_running() and starter.status() != psutil.STATUS_ZOMBIE:
            time.sleep(1)
        os._exit(130)  # at once: artefacts appear whole or not at all

    threading.Thread(target=watch, daemon=True).start()


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Errors that a user can mend are one sentence and exit code 1."""
    arguments = parser().parse_args(argv)
    if os.environ.get("MEMLEAK_PARENT", "").isdigit():
        _end_with(int(os.environ["MEMLEAK_PARENT"]))
    try:
        said = arguments.function(arguments)
        print(said, end="\n" if said else "", flush=True)
    except BrokenPipeError:  # who reads the output has seen enough, as in `memleak budget | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain when it ends
    except KeyboardInterrupt:
        print("memleak: interrupted", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError) as error:  # our own errors derive from these two
        if os.environ.get("MEMLEAK_DEBUG"):
            raise
        print(f"memleak {arguments.verb}: {error}", file=sys.stderr)
        return 1
    return 0
