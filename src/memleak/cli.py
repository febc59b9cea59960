"""The command line: one verb a stage, as the rules call them, and `single-point` and `audit` for a whole run."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memleak import verbs

STAGES = (  # what the rules of the workflow call; a person's verbs would drown among them in --help
    "fetch", "plan", "features", "train", "query", "query-given", "score", "threshold", "decide", "measure", "figure", "timings", "report", "summary",
    "index", "frontier", "frontier-figure", "frontier-page",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """All verbs and their options."""
    root = argparse.ArgumentParser(
        prog="memleak", description="What can someone learn about who was in the training data of this model?",
        epilog="A whole audit: `snakemake --cores all`, `memleak audit params.yaml`, or `memleak single-point`. The stages that it is made of are verbs "
        f"too: {', '.join(STAGES)}.",
    )  # fmt: skip
    added_to = root.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(
        name: str,
        function: Callable[[argparse.Namespace], str | tuple[str, int]],
        help_: str,
        *paths: str,
        texts: tuple[str, ...] = (),
        lists: tuple[str, ...] = (),
    ) -> argparse.ArgumentParser:
        listed: dict[str, Any] = {} if name in STAGES else {"help": help_}
        added = added_to.add_parser(name, description=help_, **listed)
        for path in paths:
            added.add_argument(f"--{path}", type=Path, required=True)
        for text in texts:
            added.add_argument(f"--{text}", required=True, help="JSON")
        for list_ in lists:
            added.add_argument(f"--{list_}", type=Path, nargs="*", default=[])
        added.set_defaults(function=function)
        return added

    whole = verb("single-point", verbs.single_point, "the classic run: train with and without one record, and decide")
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

    one = verb("audit", verbs.audit, "run every audit of a params.yaml (through Snakemake)")
    one.add_argument("params", type=Path, help="a params.yaml")
    one.add_argument("--directory", type=Path, help="where results go (default: beside params.yaml)")
    one.add_argument("--cores", default="all")

    texts = verb("tester", verbs.tester, "can the training texts of a language model, or of a classifier of texts, be recognised?")
    texts.add_argument("--model", required=True, help="a folder as transformers keeps it, or a name on the hub")
    for side, meaning in (("train", "texts that it was trained on"), ("test", "texts that it was not trained on, of the same kind")):
        texts.add_argument(f"--{side}", type=Path, required=True, help=f"{meaning}: .parquet, .csv, .jsonl, .json or .txt (a text a line)")
    texts.add_argument("--population", type=Path, help="further texts that it was not trained on, for attacks that compare with some")
    texts.add_argument("--reference", help="a folder or name of a model that has not seen the training texts, or `base`: what it was fine-tuned from")
    texts.add_argument("--tokenizer", help="a folder, a tokenizer.json or a name (default: the model's own)")
    texts.add_argument("--column", default="text", help="that holds the texts (default: %(default)s); labels of classes stand in the column label")
    texts.add_argument("--max-length", type=int, default=256, help="tokens of a text that are read (default: %(default)s)")
    texts.add_argument("--batch-size", type=int, default=4, help="texts of that length that are asked at once on a CPU (default: %(default)s)")
    texts.add_argument("--attacks", nargs="+", help="such as min-k zlib ez (default: all that fit)")
    texts.add_argument("--effort", choices=("quick", "standard", "thorough"), default="standard", help="default: %(default)s")
    overlap_help = "of test texts with training texts (default: %(default)s)"
    texts.add_argument("--on-overlap", choices=("drop", "warn", "error"), default="drop", help=overlap_help)
    texts.add_argument("--directory", type=Path, help="keep all artefacts there")
    for kind, meaning in (("output", "the page, HTML"), ("json", "all numbers, without texts"), ("csv", "a row a text and attack, without texts")):
        texts.add_argument(f"--{kind}", type=Path, help=meaning)
    texts.add_argument("--progress", action="store_true", help="say each step on standard error, even where no terminal is")
    texts.add_argument("--offline", action="store_true", help="look for models in the hub's cache only")
    texts.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    texts.add_argument("--seed", type=int, default=0, help="default: %(default)s")

    check = verb("check", verbs.check, "does a plug-in of your own hold the laws that an audit rests on?")
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

    costs = verb("budget", verbs.budget, "what a params.yaml will cost and be able to say, before anything runs")
    costs.add_argument("params", type=Path, nargs="?", default=Path("params.yaml"), help="a params.yaml (default: %(default)s)")
    costs.add_argument("--directory", type=Path, help="where results are or will go (default: beside params.yaml)")
    costs.add_argument("--cores", default="all")
    costs.add_argument("--fpr", type=float, help="false-positive rate that is to be certified (default: each audit's alpha)")
    costs.add_argument("--tpr", type=float, help="true-positive rate that is to be shown (default: what a verdict LOW takes)")
    costs.add_argument("--measure", action="store_true", help="time a few steps of recipes of which no model was trained on this device")
    costs.add_argument("--json", action="store_true", help="print JSON")

    base = verb("pretrain", verbs.pretrain, "train one model on all texts of a data set and save it as a checkpoint to train further", "output")
    for what in ("dataset", "recipe"):
        base.add_argument(f"--{what}", required=True, help="JSON, or a key of params.yaml here")
    base.add_argument("--seed", type=int, default=0, help="of everything drawn (default: %(default)s)")
    base.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")

    verb("init", verbs.init, "begin a project of your own: params.yaml, Snakefile, profile").add_argument("folder", type=Path)
    importing = verb("import", verbs.import_, "begin an audit of models that another tool trained and asked")
    importing.add_argument("source", type=Path, help="a folder of LiRA's experiments or of Privacy Meter, or a Parquet or CSV file")
    importing.add_argument("--kind", choices=("lira", "privacy-meter", "table"), help="found out by looking where it is left out")
    importing.add_argument("--labels", type=Path, help="a .npy file of labels, where the run has none")
    importing.add_argument("--output", type=Path, default=Path("imported"), help="folder of the new project (default: %(default)s)")
    exporting = verb("export", verbs.export, "write an audit's models and signals for another tool")
    exporting.add_argument("audit", help="a key of audits in params.yaml; its results must be there")
    exporting.add_argument("--kind", choices=("lira", "privacy-meter", "table"), default="table")
    exporting.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    exporting.add_argument("--output", type=Path, required=True, help="a folder, or for a table a .parquet or .csv file")
    tasks = verb("import-tasks", verbs.import_tasks, "turn a classic YAML list of tasks (BASELINE, ML-LEAK, LABEL-ONLY) into params.yaml")
    tasks.add_argument("tasks", type=Path, help="such as mem_inf.yaml")
    tasks.add_argument("--output", type=Path, help="file to write (default: print it)")
    verb("fetch", verbs.fetch, "prepare a data set", "output", texts=("dataset",))
    verb("plan", verbs.plan, "draw who trains on what", "data", "output", "samples", texts=("audit",))
    verb("features", verbs.features, "what can be seen of the audited records without a model, for the blind control", "data", "samples", "output")
    train = verb("train", verbs.train, "train one shard of models", "data", "output", texts=("recipe", "shard"))
    query = verb(
        "query", verbs.query, "ask a shard's models about the audited samples", "models", "data", "output", texts=("recipe", "shard", "query")
    )
    train.add_argument("--training", default="{}", help="JSON: engine, stack, checkpoint_minutes")
    query_given = verb(
        "query-given", verbs.query_given, "ask a model of your own about the audited samples", "data", "output", texts=("model", "query")
    )
    for heavy in (train, query, query_given):
        heavy.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    verb("score", verbs.score, "what an attack concludes", "plan", "samples", "output", texts=("attack",), lists=("signals", "population"))
    threshold = verb("threshold", verbs.threshold, "fit, and set the rule that keeps alpha", "plan", "output", texts=("attack",), lists=("signals",))
    threshold.add_argument("--scores", type=Path, help="of the attack, unless it decides on the signal itself")
    verb(
        "decide", verbs.decide, "apply the rules to models that they were not fitted on", "plan", "output", lists=("signals", "thresholds", "scores")
    )
    verb(
        "measure",
        verbs.measure,
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
    figure = verb(
        "figure", verbs.figure, "draw one figure", "plan", "metrics", "roc", "exposure", "svg", "png", lists=("signals", "thresholds", "scores")
    )
    figure.add_argument(
        "--name", required=True, help="overview, training or a target's id; where every model is audited: roc, scores, exposure, training"
    )
    figure.add_argument("--records", type=Path, nargs="*", default=[], help="the data set's description, if records may be shown")
    timings = verb("timings", verbs.timings, "collect the time that every job took", "benchmarks", "output")
    timings.add_argument("--models", nargs="*", default=[], help="names of the audit's recipe and given model")
    timings.add_argument("--audit", required=True)
    verb(
        "report",
        verbs.report,
        "write the page of an audit",
        "metrics",
        "plan",
        "decisions",
        "timings",
        "output",
        texts=("params",),
        lists=("figures",),
    )
    verb("summary", verbs.summary, "write the one-page text report", "metrics", "output", texts=("params",))
    printed = verb("pdf", verbs.pdf, "a page of memleak as a PDF, to print, sign and file")
    printed.add_argument("page", type=Path, help="report.html, frontier.html, index.html, or a page of `memleak tester` or `memleak stats`")
    printed.add_argument("--output", type=Path, help="file to write (default: beside the page, with .pdf)")
    verb("index", verbs.index, "write the page over all audits", "output", lists=("metrics", "sweeps"))
    verb("frontier", verbs.frontier, "what each defence of a sweep costs and protects", "output", "table", texts=("sweep",))
    panel = verb("frontier-figure", verbs.frontier_figure, "draw one figure of a sweep", "frontier", "svg", "png")
    panel.add_argument("--name", required=True, help="frontier or gap")
    verb("frontier-page", verbs.frontier_page, "write the page of a sweep", "frontier", "output", lists=("figures",))
    stats = verb("stats", verbs.stats, "figures with intervals, and a page, for anybody's scores")
    stats.add_argument(
        "scores", type=Path, help="Parquet or CSV with score (higher: rather a member) and is_member; optionally target_id and sample_id"
    )
    stats.add_argument("--output", type=Path, default=Path("stats"), help="folder to write (default: %(default)s)")
    stats.add_argument("--name", help="what the scores are called (default: the file's name)")
    tune = verb("tune", verbs.tune, "measure which engine trains the recipes of a params.yaml fastest here, and propose it")
    tune.add_argument("params", type=Path, nargs="?", default=Path("params.yaml"), help="default: %(default)s; its data must be prepared")
    tune.add_argument("--stacks", type=int, nargs="+", default=[2, 4, 8, 16, 32], help="models at once to try (default: %(default)s)")
    tune.add_argument("--seconds", type=float, default=1.0, help="that each of three timings of a stack takes (default: %(default)s)")
    tune.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    window = verb("app", verbs.app, "look at audits, test a model or scores in the browser, on this machine")
    window.add_argument("folder", type=Path, nargs="?", default=Path(), help="a project, or a folder of projects (default: the current one)")
    window.add_argument("--port", type=int, help="default: 8501, or the next that is free")
    window.add_argument("--address", default="localhost", help="0.0.0.0 lets other machines read the audits (default: %(default)s)")
    window.add_argument("--no-browser", action="store_true", help="say the address and open nothing")
    window.add_argument("--max-upload-mb", type=int, default=200, help="largest file that may be uploaded (default: %(default)s)")
    verb("unlock", verbs.unlock, "remove the lock of a killed run, unless a run is at work here")
    schema = verb("schema", verbs.schema, "print the JSON schema of params.yaml, or of the metrics of an audit")
    schema.add_argument("--metrics", action="store_true", help="of results/metrics/AUDIT.json")
    schema.add_argument("--markdown", action="store_true", help="as a page of Markdown, such as docs/params.md")
    schema.add_argument("--output", type=Path)
    gate = verb("gate", verbs.gate, "does what was measured keep your limits? exit code 0: yes, 1: no, 3: that cannot be said")
    gate.add_argument("audits", nargs="*", metavar="AUDIT", help="keys of audits in params.yaml (default: all)")
    gate.add_argument("--directory", type=Path, default=Path(), help="the project's folder (default: this one)")
    files = "of an audit, of `memleak stats` or of MembershipTester"
    gate.add_argument("--metrics", type=Path, nargs="+", default=[], metavar="FILE.json", help=files)
    for option, meaning in (
        ("max-tpr-at-1pct", "share of members that is recognised at a false-positive rate of 1 %%"), ("max-tpr-at-0.1pct", "the same at 0.1 %%"),
        ("max-auc", "area under the ROC"), ("max-advantage", "TPR less FPR at the best threshold"), ("max-risk", "risk score, 0 to 100"),
        ("max-epsilon", "what differential privacy promises, or the audit shows"), ("max-exposed", "exposed records: a count such as 5, or a share such as 1%%"),
        ("max-state", "verdict: LOW, MEDIUM or HIGH"), ("max-gap", "train accuracy less test accuracy"), ("min-test-accuracy", "accuracy on test records"),
    ):  # fmt: skip
        gate.add_argument(f"--{option}", dest=option, metavar="LIMIT", help=meaning)
    judges = "which end of the interval must keep the limit; upper passes only what is shown to keep it (default: %(default)s)"
    gate.add_argument("--judge", choices=("upper", "value", "lower"), default="upper", help=judges)
    gate.add_argument("--attacks", choices=("headline", "all"), default="headline", help="that rates are judged by (default: %(default)s)")
    gate.add_argument("--json", action="store_true", help="print JSON")
    state = verb("status", verbs.status, "how far the audits of a folder are, and why jobs failed")
    state.add_argument("--directory", type=Path, default=Path(), help="the project's folder (default: this one)")
    state.add_argument("--index", type=Path, help="write the page over what is finished there, and print failures alone")
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
    arguments, code = parser().parse_args(argv), 0
    if os.environ.get("MEMLEAK_PARENT", "").isdigit():
        _end_with(int(os.environ["MEMLEAK_PARENT"]))
    try:
        said = arguments.function(arguments)
        if isinstance(said, tuple):  # a verb whose exit code is an answer
            said, code = said
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
        return getattr(error, "exit_code", 1)
    return code
