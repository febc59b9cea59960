"""`memleak budget`: what a params.yaml will cost and what it will be able to say, before anything is paid for."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from memleak import params, plan, provenance
from memleak.budget import resolution
from memleak.budget.cost import Cost
from memleak.metrics.epsilon import held_against
from memleak.params import Given, Pairs, Params
from memleak.plan import PlannedAudit, prepared_path

GPU_NAMES = Path("/proc/driver/nvidia/gpus")


def budget(
    path: str | os.PathLike[str], cores: int | str = "all", fpr: float | None = None, tpr: float | None = None, *, measure: bool = False,
    directory: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The cost and the resolution of every audit of a params.yaml, as one nested dictionary.

    Files are looked for in `directory` (default: beside params.yaml). With `measure`, recipes of which no model was
    trained on this device are timed, which imports torch and takes some seconds each; else nothing here does.
    """
    source = Path(path).resolve()
    if not source.is_file():
        raise params.ParamsError(f"{path}: there is no such file (looked in {Path.cwd()})")
    folder = source.parent if directory is None else directory
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder")
    with contextlib.chdir(folder):  # paths in params are relative to the folder of the run
        planned = plan.build(params.parse(source.read_text(encoding="utf-8"), str(path)))
        found = Cost(planned, device_of(planned.params), jobs_at_once(planned.params, cores))
        if measure:
            found.measured.update(_measure(found))
        return facts(found, fpr, tpr)


def facts(cost: Cost, fpr: float | None, tpr: float | None) -> dict[str, Any]:
    """All that is said, audit by audit and together."""
    audits = {}
    for name, audit in cost.plan.audits.items():
        known = {
            "design": audit.audit.design.kind,
            "space": getattr(audit.audit.design, "space", None),
            "dataset": audit.audit.dataset,
            "headline": audit.audit.headline_attack,
            "alpha": resolution.alpha_of(audit.audit),
        }
        recipe = audit.recipe
        trained = {
            "recipe": recipe and recipe.name, "has_own_trainer": bool(recipe and recipe.recipe.trainer),
            "seconds_a_model": cost.seconds_a_model(audit), "bytes_a_model": recipe and cost.bytes_of_model(recipe.name),
        }  # fmt: skip
        audits[name] = known | trained | cost.of_audit(audit) | {"resolution": _resolution(audit, cost, fpr, tpr)}
    shelves = cost.shelves.values()
    return {
        "device": cost.device, "jobs_at_once": cost.workers, "audits": audits,
        "sweeps": {name: cost.of_sweep(sweep) for name, sweep in cost.plan.sweeps.items()}, "together": cost.of_jobs(list(cost.jobs.values())), "disk": cost.disk(),
        "not_prepared": sorted({cost.plan.recipes[name].dataset_id for name, known in cost.data.items() if known is None}),
        "broken": sorted({line for shelf in shelves for line in shelf.broken}), "of_other_data": sum(shelf.n_foreign for shelf in shelves),
        "no_such_device": cost.params.device == "cuda" and not provenance.has_gpu(),
    }  # fmt: skip


def _resolution(audit: PlannedAudit, cost: Cost, fpr: float | None, tpr: float | None) -> dict[str, Any] | None:
    """What an audit will be able to say; None where the models are the user's, and with them how many records there are."""
    if audit.recipe is None or isinstance(audit.audit.design, Given):
        return None
    n_records = cost.n_records(audit.recipe.name)
    resolved = resolution.of_audit(audit.audit, n_records, fpr, tpr, settings_of(audit, cost))
    wish = resolved["wish"]
    if isinstance(audit.audit.design, Pairs):
        wish["models"] = _models_of_pairs(audit.audit.design, wish, n_records)
    wish["exceeds_data"] = wish.get("has_verdict", True) and _exceeds(wish, n_records)  # gradients are no records
    return resolved


def settings_of(audit: PlannedAudit, cost: Cost) -> dict[str, Any]:
    """How an audit's lower bound of epsilon will be claimed, and the promise that it is held against, where that is known already.

    What the accountant says stands in the models that are there; an epsilon asked for is what it will say at most.
    """
    settings = json.loads(audit.headline_json(False))["epsilon"]
    private = audit.recipe.recipe.dp if audit.recipe else None
    if audit.recipe is None or private is None:
        return held_against(settings, None, {})
    told = [model["dp"]["epsilon"] for model in cost.shelves[audit.recipe.name].models.values() if "dp" in model]
    promised = max(told) if told else private.epsilon
    if promised is None and settings["claimed"] is None:
        return {**settings, "claim_note": "what the training promises, the accountant says once a model is trained"}
    return held_against(settings, {"epsilon": promised, "delta": private.delta}, audit.audit.design.model_dump(mode="json"))


def device_of(config: Params) -> str:
    """What models will say they were trained on: `cpu`, the name of the GPU, or `gpu` where nobody tells its name without torch."""
    if config.device == "cpu" or (config.device == "auto" and not provenance.has_gpu()):
        return "cpu"
    names = set()
    with contextlib.suppress(OSError):
        for card in GPU_NAMES.glob("*/information"):
            names |= {line.split(":", 1)[1].strip() for line in card.read_text().splitlines() if line.startswith("Model:")}
    return names.pop() if len(names) == 1 else "gpu"


def jobs_at_once(config: Params, cores: int | str) -> int:
    """Trainings side by side: one a core on a CPU, one a GPU otherwise."""
    try:
        n_cores = len(os.sched_getaffinity(0)) if cores == "all" else int(cores)
    except ValueError:
        n_cores = 0
    if n_cores < 1:
        raise ValueError(f"cores: {cores!r} is no number of cores; give 1 or more, or all")
    return n_cores if device_of(config) == "cpu" else max(1, min(n_cores, provenance.n_gpus()))


def _measure(cost: Cost) -> dict[str, dict[str, Any]]:
    """Time each recipe of which nothing is known, where its data is prepared and the training is ours."""
    from memleak.budget import measure

    found = {}
    for name, recipe in cost.plan.recipes.items():
        if cost.seconds(name) is not None or cost.data[name] is None or recipe.recipe.trainer:
            continue
        shard = measure.first_shard([shard for (of, _), shard in cost.plan.shards.items() if of == name])
        path = Path(prepared_path(recipe.dataset_id, recipe.dataset))
        found[name] = measure.time_model(path, recipe.recipe, shard, cost.params.training, cost.params.device)
    return found


def _models_of_pairs(design: Pairs, wish: dict[str, Any], n_records: int | None) -> float | None:
    """Models of a plan with the wished-for rounds: base models, IN arms, and OUT arms of a target's own where a subset holds it."""
    n = design.pool or n_records
    if n is None or wish["holdout_rounds"] is None:
        return None
    return (wish["rounds"] + wish["holdout_rounds"]) * (1 + len(design.targets.names()) * (1 + design.subset_size / n))


def _exceeds(wish: dict[str, Any], n_records: int | None) -> bool:
    asked = wish.get("records") or wish.get("canaries")
    return asked is not None and n_records is not None and asked > n_records
