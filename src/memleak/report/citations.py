"""The sources of what a page uses: author, year and title, of its own attacks and statistics and of no others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from memleak.report import pool


@dataclass(frozen=True)
class Source:
    """A publication, and what of it the page uses."""

    key: str  # its anchor
    authors: str
    year: int
    title: str
    used: str

    @property
    def short(self) -> str:
        """Such as `Carlini et al. 2022`."""
        return f"{self.authors} {self.year}"


KNOWN = {
    one.key: one
    for one in (
        Source("carlini-2022", "Carlini et al.", 2022, "Membership Inference Attacks From First Principles", "LiRA; the margin; rates at low false-positive rates"),
        Source("zarifzadeh-2024", "Zarifzadeh, Liu and Shokri", 2024, "Low-Cost High-Power Membership Inference Attacks", "RMIA"),
        Source("ye-2022", "Ye et al.", 2022, "Enhanced Membership Inference Attacks against Machine Learning Models", "attacks by a population and by reference models"),
        Source("watson-2022", "Watson et al.", 2022, "On the Importance of Difficulty Calibration in Membership Inference Attacks", "difficulty calibration"),
        Source("shokri-2017", "Shokri et al.", 2017, "Membership Inference Attacks Against Machine Learning Models", "shadow models"),
        Source("salem-2019", "Salem et al.", 2019, "ML-Leaks: Model and Data Independent Membership Inference Attacks and Defenses on Machine Learning Models", "one shadow model, the largest posteriors"),
        Source("choquette-choo-2021", "Choquette-Choo et al.", 2021, "Label-Only Membership Inference Attacks", "attacks that see labels alone"),
        Source("yeom-2018", "Yeom et al.", 2018, "Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting", "thresholds on the loss, and on whether the model is right"),
        Source("song-2021", "Song and Mittal", 2021, "Systematic Evaluation of Privacy Risks of Machine Learning Models", "modified entropy; thresholds by class"),
        Source("tao-2024", "Tao and Shokri", 2024, "Range Membership Inference Attacks", "a record's neighbourhood"),
        Source("carlini-2021", "Carlini et al.", 2021, "Extracting Training Data from Large Language Models", "likelihood against zlib, lowercase and a reference model"),
        Source("shi-2024", "Shi et al.", 2024, "Detecting Pretraining Data from Large Language Models", "Min-K%"),
        Source("zhang-2025", "Zhang et al.", 2025, "Min-K%++: Improved Baseline for Detecting Pre-Training Data from Large Language Models", "Min-K%, normalised"),
        Source("zhang-2024", "Zhang and Wu", 2024, "Adaptive Pre-training Data Detection for Large Language Models via Surprising Tokens", "SURP"),
        Source("zhang-2024-dc-pdd", "Zhang et al.", 2024, "Pretraining Data Detection for Large Language Models: A Divergence-based Calibration Method", "DC-PDD"),
        Source("xie-2024", "Xie et al.", 2024, "ReCaLL: Membership Inference via Relative Conditional Log-Likelihoods", "ReCaLL"),
        Source("mattern-2023", "Mattern et al.", 2023, "Membership Inference Attacks against Language Models via Neighbourhood Comparison", "copies with words exchanged, here drawn at random where a masked model would propose them"),
        Source("ilic-2026", "Ilić, Stanojević and Cvejoski", 2026, "Powerful Training-Free Membership Inference Against Autoregressive Language Models", "EZ-MIA: tokens that the model gets wrong, against a reference"),
        Source("chen-2026", "Chen et al.", 2026, "Window-based Membership Inference Attacks Against Fine-tuned Large Language Models", "WBC: short stretches of a text, against a reference"),
        Source("neyman-1933", "Neyman and Pearson", 1933, "On the Problem of the Most Efficient Tests of Statistical Hypotheses", "thresholds that keep a false-positive rate"),
        Source("fisher-1935", "Fisher", 1935, "The Design of Experiments", "the paired sign-flip test"),
        Source("holm-1979", "Holm", 1979, "A Simple Sequentially Rejective Multiple Test Procedure", "p-values corrected for how many were looked at"),
        Source("clopper-1934", "Clopper and Pearson", 1934, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial", "intervals of counted rates"),
        Source("cameron-2011", "Cameron, Gelbach and Miller", 2011, "Robust Inference With Multiway Clustering", "intervals that know models and records to be drawn at random"),
        Source("benjamini-1995", "Benjamini and Hochberg", 1995, "Controlling the False Discovery Rate: A Practical and Powerful Approach to Multiple Testing", "which records are called exposed, or flagged"),
        Source("steinke-2023", "Steinke, Nasr and Jagielski", 2023, "Privacy Auditing with One (1) Training Run", "the lower bound of epsilon from canaries"),
        Source("abadi-2016", "Abadi et al.", 2016, "Deep Learning with Differential Privacy", "DP-SGD"),
        Source("das-2024", "Das, Zhang and Tramèr", 2024, "Blind Baselines Beat Membership Inference Attacks for Foundation Models", "controls that never ask the model"),
        Source("platt-1999", "Platt", 1999, "Probabilistic Outputs for Support Vector Machines and Comparisons to Regularized Likelihood Methods", "scores as probabilities"),
        Source("westfall-1993", "Westfall and Young", 1993, "Resampling-Based Multiple Testing", "the best of many attacks under chance alone"),
        Source("tong-2025", "Tong et al.", 2025, "How Much of My Dataset Did You Use? Quantitative Data Usage Inference in Machine Learning", "the share of a set that was used"),
    )
}  # fmt: skip
OF_ATTACK = {
    "lira": ("carlini-2022",), "rmia": ("zarifzadeh-2024",), "population": ("ye-2022",), "reference": ("ye-2022",), "difficulty": ("watson-2022",),
    "shadow": ("shokri-2017",), "top_k": ("salem-2019",), "label_only": ("choquette-choo-2021",), "range": ("tao-2024",), "meta": ("song-2021",), "ez": ("ilic-2026",), "wbc": ("chen-2026",),
    "zlib": ("carlini-2021",), "lowercase": ("carlini-2021",), "reference_model": ("carlini-2021",), "token": ("carlini-2021",), "min_k": ("shi-2024",),
    "surp": ("zhang-2024",), "dc_pdd": ("zhang-2024-dc-pdd",), "recall": ("xie-2024",), "neighbourhood": ("mattern-2023",),
    "single_point": ("neyman-1933", "carlini-2022"),
}  # fmt: skip
OF_TESTER = {  # by the names that MembershipTester gives its attacks
    "loss": "yeom-2018", "zlib": "carlini-2021", "lowercase": "carlini-2021", "difference": "carlini-2021", "min-k": "shi-2024", "min-k-plus-plus": "zhang-2025",
    "surp": "zhang-2024", "dc-pdd": "zhang-2024-dc-pdd", "recall": "xie-2024", "neighbourhood": "mattern-2023", "ez": "ilic-2026", "wbc": "chen-2026",
}  # fmt: skip


def of(metrics: Mapping[str, Any]) -> list[Source]:
    """The sources of an audit's attacks, then those of its statistics."""
    return _named([*(key for attack in metrics["attacks"].values() for key in _of_attack(attack)), *_of_statistics(dict(metrics))])


def of_tester(found: Mapping[str, Any]) -> list[Source]:
    """The sources of what MembershipTester did."""
    attacks = [OF_TESTER[name] for name, one in found["attacks"].items() if name in OF_TESTER and one["auc"]]
    statistics = ["platt-1999", "benjamini-1995", *(["westfall-1993"] if found["family_wise"] else [])]
    return _named([*attacks, *statistics, *(["das-2024"] if (found["controls"].get("blind") or {}).get("auc") else [])])


def of_sweep(sweep: Mapping[str, Any]) -> list[Source]:
    """The sources of what compares the variants; those of the attacks stand on the variants' own pages."""
    private = any(variant["dp"] for variant in sweep["variants"])
    return _named(
        [
            "cameron-2011",
            "holm-1979",
            *(["abadi-2016"] if private else []),
            *(["steinke-2023"] if any(variant["epsilon"] for variant in sweep["variants"]) else []),
        ]
    )


def _named(keys: Iterable[str]) -> list[Source]:
    """Each once, in the order in which they first occur."""
    return [KNOWN[key] for key in dict.fromkeys(keys)]


def _of_attack(attack: Mapping[str, Any]) -> tuple[str, ...]:
    options = attack.get("options") or {}
    if attack["name"] == "threshold":
        return ("song-2021",) if "entropy" in str(options.get("signal")) else ("yeom-2018",) if options.get("signal") != "alignment" else ()
    if attack["name"] == "min_k" and options.get("normalised"):
        return ("zhang-2025",)
    return OF_ATTACK.get(attack["name"], ())


def _of_statistics(metrics: dict[str, Any]) -> Iterator[str]:
    if metrics["kind"] == "pairs":
        yield from ("fisher-1935", "clopper-1934", "holm-1979")
    else:
        yield from ("cameron-2011", "holm-1979")
    if metrics.get("exposure"):
        yield from ("clopper-1934", "benjamini-1995")
    if metrics.get("usage"):
        yield "tong-2025"
    if (metrics["controls"].get("blind") or {}).get("auc"):
        yield "das-2024"
    if metrics["models"].get("dp"):
        yield "abadi-2016"
    found = pool.epsilon_found(metrics)
    if found and found.get("n_guesses") is not None:
        yield "steinke-2023"
