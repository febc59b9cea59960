"""What a planned audit will be able to say, by the very functions that its page is made with later.

A leak is *shown* where the 95 % interval of a true-positive rate lies above the false-positive rate; the smallest such
rate is meant with the usual power: four of five audits would show it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import special

from memleak.attacks.fits import allowed_beyond
from memleak.metrics import calibration, epsilon, paired, roc
from memleak.metrics.audit import SIGNIFICANCE
from memleak.metrics.intervals import clopper_pearson, models_for_level
from memleak.params import Audit, Canaries, Halves, Pairs, attack_options
from memleak.report.pool import MODELS_FOR_MOCKS, records_for
from memleak.report.verdict import AVERAGE, MOST_EXPOSED, advantage, state_of

POWER = 0.8
NEARLY_ONE = 1 - 1e-9
MOST = 1_000_000  # rounds, models or records: beyond, nobody can pay for it
MOST_ROUNDS = 10_000
MOST_CANARIES = 100_000
LARGE = 20_000  # records from which widths are scaled, not computed: they fall with the root of the number


@dataclass(frozen=True)
class Check:
    """Something that the page will be able to say, or not: `has` of `unit`, of which it takes `needs` (None: no number does)."""

    what: str
    has: int
    needs: int | None
    unit: str

    @property
    def holds(self) -> bool:
        return self.needs is not None and self.has >= self.needs

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"holds": self.holds}


def least(holds: Callable[[int], bool], start: int = 1, most: int = MOST) -> int | None:
    """The least number from `start` on for which a condition holds that, once it holds, goes on holding; None beyond `most`."""
    if start > most:
        return None
    if holds(start):
        return start
    low, high = start, 2 * start
    while not holds(high):
        low, high = high, 2 * high
        if low > most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def alpha_of(audit: Audit) -> float:
    """The false-positive rate that the headline attack's decisions are meant to keep."""
    return float(getattr(attack_options(audit.attacks[audit.headline_attack]), "alpha", audit.decision_alpha))


def of_audit(
    audit: Audit, n_records: int | None, fpr: float | None = None, tpr: float | None = None, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:  # fmt: skip
    """What an audit will resolve at a false-positive rate (default: its own alpha), and the smallest plan that resolves more.

    `n_records` of the data set, None where nobody knows yet. With `tpr` the smallest plan is one that shows such a
    rate; without, one whose verdict can be LOW. `settings` of its epsilon: those that the recipe completes (default: as written).
    """
    level = alpha_of(audit) if fpr is None else fpr
    if not 0 < level < 1:
        raise ValueError(f"fpr is {level}, expected a false-positive rate between 0 and 1, such as 0.01")
    if tpr is not None and not level < tpr <= 1:
        raise ValueError(f"tpr is {tpr}, expected more than the false-positive rate {level:g}, which guessing reaches, and at most 1")
    if isinstance(audit.design, Pairs):
        return _of_pairs(audit.design, level, tpr, counts=counts_beyond(audit))
    if not isinstance(audit.design, (Halves, Canaries)):
        raise ValueError(f"design {audit.design.kind}: how many records its models tell apart is the user's to say, and not planned")
    found = _of_pool(audit.design, n_records, level, tpr)
    if isinstance(audit.design, Canaries):
        found["epsilon"] = attainable_epsilon(audit.design, audit.epsilon.model_dump() if settings is None else settings)
    return found


def counts_beyond(audit: Audit) -> bool:
    """Whether the headline attack of a `pairs` audit sets its threshold by an order statistic, as all do but a normal fit."""
    entry = audit.attacks[audit.headline_attack]
    return entry["name"] != "single_point" or getattr(attack_options(entry), "fit", "normal") != "normal"


def _of_pairs(design: Pairs, fpr: float, tpr: float | None, *, counts: bool) -> dict[str, Any]:
    n_targets, rounds, holdout = len(design.targets.names()), design.rounds, design.holdout_rounds
    checks = [
        Check("the paired test can find something", rounds + holdout, rounds_for_test(n_targets), "rounds"),
        *([Check("a threshold for this FPR", rounds, rounds_for_threshold(fpr), "fitting rounds")] if counts else []),
        Check("the FPR is kept with 95 % confidence", rounds, models_for_level(fpr), "fitting rounds"),
        Check("the verdict can be LOW", holdout, rounds_for_low(n_targets, fpr), "hold-out rounds"),
    ]
    shown = rounds_for_low(n_targets, fpr) if tpr is None else rounds_for_tpr(tpr, fpr)
    fitted = models_for_level(fpr)
    return {
        "fpr": fpr,
        "certified_from": 1 - 0.05 ** (1 / rounds),  # what `models_for_level` asks of so many rounds
        "checks": [check.as_dict() for check in checks],
        "smallest_tpr": smallest_share(holdout, fpr),
        "half_width": _half(clopper_pearson(holdout / 2, holdout)) if holdout else None,  # at a rate of one half, where it is widest
        "n_judged": holdout,
        "wish": {"tpr": tpr, "rounds": fitted, "holdout_rounds": None if shown is None else max(shown, (rounds_for_test(n_targets) or 0) - fitted)},
    }


def rounds_for_test(n_targets: int) -> int | None:
    """The fewest rounds, fitted and held out together, in which the paired test of all targets can be significant."""
    return least(lambda n: paired.smallest_p(n) <= SIGNIFICANCE / n_targets, most=2 * paired.EXACT_UP_TO)


def rounds_for_threshold(fpr: float) -> int | None:
    """The fewest fitting rounds among whose values there is a threshold for an FPR, and "member" is said at all."""
    return least(lambda n: allowed_beyond(fpr, n) >= 1)


@functools.cache
def rounds_for_low(n_targets: int, fpr: float) -> int | None:
    """The fewest hold-out rounds after which the verdict can be LOW: no model is accused, and the interval of all targets is narrow."""

    def is_low(n: int) -> bool:
        _, high = clopper_pearson(0, n, 1 - SIGNIFICANCE / n_targets)
        return state_of(0.0, advantage(high, fpr), MOST_EXPOSED) == "LOW"

    return least(is_low)


def smallest_share(n: int, fpr: float) -> float | None:
    """The smallest TPR that n hold-out rounds show to be above `fpr`, with power 0.8; None where even n of n do not."""
    if n < 1 or clopper_pearson(n, n)[0] <= fpr:
        return None
    accused = least(lambda k: clopper_pearson(min(k, n), n)[0] > fpr)
    assert accused is not None
    return float(special.betaincinv(accused, n - accused + 1, POWER))  # P(Binomial(n, tpr) >= accused) is 0.8


@functools.cache
def rounds_for_tpr(tpr: float, fpr: float) -> int | None:
    """The fewest hold-out rounds that show a TPR with power 0.8. More may show it a little worse: counts are whole numbers."""
    spread = special.ndtri(0.975) * np.sqrt(fpr * (1 - fpr)) + special.ndtri(POWER) * np.sqrt(tpr * (1 - tpr))
    near = int((spread / (tpr - fpr)) ** 2)  # as many normal counts would take; whole ones take more
    found = (n for n in range(max(1, near // 2), 2 * near + 100) if (share := smallest_share(n, fpr)) is not None and share <= tpr)
    return next(found, None) if near <= MOST_ROUNDS else None


def _of_pool(design: Halves | Canaries, n_records: int | None, fpr: float, tpr: float | None) -> dict[str, Any]:
    unit = "canaries" if isinstance(design, Canaries) else "records"
    audited = design.canaries if isinstance(design, Canaries) else design.pool or n_records
    has_verdict = not (
        isinstance(design, Canaries) and design.space == "gradient"
    )  # gradients hold a training to its promise, and say nothing of records
    least_models = MODELS_FOR_MOCKS[design.kind] if has_verdict else 1
    enough = design.model_copy(update={"models": max(design.models, least_models)})  # else there is no verdict
    certain, low = records_for(fpr), records_for_low(fpr)
    lowest = low if has_verdict else certain
    wanted = lowest if tpr is None else records_for_tpr(tpr, fpr, spread_of_units(enough))
    shown = None if wanted is None else int(np.ceil(max(certain, wanted) / share_outside(enough)))
    at_best = ("smallest_tpr_at_best", "half_width_at_best")  # where models answer about a record as if they knew nothing of each other
    found: dict[str, Any] = {"fpr": fpr, "checks": [], "certified_from": None, "smallest_tpr": None, "half_width": None, "n_judged": None}
    found |= dict.fromkeys(at_best)
    found["wish"] = {"tpr": tpr, unit: shown, "models": enough.models, "least_models": least_models, "has_verdict": has_verdict}
    if audited is None:
        return found
    distinct, spread = int(audited * share_outside(design)), spread_of_units(design)
    checks = [Check("this FPR can be certified", distinct, certain, f"{unit} that some target has not seen")]
    if has_verdict:
        checks.append(Check("thresholds from mock targets, and a verdict", design.models, least_models, "models"))
        checks.append(Check("the verdict can be LOW", distinct, low, unit))
    found["checks"] = [check.as_dict() for check in checks]
    found |= {"n_judged": distinct, "certified_from": 3 / distinct}
    shown_at = tpr or smallest_tpr(distinct, fpr, spread)
    for n, (smallest, half) in ((distinct, ("smallest_tpr", "half_width")), (max(distinct, audited * design.n_targets // 2), at_best)):
        found[smallest] = smallest_tpr(n, fpr, spread)
        found[half] = None if shown_at is None else _half(expected(shown_at, fpr, n, spread))
    return found


def share_outside(design: Halves | Canaries) -> float:
    """The share of the audited records that some target has not trained on: all where twins are targets, else about 1 - 2^-targets."""
    return 1.0 if isinstance(design, Halves) and design.n_targets > 1 else 1 - 0.5**design.n_targets


def spread_of_units(design: Halves | Canaries) -> float:
    """By how much few independent targets widen an interval: the quantile of t over that of the normal."""
    units = -(-design.n_targets // 2) if isinstance(design, Halves) else design.n_targets
    return float(special.stdtrit(units - 1, 0.975) / special.ndtri(0.975)) if units > 1 else 1.0


def expected(tpr: float, fpr: float, n: int, spread: float = 1.0) -> tuple[float, float]:
    """The interval that the page will show of a TPR at an FPR, from n members and n non-members whose scores are normal and lie just so.

    Over several targets n lies between the number of records, if all models answer alike about a record, and that of
    scores, if they answer independently. Between few models that differ in level the page's interval is wider.
    """
    computed = min(n, max(LARGE, 4 * records_for(fpr)))
    others = special.ndtri((np.arange(computed) + 0.5) / computed)
    scores = np.concatenate([others + special.ndtri(tpr) - special.ndtri(fpr), others])
    found = roc.tpr_at_fpr(scores, np.arange(2 * computed) < computed, fpr)
    factor = spread * float(np.sqrt(computed / n))
    return max(0.0, tpr - factor * (found.value - found.low)), min(1.0, tpr + factor * (found.high - found.value))


@functools.cache
def smallest_tpr(n: int, fpr: float, spread: float = 1.0) -> float | None:
    """The smallest TPR that n records show to be above `fpr`, with power 0.8; None where no rate is."""
    if not _is_shown(NEARLY_ONE, fpr, n, spread):
        return None
    low, high = special.logit(fpr), special.logit(NEARLY_ONE)
    while high - low > 0.01:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if _is_shown(float(special.expit(middle)), fpr, n, spread) else (middle, high)
    return float(special.expit(high))


def _is_shown(tpr: float, fpr: float, n: int, spread: float) -> bool:
    """Whether four of five intervals lie above `fpr`: that around a TPR which comes out as low as one in five do."""
    low, high = expected(tpr, fpr, n, spread)
    lower = tpr - float(special.ndtri(POWER) / special.ndtri(0.975)) * (high - low) / 2
    return lower > fpr and expected(lower, fpr, n, spread)[0] > fpr


@functools.cache
def records_for_tpr(tpr: float, fpr: float, spread: float = 1.0) -> int | None:
    """The fewest records that show a TPR at an FPR with power 0.8, and certify that FPR."""
    return least(lambda n: _is_shown(min(tpr, NEARLY_ONE), fpr, n, spread), records_for(fpr))


@functools.cache
def records_for_low(fpr: float) -> int | None:
    """The fewest records after which the verdict on an average record can be LOW: where nothing leaks, the interval is narrow."""

    def is_low(n: int) -> bool:
        scores = np.tile(np.arange(n, dtype=np.float64), 2)[None]  # members lie where non-members do
        cut = calibration.threshold(scores[0, :n], fpr)
        found = calibration.rates_at_thresholds(scores, np.array([cut]), (np.arange(2 * n) < n)[None], fpr)
        high = advantage(found["tpr"]["high"], found["achieved_fpr"]["low"])
        return state_of(0.0, high, AVERAGE) == "LOW"

    return least(is_low, records_for(fpr))


def attainable_epsilon(design: Canaries, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The lower bound of epsilon that a one-run audit gives if every guess is right, and whether that could exceed what is claimed.

    `canaries_for_claim`: the fewest whose bound could; None where no number's does, since delta weighs more the more there are.
    """
    delta, confidence, claimed = settings["delta"], 1 - (1 - settings["confidence"]) / design.models, settings.get("claimed")
    found = {"attainable": _all_right(design.canaries, delta, confidence, settings["strategy"]), "delta": delta, "confidence": settings["confidence"]}
    found |= {
        "n_canaries": design.canaries,
        "claimed": claimed,
        "claim_note": settings.get("claim_note"),
        "can_exceed": None,
        "canaries_for_claim": None,
    }
    if claimed is not None:
        found["can_exceed"] = found["attainable"] > claimed
        found["canaries_for_claim"] = least(lambda n: _all_right(n, delta, confidence, settings["strategy"]) > claimed, 2, MOST_CANARIES)
    return found


@functools.cache
def _all_right(n_canaries: int, delta: float, confidence: float, strategy: Literal["bonferroni", "split"]) -> float:
    """The bound when all guesses about so many canaries are right."""
    is_member = np.arange(n_canaries) % 2 == 0
    return epsilon.audit_one_run(is_member.astype(np.float64), is_member, delta=delta, confidence=confidence, strategy=strategy).epsilon


def _half(interval: tuple[float, float]) -> float:
    return (interval[1] - interval[0]) / 2
