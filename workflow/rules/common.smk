# in: params.yaml; out: PLAN, the names of all that will be made, and what the rules share

import shlex

from memleak import params, provenance
from memleak.designs import shard_json
from memleak.plan import attack_code, build
from memleak.plan.sweeps import FIGURES

from snakemake.exceptions import WorkflowError

PYTHON = (
    sys.executable
)  # a global, never a param: another machine's path must rerun nothing

try:
    PLAN = build(params.validate(config))
except ValueError as error:
    raise WorkflowError(str(error))

DEVICE = PLAN.params.device
TRAINING = provenance.canonical_json(
    PLAN.params.training.model_dump(mode="json")
)  # a global like DEVICE: another engine retrains nothing
N_GPUS_PER_JOB = (
    1 if DEVICE == "cuda" or (DEVICE == "auto" and provenance.has_gpu()) else 0
)
if "gpu" not in workflow.global_resources:  # --resources gpu=N goes first
    workflow.register_resource("gpu", max(1, provenance.n_gpus()))

# jobs end when the process that started them is gone: no orphan trains on after a kill
shell.prefix(
    "set -euo pipefail; export MEMLEAK_PARENT={}; {}".format(
        os.getpid(),
        f"export PYTHONPATH={shlex.quote(SOURCE)}; " if IS_CLONE else "",
    )
)


resource_scopes:
    gpu="local",


wildcard_constraints:
    audit="[a-z0-9][a-z0-9-]*",
    attack="[a-z0-9][a-z0-9-]*",
    dataset="[a-z0-9-]+",
    given="[a-z0-9-]+",
    recipe="[a-z0-9-]+-[0-9a-f]{8}",
    query="[a-z0-9-]+",
    shard="[a-z0-9-]+",
    figure="[a-z0-9]+",
    sweep="[a-z0-9][a-z0-9-]*",
    panel="|".join(FIGURES),


def data_of(recipe):
    """The description of the data that a recipe trains on."""
    return PLAN.dataset_path(recipe)


def signals_of(wildcards):
    """The signals that an audit reads."""
    return PLAN.audits[wildcards.audit].signals()


def asked_by(wildcards):
    """The signals that an attack reads, which may ask for more."""
    return PLAN.audits[wildcards.audit].signals(wildcards.attack)


def population_of(wildcards):
    """What an audit's models say about the population; nothing where the attack does not ask."""
    planned = PLAN.audits[wildcards.audit]
    return (
        planned.population_signals(wildcards.attack)
        if planned.wants_population(wildcards.attack)
        else []
    )


def fitted_on(wildcards):
    """What an attack's thresholds are fitted on: the signals themselves, or its scores."""
    planned = PLAN.audits[wildcards.audit]
    return (
        {"signals": planned.signals(wildcards.attack)}
        if planned.is_direct(wildcards.attack)
        else {
            "scores": f"results/audits/{wildcards.audit}/scores/{wildcards.attack}.parquet"
        }
    )


def decided_on(wildcards):
    """The signals that decisions read: those of a pairs audit."""
    planned = PLAN.audits[wildcards.audit]
    return planned.signals() if planned.is_pairs else []


def features_of(wildcards):
    """What is seen of the records without a model, where nobody drew who is a member."""
    is_given = PLAN.audits[wildcards.audit].given is not None
    return f"results/audits/{wildcards.audit}/features.parquet" if is_given else []


def each_attack(pattern):
    """The paths of an audit's artefacts, one an attack."""
    return lambda w: expand(
        pattern, audit=w.audit, attack=PLAN.audits[w.audit].audit.attacks
    )


def figures_of(wildcards):
    """The figures of an audit's page, or none where they are turned off."""
    names = PLAN.audits[wildcards.audit].figures() if PLAN.params.figures else []
    return [f"results/audits/{wildcards.audit}/figures/{name}.svg" for name in names]


def panels_of(wildcards):
    """The figures of a sweep's page, or none where they are turned off."""
    names = FIGURES if PLAN.params.figures else []
    return [f"results/audits/{wildcards.sweep}/{name}.svg" for name in names]


if (
    workflow.is_main_process
    and os.path.isdir("results/models")
    and os.path.isfile("dvc.lock")
):
    if not os.path.isdir(".snakemake/metadata") or not os.listdir(
        ".snakemake/metadata"
    ):
        raise WorkflowError(
            "results/ is here without .snakemake/metadata, so no change would be noticed; run 'dvc pull'"
        )
