"""What MembershipTester says: its page, its recommendations, and its numbers as text. All of it reads what was measured (`found`) and computes nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from memleak import provenance
from memleak.report import page
from memleak.report.verdict import ENOUGH, FEW, LEAST

LANGUAGE = ("causal-lm", "masked-lm")  # tasks whose models tell tokens
SURE = 0.95  # an AUC above which a reference model could add little
N_SHOWN = 20  # texts in the list of the most exposed
TIERS = {
    "critical": "Strong evidence that training texts can be recognised: do not release the model or its scores as they are.",
    "high": "Training texts can be recognised: keep the model where its users are known until the measures below were tried.",
    "moderate": "Some evidence of memorised training texts: try the cheapest measure below and measure again.",
    "low": "Little or no evidence of memorised training texts at this size of audit.",
    "inconclusive": "This audit cannot grade the model: bring more texts of each kind, or lists that differ in nothing but membership, before anything is concluded from it.",
}
ALARMS = ("blind", "length", "form", "placebo")  # controls of the two lists and of the reference
AGAIN = "audit again with run_attacks(train, test)"


def recommendations(found: Mapping[str, Any]) -> list[str]:
    """What to do, most urgent first, each with the number that says so and how to see whether it helped."""
    risk, why = found["risk"], nothing_said(found)
    if why is not None:
        return [in_words(one, found) for one in (f"Nothing can be said about this model: {why}", *_of_split(found), *_of_size(found))]
    said = [f"{TIERS[risk['level']]} Risk score {risk['value']:.0f} [{risk['low']:.0f}, {risk['high']:.0f}] of 100, by {found['headline']}."]
    said += _of_split(found)
    if risk["low"] > 0:
        said += [*_of_records(found), *_of_training(found), *_of_layers(found)]
    return [in_words(one, found) for one in (*said, *_of_reference(found), *_of_size(found))]


def nothing_said(found: Mapping[str, Any]) -> str | None:
    """Why an audit says nothing whatever its figures, if so."""
    if is_alarmed(found):
        names = [name for name in ALARMS if (found["controls"].get(name) or {}).get("alarm")]
        return f"the control{'s' if len(names) > 1 else ''} {' and '.join(names)} alarmed, so that an attack's success may come from that alone."
    if found["verdict"].get("is_refused"):
        return str(found["verdict"]["sentence"])
    fewest = found["n"].get("fewest", min(found["n"]["members"], found["n"]["non_members"]))
    if fewest < LEAST:
        return f"{fewest} different text{'s' if fewest != 1 else ''} on one side; bring some hundreds of each."
    return None


def is_alarmed(found: Mapping[str, Any]) -> bool:
    """Whether a control says that the two lists differ without the model, or that its reference knows the members."""
    return any((found["controls"].get(name) or {}).get("alarm") for name in ALARMS)


def in_words(sentence: str, found: Mapping[str, Any]) -> str:
    """A sentence about texts, of a model of images about images."""
    if found["task"] != "image-classification":
        return sentence
    said = sentence.replace("word for word", "pixel for pixel").replace(" a text", " an image")
    return re.sub(r"\btext(s?)\b", r"image\1", said)


def _of_split(found: Mapping[str, Any]) -> list[str]:
    controls, said = found["controls"], []
    blind, length, form, n = *(controls.get(name) or {} for name in ("blind", "length", "form")), found["n"]
    if blind.get("alarm"):
        said.append(
            f"Members can be told from the others without the model (blind AUC {_auc(blind['auc'])}): the test texts are not comparable. Draw both sets at random "
            f"from one source, split before training, and {AGAIN}; the blind AUC should then lie about .5."
        )
    if length.get("alarm"):
        name, one = next(iter(length["sizes"].items()))  # bytes where they are known
        said.append(
            f"Length alone tells members from the others (in {name}: AUC {_auc(one['auc'])}): cut or choose both sides alike, and {AGAIN}; its AUC should then lie about .5."
        )
    if form.get("alarm"):
        name, one = min(form["columns"].items(), key=lambda item: item[1]["p"])
        said.append(
            f"How they are written tells members from the others ({name}: AUC {_auc(one['auc'])}): bring both sides into the form that the model was trained on, and {AGAIN}; "
            "its AUC should then lie about .5."
        )
    if (controls.get("placebo") or {}).get("alarm"):
        said.append(
            f"The reference model, which should not know the training texts, tells them too (AUC {_auc(controls['placebo']['auc'])}): check that it was not trained on them, "
            "or that the two sets are of one kind; then audit again with that reference."
        )
    if n["overlap"] + n["near"]:
        said.append(
            f"{n['overlap'] + n['near']} test texts repeat training texts ({n['overlap']} word for word) and were not counted as non-members: deduplicate before the split. "
            "Texts that occur more often are memorised more. With on_overlap='error' such a split fails when you audit again."
        )
    return said


def _of_size(found: Mapping[str, Any]) -> list[str]:
    n, said = found["n"], []
    fewest = min(n["members"], n["non_members"])
    if fewest < ENOUGH:
        least = "no grade is given" if fewest < FEW else "nothing is said about a false-positive rate of 1 %"
        said.append(
            f"{n['members']} training and {n['non_members']} test texts: below {FEW if fewest < FEW else ENOUGH} a side {least}. With 300 of each the intervals are "
            f"narrower by a factor of about {(300 / fewest) ** 0.5:.1f}; {AGAIN}."
        )
    cut = n["truncated_members"] + n["truncated_non_members"]
    if cut:
        said.append(
            f"{cut} {'text is' if cut == 1 else 'texts are'} longer than {found['max_length']} tokens and {'was' if cut == 1 else 'were'} cut there: what stands behind was not audited. Raise max_length if the model's context allows, or cut texts into passages, and {AGAIN}."
        )
    return said


def _of_reference(found: Mapping[str, Any]) -> list[str]:
    if found["reference"] is not None or found["task"] not in LANGUAGE:
        return []
    best = found["attacks"][found["headline"]]["auc"]
    if best["value"] >= SURE or is_alarmed(found):
        return []
    return [
        f"No reference model was asked, so that AUC {_auc(best)} may understate the risk: of fine-tuned models attacks that compare with the model before "
        "fine-tuning reached AUC .89 where the loss alone reached .57, and .99 where it reached .78, in our measurements of a small GPT-2. "
        "Audit again with MembershipTester(model, reference=PATH_OF_THE_BASE_MODEL)."
    ]


def _of_records(found: Mapping[str, Any]) -> list[str]:
    if not found["flagged"]:
        return []
    return [
        f"{found['flagged']} training texts are flagged, at most one in twenty of them by chance (report.examples, column flag): look for repeated, rare or personal texts "
        "among them, remove or deduplicate them, train again, and audit again with the same lists."
    ]


def _of_training(found: Mapping[str, Any]) -> list[str]:
    fit, risk, said = found["fit"], found["risk"], []
    if fit["gap"] is not None and fit["gap"] > 0:
        said.append(
            f"The mean loss of training texts is {fit['gap']:.2f} nats below that of the others ({fit['members']:.2f} against {fit['non_members']:.2f}): fewer epochs, early "
            f"stopping or a lower learning rate close that gap, mostly at no cost on unseen texts; {AGAIN}, and compare with report.compare(other)."
        )
    if found["reference"] is not None and not found["is_adapter"] and found["task"] in LANGUAGE:
        said.append(
            f"Risk {risk['value']:.0f} of a model whose weights were all fine-tuned: try low-rank additions (LoRA), whose TPR at .1 % was reported at 1.5 % where full "
            f"fine-tuning had 82.6 % (arXiv:2601.12104, by a secondary source; of other models). {AGAIN.capitalize()}."
        )
    if found["task"] not in LANGUAGE:
        said.append(
            f"Risk {risk['value']:.0f} of a classifier: label smoothing and temperature hide the confidence and not the memory; releasing labels alone takes the signals "
            "of this audit away, and label-only attacks stay. Audit what users are given."
        )
    if risk["low"] >= 30:
        said.append(
            f"Even the lower end of the risk is {risk['low']:.0f}: differential privacy (DP-SGD) bounds what any attack learns about a text, at a cost in quality. Train at two or "
            "three values of epsilon (recipe: dp in params.yaml) and audit each with the same lists."
        )
    return said


def _of_layers(found: Mapping[str, Any]) -> list[str]:
    layers = found.get("layers") or {"outstanding": None}
    best = next((row for row in layers.get("rows", ()) if row["name"] == layers["outstanding"]), None)
    if best is None:
        return []
    return [
        f"Of {len(layers['rows'])} layers the gradients of {best['name']} tell members best (AUC {_auc(best['auc'])}; the median layer {layers['median']:.3f}): a hint at "
        f"where the texts are held, and no proof, since many layers are many looks and norms of neighbouring layers go together. Try that layer frozen or with a stronger "
        f"weight decay, and {AGAIN}, effort='thorough'."
    ]


def _auc(found: Mapping[str, float]) -> str:
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def attack_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row an attack, the highest AUC first, those without a score last."""
    rows = [{"id": name, "is_headline": name == found["headline"], **one} for name, one in found["attacks"].items()]
    return sorted(rows, key=lambda row: -row["auc"]["value"] if row["auc"] else 1.0)


def page_of(found: Mapping[str, Any], examples: pd.DataFrame, figures: Mapping[str, str], *, include_texts: bool = False) -> str:
    """The page. Texts are shown on request only: a report about leakage must not leak. `figures`: SVG by name."""
    order = ["flag", "p_value", "membership_prob"]
    most = examples[examples["split"] == "train"].sort_values(order, ascending=[False, True, False], kind="stable").head(N_SHOWN)
    shown = most.astype({"flag": bool}).to_dict("records")
    return page.rendered(
        "tester.html",
        figures,
        found=found,
        noun="image" if found["task"] == "image-classification" else "text",
        rows=attack_rows(found),
        examples=shown,
        include_texts=include_texts,
        recommendations=recommendations(found),
        versions=provenance.versions(),
    )


def text_of(found: Mapping[str, Any]) -> str:
    """The audit in a few lines, for a terminal."""
    risk, verdict = found["risk"], found["verdict"]
    rows = [(row["id"], row["auc"]) for row in attack_rows(found) if row["auc"]]
    width = max(len(name) for name, _ in rows) if rows else 0
    lines = [
        f"{found['model']}: {verdict['state']}, risk {risk['value']:.0f} [{risk['low']:.0f}, {risk['high']:.0f}] ({risk['level']})",
        verdict["sentence"],
        *verdict["notes"],
        *(f"  {name:<{width}}  AUC {_auc(auc)}{'  headline' if name == found['headline'] else ''}" for name, auc in rows),
        *(f"WARNING: {warning}" for warning in found["warnings"]),
    ]
    return "\n".join(lines)
