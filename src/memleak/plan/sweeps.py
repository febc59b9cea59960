"""A sweep: audits that differ in recipe and release alone, and the files that they are compared by."""

from __future__ import annotations

from dataclasses import dataclass

from memleak import provenance
from memleak.params import NONE, Variant
from memleak.plan.audits import PlannedAudit

FIGURES = ("frontier", "gap")


@dataclass(frozen=True)
class PlannedSweep:
    """The variants of one audit by label, that without changes first."""

    id: str
    variants: dict[str, Variant]
    audits: dict[str, PlannedAudit]

    def files(self, label: str) -> dict[str, str | list[str]]:
        """What a variant is compared by."""
        audit = self.audits[label]
        of_audit = f"results/audits/{audit.id}"
        scores = f"{of_audit}/scores/{audit.audit.headline_attack}.parquet"
        return {
            "metrics": f"results/metrics/{audit.id}.json", "plan": f"{of_audit}/plan.parquet", "samples": f"{of_audit}/samples.parquet",
            "scores": scores, "signals": audit.signals(),
        }  # fmt: skip

    def _signals(self, label: str) -> str | list[str]:
        """The folder that holds all of them, where there is one: many shards would not fit into a command."""
        paths = self.audits[label].signals()
        folders = {path.rpartition("/")[0] for path in paths}
        return folders.pop() if len(folders) == 1 else paths

    def inputs(self) -> list[str]:
        """All files that are read, each once."""
        found: dict[str, None] = {}
        for label in self.variants:
            for paths in self.files(label).values():
                found |= dict.fromkeys([paths] if isinstance(paths, str) else paths)
        return list(found)

    def canonical_json(self) -> str:
        """What is compared with what: one text."""
        variants = [
            {
                "label": label, "audit": variant.audit, "changes": variant.changes, "release": list(variant.release),
                "recipe": self.audits[label].subject, **self.files(label), "signals": self._signals(label),
            }
            for label, variant in self.variants.items()
        ]  # fmt: skip
        headline = self.audits[NONE].audit.headline_attack
        return provenance.canonical_json({"sweep": self.id, "baseline": NONE, "headline": headline, "variants": variants})
