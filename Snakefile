"""memleak as a workflow: params.yaml -> plan -> models -> signals -> scores -> metrics -> report.

Every rule is a command that a person could type; every name is known before any job runs.
"""

import os
import sys

from snakemake.utils import min_version

min_version("9.27")

SOURCE = os.path.join(workflow.basedir, "src")
IS_CLONE = os.path.isdir(
    os.path.join(SOURCE, "memleak")
)  # elsewhere the package is installed
if IS_CLONE:
    sys.path.insert(0, SOURCE)


configfile: "params.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/plan.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/signals.smk"
include: "workflow/rules/scores.smk"
include: "workflow/rules/thresholds.smk"
include: "workflow/rules/metrics.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/sweeps.smk"


localrules:
    all,
    data,
    models,
    plan,
    features,
    score,
    threshold,
    decide,
    measure,
    figure,
    timings,
    report_page,
    report_pdf,
    summary,
    frontier,
    frontier_figure,
    frontier_page,
    frontier_pdf,
    index,


rule all:
    """Every audit of params.yaml, and the page over all of them."""
    default_target: True
    input:
        "results/index.html",


rule data:
    """The data sets alone."""
    input:
        [f"data/prepared/{dataset}/dataset.json" for dataset in PLAN.datasets],


rule models:
    """The trained models alone."""
    input:
        PLAN.models(),


onerror:
    # the sentences of failed jobs last, and an index of what is finished; a good run writes the whole one again
    shell("{PYTHON} -m memleak status --index results/index.html || true")
