"""What to do about a model that MembershipTester looked at: each action is fired by a number that it measured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from memleak.report import words
from memleak.report.parts import Action
from memleak.report.verdict import ENOUGH, FEW, LEAST

LANGUAGE = ("causal-lm", "masked-lm")  # tasks whose models tell tokens
MOST = 6  # actions: who is told more does none of it
SURE = 0.95  # an AUC above which a reference model could add little
AGAIN = "report = tester.run_attacks(train, test)"
TIERS = {  # what a level of risk stands for, and what to do at once
    "critical": ("Strong evidence that training texts can be recognised.", "Do not release the model or its scores as they are"),
    "high": ("Training texts can be recognised.", "Keep the model where its users are known until the measures below were tried"),
    "moderate": ("Some evidence of memorised training texts.", "Try the cheapest measure below and measure again"),
    "low": ("Little or no evidence of memorised training texts at this size of audit.", "Audit again before every release"),
    "inconclusive": ("This audit cannot grade the model.", "Bring more texts of each kind, or lists that differ in nothing but membership, before anything is concluded from it"),
}  # fmt: skip
ALARMS = ("blind", "length", "form", "placebo")  # controls of the two lists and of the reference


def of(found: Mapping[str, Any]) -> list[Action]:
    """What to do, most urgent first; where nothing can be said of the model, what the audit lacks and nothing else."""
    risk, why = found["risk"], nothing_said(found)
    if why is not None:
        effect = "A figure that may come from anything but memory helps nobody; what is mended costs another run, and no training."
        first = Action("Mend the audit before anything is concluded from it", f"Nothing can be said about this model: {why}", effect, AGAIN)
        return [_in_words(one, found) for one in (first, *_of_split(found), *_of_size(found))]
    said = [_of_level(found), *_of_split(found)]
    if risk["low"] > 0:
        said += [*_of_records(found), *_of_training(found), *_of_layers(found)]
    return [_in_words(one, found) for one in (*said, *_of_reference(found), *_of_size(found))][:MOST]


def sentence(action: Action) -> str:
    """An action as one text, for a terminal."""
    return f"{action.because} {action.title}. {action.effect} Audit again: {'; '.join(action.command.splitlines())}"


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


def _in_words(action: Action, found: Mapping[str, Any]) -> Action:
    """An action about texts, of a model of images about images."""
    if found["task"] != "image-classification":
        return action
    return Action(_of_images(action.title), _of_images(action.because), _of_images(action.effect), action.command)


def _of_images(words: str) -> str:
    said = words.replace("word for word", "pixel for pixel").replace(" a text", " an image")
    return re.sub(r"\btext(s?)\b", r"image\1", said)


def _of_level(found: Mapping[str, Any]) -> Action:
    risk = found["risk"]
    because, title = TIERS[risk["level"]]
    effect = {
        "low": "Stronger attackers may exist, and other texts may be better known; it costs a run of this audit.",
        "inconclusive": "More texts narrow the interval; they cost queries, and no training.",
    }.get(risk["level"], "Holding a model back mends nothing, and gives the time to lower the risk or to decide on it.")
    return Action(
        title, f"{because} Risk score {risk['value']:.0f} [{risk['low']:.0f}, {risk['high']:.0f}] of 100, by {found['headline']}.", effect, AGAIN
    )


def _of_split(found: Mapping[str, Any]) -> list[Action]:
    controls, said = found["controls"], []
    blind, length, form, n = *(controls.get(name) or {} for name in ("blind", "length", "form")), found["n"]
    if blind.get("alarm"):
        because = (
            f"Members can be told from the others without the model (blind AUC {words.estimate(blind['auc'])}): the test texts are not comparable."
        )
        effect = "Split before training; the blind AUC should then lie about .5."
        said.append(Action("Draw both sets at random from one source", because, effect, AGAIN))
    if length.get("alarm"):
        name, one = next(iter(length["sizes"].items()))  # bytes where they are known
        because = f"Length alone tells members from the others (in {name}: AUC {words.estimate(one['auc'])})."
        said.append(Action("Cut or choose both sides alike", because, "The AUC of length should then lie about .5.", AGAIN))
    if form.get("alarm"):
        name, one = min(form["columns"].items(), key=lambda item: item[1]["p"])
        because = f"How they are written tells members from the others ({name}: AUC {words.estimate(one['auc'])})."
        said.append(Action("Bring both sides into the form that the model was trained on", because, "Its AUC should then lie about .5.", AGAIN))
    if (controls.get("placebo") or {}).get("alarm"):
        because = f"The reference model, which should not know the training texts, tells them too (AUC {words.estimate(controls['placebo']['auc'])})."
        effect = "Or the two sets are not of one kind. With a reference that has not seen them its AUC should lie about .5."
        said.append(
            Action(
                "Check that the reference was not trained on them", because, effect, f"tester = MembershipTester(model, reference=ANOTHER)\n{AGAIN}"
            )
        )
    if n["overlap"] + n["near"]:
        because = f"{n['overlap'] + n['near']} test texts repeat training texts ({n['overlap']} word for word) and were not counted as non-members."
        effect = "Texts that occur more often are memorised more. With on_overlap='error' such a split fails."
        said.append(Action("Deduplicate before the split", because, effect, AGAIN))
    return said


def _of_size(found: Mapping[str, Any]) -> list[Action]:
    n, said = found["n"], []
    fewest = min(n["members"], n["non_members"])
    if fewest < ENOUGH:
        least = "no grade is given" if fewest < FEW else "nothing is said about a false-positive rate of 1 %"
        because = f"{n['members']} training and {n['non_members']} test texts: below {FEW if fewest < FEW else ENOUGH} a side {least}."
        effect = f"With 300 of each the intervals are narrower by a factor of about {(300 / fewest) ** 0.5:.1f}."
        said.append(Action("Bring more texts of each kind", because, effect, AGAIN))
    cut = n["truncated_members"] + n["truncated_non_members"]
    if cut:
        because = f"{cut} {'text is' if cut == 1 else 'texts are'} longer than {found['max_length']} tokens and {'was' if cut == 1 else 'were'} cut there: what stands behind was not audited."
        effect = "Or cut texts into passages. It costs memory and time, as far as the model's context allows."
        said.append(Action("Raise max_length", because, effect, f"tester = MembershipTester(model, max_length={2 * found['max_length']})\n{AGAIN}"))
    return said


def _of_reference(found: Mapping[str, Any]) -> list[Action]:
    if found["reference"] is not None or found["task"] not in LANGUAGE:
        return []
    best = found["attacks"][found["headline"]]["auc"]
    if best["value"] >= SURE or is_alarmed(found):
        return []
    effect = (
        "Of fine-tuned models attacks that compare with the model before fine-tuning reached AUC .89 where the loss alone reached .57, and .99 where it "
        "reached .78, in our measurements of a small GPT-2. It costs one more pass over the texts."
    )
    because = f"No reference model was asked, so that AUC {words.estimate(best)} may understate the risk."
    return [
        Action(
            "Name the model before fine-tuning as reference",
            because,
            effect,
            f"tester = MembershipTester(model, reference=PATH_OF_THE_BASE_MODEL)\n{AGAIN}",
        )
    ]


def _of_records(found: Mapping[str, Any]) -> list[Action]:
    if not found["flagged"]:
        return []
    because = f"{found['flagged']} training texts are flagged, at most one in twenty of them by chance (report.examples, column flag)."
    effect = "Remove or deduplicate repeated, rare or personal texts and train again; others may then be the most exposed."
    return [Action("Look at the flagged texts", because, effect, f"flagged = report.examples[report.examples['flag']]\n{AGAIN}")]


def _of_training(found: Mapping[str, Any]) -> list[Action]:
    fit, risk, said = found["fit"], found["risk"], []
    if fit["gap"] is not None and fit["gap"] > 0:
        because = f"The mean loss of training texts is {fit['gap']:.2f} nats below that of the others ({fit['members']:.2f} against {fit['non_members']:.2f})."
        effect = (
            "Fewer epochs, early stopping or a lower learning rate narrow that gap, often at little cost on unseen texts; compare the two reports."
        )
        said.append(
            Action(
                "Fit the training texts less closely",
                because,
                effect,
                "other = MembershipTester(retrained).run_attacks(train, test)\nreport.compare(other)",
            )
        )
    if found["reference"] is not None and not found["is_adapter"] and found["task"] in LANGUAGE:
        effect = (
            "With GPT-2 low-rank additions had a TPR of 1.5 % at a false-positive rate of .1 % where full fine-tuning had 82.6 % (Ilić et al. 2026, by a secondary "
            "source; without intervals, and less of larger models). What they cost in quality depends on the task."
        )
        because = f"Risk {risk['value']:.0f} [{risk['low']:.0f}, {risk['high']:.0f}] of a model that is no low-rank adapter."
        said.append(Action("Try low-rank additions (LoRA)", because, effect, AGAIN))
    if found["task"] not in LANGUAGE:
        because = f"Risk {risk['value']:.0f} [{risk['low']:.0f}, {risk['high']:.0f}] of a classifier that gives its probabilities away."
        effect = "Labels alone take the signals of this audit away, and label-only attacks stay; label smoothing and temperature hide the confidence and not the memory."
        said.append(Action("Release labels alone, and audit what users are given", because, effect, AGAIN))
    if risk["low"] >= 30:
        because = f"Even the lower end of the risk is {risk['low']:.0f}: {risk['value']:.0f} [{risk['low']:.0f}, {risk['high']:.0f}] of 100."
        effect = "Differential privacy (DP-SGD) bounds what any attack learns about a text, at a cost in quality that such trainings show."
        said.append(
            Action(
                "Train with differential privacy, at two or three values of epsilon",
                because,
                effect,
                f"# recipe in params.yaml: dp: {{epsilon: 8}}\n{AGAIN}",
            )
        )
    return said


def _of_layers(found: Mapping[str, Any]) -> list[Action]:
    layers = found.get("layers") or {"outstanding": None}
    best = next((row for row in layers.get("rows", ()) if row["name"] == layers["outstanding"]), None)
    if best is None:
        return []
    because = (
        f"Of {len(layers['rows'])} layers the gradients of {best['name']} tell members best (AUC {words.estimate(best['auc'])}; the median layer {layers['median']:.3f}): a hint at "
        "where the texts are held, and no proof, since many layers are many looks and norms of neighbouring layers go together."
    )
    effect = "What it brings is not known; it costs a training."
    return [Action("Try that layer frozen or with a stronger weight decay", because, effect, f"{AGAIN[:-1]}, effort='thorough')")]
