"""What a plan costs: models to train, those that are there already, hours and bytes. Reads the heads of files, never weights."""

from __future__ import annotations

import heapq
import shutil
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from memleak import artefacts, provenance
from memleak.artefacts import ArtefactError
from memleak.designs import Coins, Complements, Rounds, Shard, Splits
from memleak.params import Given, Imported, Pairs, Params, n_views
from memleak.plan import Plan, PlannedAudit, PlannedSweep, Query, prepared_path

SIGNAL_BYTES, SIGNAL_FILE_BYTES = 28, 20_000  # of one answer (a model, a record, a view) in Parquet, and of what a file says of its models; measured
SCORE_BYTES = 34  # of a record's scores by one attack against one target, and of the decision about it; measured


RANGE = ("low", "median", "high")


@dataclass
class Shelf:
    """The models of one recipe that are there, in the store or among the results."""

    models: dict[str, dict[str, Any]] = field(default_factory=dict)  # what each says about itself, by its id
    bytes_each: list[float] = field(default_factory=list)
    n_foreign: int = 0  # models of other data under the same name
    broken: list[str] = field(default_factory=list)  # one sentence a file

    def seconds(self, device: str) -> np.ndarray:
        """Training time of each model that was trained on such a device, a training record, [n]."""
        timed = [model for model in self.models.values() if _is_on(model.get("device", ""), device) and model.get("n_train") and "seconds" in model]
        return np.array([model["seconds"] / model["n_train"] for model in timed])

    def engines(self, device: str) -> list[str]:
        return sorted({str(model.get("engine", "unknown")) for model in self.models.values() if _is_on(model.get("device", ""), device)})


def _is_on(trained_on: str, device: str) -> bool:
    """Whether a model's device is the one meant: a GPU or a slice of it; `gpu` is any, where nobody tells the name of the one at hand."""
    if device == "gpu":
        return trained_on not in ("", "cpu")
    return trained_on == device or trained_on.startswith(f"{device} MIG ")


def shelf_of(recipe: str, data_sha256: str | None) -> Shelf:
    """The models of a recipe that are there. Where the data is not prepared (None) they count whatever data they know."""
    found, seen = Shelf(), set[tuple[int, int]]()
    for folder in (artefacts.store_folder() / recipe, Path("results/models") / recipe):
        for path in sorted(folder.glob("*.safetensors")):
            try:
                status = path.stat()
                if (status.st_dev, status.st_ino) in seen:  # one file under two names
                    continue
                seen.add((status.st_dev, status.st_ino))
                facts = artefacts.read_shard_facts(path)
                if facts["recipe"] != recipe or (data_sha256 is not None and facts["data_sha256"] != data_sha256):
                    found.n_foreign += len(facts["models"])
                    continue
                found.models |= {model["model_id"]: model for model in facts["models"]}
                found.bytes_each.append(status.st_size / max(1, len(facts["models"])))
            except (ArtefactError, OSError) as error:
                found.broken.append(str(error))
            except (KeyError, TypeError):
                found.broken.append(f"{path}: not a shard of models; delete it and run again")
    return found


@dataclass(frozen=True)
class Job:
    """A shard: models that it surely has, OUT arms of a target's own, which only the data can tell, and what of both is not there."""

    recipe: str
    records: float | None  # that a model trains on; None where the size of the data is not known
    sure: int
    missing: int
    arms_there: int = 0
    missing_arms: float | None = 0.0  # as many as are to be expected; None where the pool's size is not known

    @property
    def to_train(self) -> float:
        return self.missing + (self.missing_arms or 0.0)

    @property
    def there(self) -> int:
        return self.sure - self.missing + self.arms_there

    @property
    def n_models(self) -> float:
        return self.there + self.to_train


def job_of(recipe: str, shard: Shard, there: Container[str], pool_size: int | None) -> Job:
    """What a shard needs. An OUT arm of its own has a target wherever a base model's subset holds the record: n of N rounds."""
    sure, records = shard.model_ids(), training_records(shard, pool_size)
    missing = sum(name not in there for name in sure)
    if not isinstance(shard, Rounds) or shard.target is None:
        return Job(recipe, records, len(sure), missing)
    arms_there = {r for r in range(shard.first, shard.last) if shard.model_id("out", r) in there}
    open_rounds = sum(shard.model_id("in", r) not in there and r not in arms_there for r in range(shard.first, shard.last))
    share = 0.0 if not open_rounds else None if pool_size is None else shard.subset_size / pool_size
    return Job(recipe, records, len(sure), missing, len(arms_there), None if share is None else open_rounds * share)


def training_records(shard: Shard, pool_size: int | None) -> float | None:
    """How many records a model of a shard trains on; with canaries on the mean."""
    if isinstance(shard, Complements):
        return None if pool_size is None else pool_size / 2
    if isinstance(shard, Splits):
        return None  # known when the parts of the data set are prepared
    n_canaries = shard.canaries if isinstance(shard, Coins) and shard.space is None else 0  # gradients are no records
    return shard.subset_size + n_canaries / 2


def makespan(durations: Iterable[float], workers: int) -> float:
    """How long jobs take, the longest first, each on the first worker that is free."""
    free = [0.0] * max(1, workers)
    for duration in sorted(durations, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + duration)
    return max(free)


@dataclass(frozen=True)
class Cost:
    """The cost of a plan in the current folder, on one device with so many jobs at once."""

    plan: Plan
    device: str
    workers: int
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)  # by recipe: `seconds` and `bytes` of a model, timed on request

    @property
    def params(self) -> Params:
        return self.plan.params

    @cached_property
    def data(self) -> dict[str, dict[str, Any] | None]:
        """The description of each recipe's prepared data; None where it is not there or cannot be read."""
        found: dict[str, dict[str, Any] | None] = {}
        for name, planned in self.plan.recipes.items():
            try:
                found[name] = artefacts.read_json(prepared_path(planned.dataset_id, planned.dataset))
            except ArtefactError:
                found[name] = None
        return found

    @cached_property
    def shelves(self) -> dict[str, Shelf]:
        digests = {name: provenance.digest(facts["sha256"], 64) if facts and "sha256" in facts else None for name, facts in self.data.items()}
        begun = {name for name, planned in self.plan.recipes.items() if planned.files()}  # with a checkpoint, whose content is not looked at here
        return {name: shelf_of(name, None if name in begun else digest) for name, digest in digests.items()}

    def n_records(self, recipe: str) -> int | None:
        """Records of a recipe's data set: as prepared, else as declared."""
        facts = self.data[recipe]
        return int(facts["n"]) if facts and "n" in facts else self.plan.recipes[recipe].dataset.declared_size

    @cached_property
    def jobs(self) -> dict[tuple[str, str], Job]:
        """What each shard needs, by (recipe, shard)."""
        return {
            (recipe, name): job_of(recipe, shard, self.shelves[recipe].models, getattr(shard, "pool", None) or self.n_records(recipe))
            for (recipe, name), shard in self.plan.shards.items()
        }

    def jobs_of(self, audit: PlannedAudit) -> list[Job]:
        return [self.jobs[audit.recipe.name, shard.name] for shard, _ in audit.shards if audit.recipe]

    def seconds(self, recipe: str) -> dict[str, Any] | None:
        """Seconds of training a model, a training record: median and the middle 80 %, of models trained on this device or timed on request."""
        found = self.shelves[recipe].seconds(self.device)
        if len(found):
            low, median, high = np.quantile(found, [0.1, 0.5, 0.9]).tolist()
            return {"n": len(found), "low": low, "median": median, "high": high, "engines": self.shelves[recipe].engines(self.device)}
        return self.measured.get(recipe, {}).get("seconds")

    def seconds_a_model(self, audit: PlannedAudit) -> dict[str, Any] | None:
        """Seconds of training one model of an audit; models of one recipe may have unlike numbers of records."""
        if audit.recipe is None:
            return None
        found, records = self.seconds(audit.recipe.name), self.jobs_of(audit)[0].records
        return None if found is None or records is None else found | {key: found[key] * records for key in RANGE}

    def bytes_of_model(self, recipe: str) -> float | None:
        found = self.shelves[recipe].bytes_each
        return float(np.median(found)) if found else self.measured.get(recipe, {}).get("bytes")

    def of_jobs(self, jobs: Sequence[Job]) -> dict[str, Any]:
        """Models, training time and the models' bytes of some shards."""
        found: dict[str, Any] = {
            "models": sum(job.n_models for job in jobs),
            "there": sum(job.there for job in jobs),
            "to_train": sum(job.to_train for job in jobs),
            "is_about": any(job.missing_arms != 0 for job in jobs),  # OUT arms of a target's own are expected, or not even that
            "n_unknown_arms": sum(job.missing for job in jobs if job.missing_arms is None),  # at most so many more
        }
        wanted = [job for job in jobs if job.to_train]
        times = {recipe: self.seconds(recipe) for recipe in {job.recipe for job in wanted}}
        is_timed = all(times.values()) and all(job.records is not None for job in wanted)
        found["training_seconds"] = {key: self._makespan(wanted, times, key) for key in RANGE} if is_timed else None
        sizes = {recipe: self.bytes_of_model(recipe) for recipe in times}
        is_known = all(size is not None for size in sizes.values())
        found["model_bytes"] = sum(job.to_train * (sizes[job.recipe] or 0.0) for job in wanted) if is_known else None
        return found

    def _makespan(self, jobs: Iterable[Job], times: Mapping[str, dict[str, Any] | None], key: str) -> float:
        return makespan((job.to_train * (job.records or 0.0) * (times[job.recipe] or {})[key] for job in jobs), self.workers)

    def of_sweep(self, sweep: PlannedSweep) -> dict[str, Any]:
        """Models and training time of a sweep's audits together; `n_shared` models serve several of them, `n_elsewhere` audits outside."""
        own = {audit.id for audit in sweep.audits.values()}
        uses: dict[tuple[str, str], set[str]] = {}
        for audit in self.plan.audits.values():
            for shard, _ in audit.shards if audit.recipe else ():
                uses.setdefault((audit.recipe.name, shard.name), set()).add(audit.id)  # type: ignore[union-attr]
        jobs = {key: self.jobs[key] for key, users in uses.items() if users & own}
        return self.of_jobs(list(jobs.values())) | {
            "audits": [audit.id for audit in sweep.audits.values()],
            "n_recipes": len({recipe for recipe, _ in jobs}),
            "n_shared": sum(job.n_models for key, job in jobs.items() if len(uses[key] & own) > 1),
            "n_elsewhere": sum(job.n_models for key, job in jobs.items() if uses[key] - own),
        }

    def of_audit(self, audit: PlannedAudit) -> dict[str, Any]:
        return self.of_jobs(self.jobs_of(audit)) | {"signal_bytes": self.signal_bytes([audit]), "score_bytes": self.score_bytes(audit)}

    def samples(self, recipe: str, query: Query) -> int | None:
        """How many records a query asks about."""
        n = self.n_records(recipe)
        match query.samples:
            case "targets":
                return len(query.targets)
            case "canaries":
                return query.canaries
            case "pool":
                return query.pool or n
            case "given":
                return None
        return query.n or (None if n is None or query.pool is None else n - query.pool - (query.reserve or 0))

    def signal_bytes(self, audits: Iterable[PlannedAudit]) -> float | None:
        """Bytes of the answers that are not there yet; those that audits share count once."""
        total = 0.0
        asked = {(audit.recipe.name, shard.name, query) for audit in audits for shard, query in audit.all_asked() if shard and audit.recipe}
        for recipe, shard, query in asked:
            if Path(f"results/signals/{recipe}/{query.name}/{shard}.parquet").exists():
                continue
            samples, job = self.samples(recipe, query), self.jobs[recipe, shard]
            if samples is None:
                return None
            total += job.n_models * samples * n_views(query.views) * SIGNAL_BYTES + SIGNAL_FILE_BYTES
        return total

    def score_bytes(self, audit: PlannedAudit) -> float | None:
        """Bytes of scores and decisions."""
        design = audit.audit.design
        if audit.recipe is None or isinstance(design, (Given, Imported)):
            return None
        samples = self.samples(audit.recipe.name, audit.shards[0][1])
        if samples is None:
            return None
        n_targets = 2 * (design.rounds + design.holdout_rounds) if isinstance(design, Pairs) else design.n_targets
        return float(len(audit.audit.attacks) * n_targets * samples * SCORE_BYTES)

    def disk(self) -> list[dict[str, Any]]:
        """For each file system in use: what the plan adds to it (None: not known) and what is free."""
        everything = self.of_jobs(list(self.jobs.values()))
        audits = list(self.plan.audits.values())
        written = [self.signal_bytes(audits), *(self.score_bytes(audit) for audit in audits)]
        models, others = everything["model_bytes"], None if None in written else sum(filter(None, written))
        results, store = _there(Path("results")), _there(artefacts.store_folder())
        is_shared = results.stat().st_dev == store.stat().st_dev  # then the two have one copy: a hard link
        needs = None if models is None or others is None else models + others
        found = [_place("results", needs, results)]
        return found if is_shared else [*found, _place(str(artefacts.store_folder()), models, store)]


def _place(name: str, needs: float | None, folder: Path) -> dict[str, Any]:
    free = shutil.disk_usage(folder).free
    return {"folder": name, "needs": needs, "free": free, "fits": needs is None or needs <= free}


def _there(path: Path) -> Path:
    """A folder, or the nearest one above it that exists."""
    found = path.absolute()
    while not found.exists():
        found = found.parent
    return found
