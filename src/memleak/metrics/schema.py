"""What stands in results/metrics/{audit}.json: every field with its meaning, its unit and what null says, as JSON Schema.

`memleak schema --metrics` prints it. Where nothing else is said, rates and shares are fractions in [0, 1], intervals
hold at 95 %, losses and margins are in nats. A test validates the metrics of every kind of audit, and no field may be
missing here.
"""

from __future__ import annotations

from typing import Any

from memleak import artefacts

Schema = dict[str, Any]
FPR = "false-positive rate: share of non-members that are taken for members"
TPR = "true-positive rate: share of members that are recognised"
AUC = "area under the ROC: the chance that a member scores higher than a non-member; 0.5 is guessing"


def of(kind: str | list[str], meaning: str) -> Schema:
    return {"type": kind, "description": meaning}


def text(meaning: str) -> Schema:
    return of("string", meaning)


def number(meaning: str) -> Schema:
    return of("number", meaning)


def whole(meaning: str) -> Schema:
    return of("integer", meaning)


def flag(meaning: str) -> Schema:
    return of("boolean", meaning)


def nothing(schema: Schema, when: str) -> Schema:
    """The same, or null, and when that is."""
    kind = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return schema | {"type": [*kind, "null"], "description": f"{schema['description']}; null: {when}"}


def array(meaning: str, items: Schema) -> Schema:
    return of("array", meaning) | {"items": items}


def mapping(meaning: str, values: Schema) -> Schema:
    """Names that a user chose, or that were found, to values of one form."""
    return of("object", meaning) | {"additionalProperties": values}


def declared(meaning: str) -> Schema:
    """As params.yaml has it, with defaults; its own schema says what may stand there."""
    return of("object", f"{meaning}, as declared in params.yaml with all defaults; see params.schema.json")


def record(meaning: str, fields: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """Fields that are always there, and those that some audits have; no others."""
    return of("object", meaning) | {"properties": fields | (optional or {}), "required": list(fields), "additionalProperties": False}


def interval(meaning: str, more: dict[str, Schema] | None = None, *, may_lack: bool = False) -> Schema:
    """An estimate with its interval; `may_lack`: there may be none, as of one model alone."""
    ends = {"low": number("lower end of the interval"), "high": number("upper end of the interval")}
    if may_lack:
        ends = {name: nothing(end, "too few models for an interval") for name, end in ends.items()}
    return record(meaning, {"value": number("the estimate"), **ends, **(more or {})})


def proportion(meaning: str, optional: dict[str, Schema] | None = None, *, k: str = "number") -> Schema:
    """A share k of n; k is a mean, and so a fraction, where several records share a model."""
    found = interval(
        meaning, {"k": of(k, "how many, a mean over records where these share models"), "n": whole("out of how many models or trainings")}
    )
    return found | {"properties": found["properties"] | (optional or {})}


def rate(meaning: str, *, pooled: bool = True) -> Schema:
    """A TPR at a declared FPR."""
    fields = {
        "at_fpr": number(f"declared {FPR}"),
        "achieved_fpr": number("FPR at the threshold that was found, at most at_fpr"),
        "n_false_positives": whole("non-members beyond the threshold"),
        "n_non_members": whole("distinct non-members"),
        "certified": flag("whether there are 3 / at_fpr distinct non-members or more; where not, the data cannot show so low an FPR"),
    }
    members = {"n_members": whole("distinct members")}
    found = interval(meaning, fields | ({"n_scores": whole("scores of non-members, one a target and sample")} if pooled else members))
    return found | {"properties": found["properties"] | members}


def optimistic(meaning: str) -> Schema:
    return interval(meaning, {"is_optimistic": flag("true: the threshold was chosen on the very scores that are judged")})


def tested(meaning: str, more: dict[str, Schema] | None = None) -> Schema:
    """A difference with its interval and test."""
    ends = {end: nothing(number(f"{name} end of its interval"), "too few models") for end, name in (("low", "lower"), ("high", "upper"))}
    p = {"p": nothing(number("two-sided p-value"), "not tested"), "p_holm": nothing(number("the same, corrected by Holm"), "not tested")}
    return record(meaning, {"difference": number("the difference"), **ends, **p, **(more or {})})


def alarmed(meaning: str, fields: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """A control: what it measured, its p-value and whether it says that the audit cannot be believed."""
    p = {"p": number("p-value of what must not be"), "alarm": flag("whether the audit cannot be believed: p of 0.001 or less")}
    return record(meaning, p | fields, optional)


def schema() -> Schema:
    """The whole, of every kind of audit."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Metrics of an audit by memleak",
        "description": "results/metrics/{audit}.json. Rates and shares are fractions in [0, 1], intervals hold at 95 %, losses and margins are in nats.",
        "oneOf": [_pairs(), _pool()],
    }


def _head(kinds: list[str]) -> dict[str, Schema]:
    """What all audits have."""
    return {
        "format": {"const": artefacts.METRICS_FORMAT, "description": "format of this file, raised when a field changes its name or meaning"},
        "memleak": text("version of memleak that measured"),
        "of": {"const": "audit", "description": "what the metrics are of; sweeps, scores and MembershipTester have files of their own"},
        "audit": text("key of the audit in params.yaml"),
        "kind": {"enum": kinds, "description": "how membership was drawn: the design's kind"},
        "headline": text("the attack, declared beforehand, that the verdict reads"),
        "alpha": number("false-positive rate that decisions aim at"),
        "design": declared("who trains on what"),
        "recipe": text("directory name of the audited models: their recipe, or the given model; `imported` where another tool trained them"),
        "data": _data(),
        "seed": whole("of everything drawn"),
        "models": _models("the audited models"),
    }


def _data() -> Schema:
    shape = array("of a record: H, W, C of images, F of features", nothing(whole("size of an axis"), "records of several sizes"))
    return record(
        "the data set",
        {
            "name": nothing(text("its name in params.yaml"), "it has none"),
            "n": whole("records"), "n_groups": whole("groups: records that are equal, texts that nearly are, or all of one unit count once"),
            "n_classes": nothing(whole("classes"), "there are no labels"),
            "class_names": nothing(array("names of the classes, in the order of labels", text("a name")), "classes have numbers alone"),
            "shape": nothing(shape, "not known"), "licence": nothing(text("licence of the data"), "not known"),
        },
        {
            "kind": text("what a record is, such as text; images and tables where it is absent"), "labelled": flag("whether texts have labels of classes"),
            "vocabulary": whole("size of the tokenizer's vocabulary"), "n_near_duplicates": whole("texts that nearly repeat another and share its group"),
            "unit": _unit(), "n_unknown_labels": whole("records without a label"),
        },
    )  # fmt: skip


def _unit(more: dict[str, Schema] | None = None) -> Schema:
    fields = {
        "column": text("that says to whom a record belongs, such as a patient"), "n": whole("how many of them there are"),
        "n_joined": whole("of them count as one with others, since records of theirs are equal"), **(more or {}),
    }  # fmt: skip
    return record("to whom records belong, where membership is drawn and measured for each of them as a whole", fields)


def _models(meaning: str, *, nested: bool = False) -> Schema:
    """Fit of some models; of audited ones also what is given and who its references are."""
    unknown = "nobody knows, as of models trained elsewhere"
    spread = "; low and high: the middle 95 % of the models, no interval of the mean"
    curve = "mean over the models, one value an epoch"
    fields = {
        "n": whole("models"), "n_train": whole("training records of one model"), "n_test": whole("records that none of them trained on"),
        "trained_on": array("where they were trained, the most frequent first", record("models of one kind", {
            "n": whole("models"), "device": text("kind of device"), "torch": text("version of torch"),
            "engine": text("how: sequential, ensemble, language, own; given or imported where memleak trained nothing"),
        })),
        "chance": nothing(number("accuracy of guessing: 1 / classes"), "no classes, or tokens"),
        "train_accuracy": nothing(interval(f"accuracy on their own training records; of tokens for language models{spread}"), unknown),
        "test_accuracy": nothing(interval(f"accuracy on test records; of tokens for language models{spread}"), unknown),
        "generalisation_gap": nothing(number("mean train accuracy less mean test accuracy"), unknown),
        "train_loss": nothing(number("mean loss on training records, nats"), unknown), "test_loss": nothing(number("mean loss on test records, nats"), unknown),
        "loss_curve": nothing(array(f"training loss, {curve}", number("nats")), "not noted"),
        "accuracy_curve": nothing(array(f"training accuracy, {curve}", number("share")), "not noted"),
    }  # fmt: skip
    optional = {
        "of_tokens": flag("true: accuracies and losses are of tokens of texts"), "n_truncated": whole("texts longer than the context, cut there; the most of any model"),
        "dp": _dp(),
    }  # fmt: skip
    if not nested:
        fields["mixed"] = array("what the models differ in and should not (allow_mixed)", text("devices or torch versions"))
        optional |= {
            "given": _given(),
            "references": nothing(_models("reference models of a given one", nested=True), "it was audited without"),
            "loosened_by": array(
                "defences that keep a model from fitting its data, so that a bad fit refuses no verdict", text("field of the recipe")
            ),
        }
    return record(meaning, fields, optional)


def _given() -> Schema:
    unknown = "it has none"
    return record(
        "the model that was given",
        {
            "form": text("what kind of model, such as GPT2LMHeadModel"), "name": nothing(text("function or checkpoint"), unknown),
            "weights": nothing(text("file of weights"), "they come with the model"), "output": nothing(text("what it tells: logits, probabilities or labels"), unknown),
            "sha256": nothing(text("of its weights"), "not known"), "device": nothing(text("that it was asked on"), "not known"),
            "is_repeatable": nothing(flag("whether it answers the same again"), "not tried"),
        },
        {
            "reference": record("model that it is compared with: one that has not seen the members", {
                "name": text("checkpoint"), "sha256": nothing(text("of its weights"), "not known"),
            }),
        },
    )  # fmt: skip


def _dp() -> Schema:
    return of("object", "what DP-SGD promises of the model that promises least") | {
        "properties": {
            "epsilon": number("privacy loss that the accountant proves, at delta"), "delta": number("chance that this does not hold"),
            "accountant": text("prv or rdp"), "noise_multiplier": number("standard deviation of the noise, in units of clip"),
            "clip": number("largest norm of a record's gradient"), "sample_rate": number("chance of a record to be in a batch"), "steps": whole("steps of training"),
            "batch_norm_replaced": whole("layers that would have mixed records, replaced"),
        }
    }  # fmt: skip


def _epsilon(fields: dict[str, Schema]) -> Schema:
    found = record(
        "a lower bound of epsilon: (epsilon, delta) privacy below it is refuted at this confidence",
        {
            "epsilon": number("the bound"), "delta": number("that it is claimed at"), "confidence": number("that it holds with"), **fields,
            "claimed": nothing(number("the epsilon that is promised, by params.yaml or the accountant"), "nothing comparable is promised"),
            "p": nothing(number("p-value of the claim"), "nothing is claimed"), "alarm": flag("whether the bound exceeds the claim"),
            "claim_note": nothing(text("why the bound cannot be held against a promise"), "it can, or there is none"),
        },
    )  # fmt: skip
    return nothing(found, "the design bounds no epsilon, or there are no hold-out rounds")


def _pairs() -> Schema:
    return record(
        "an audit of single records: models trained with and without each",
        _head(["pairs"]) | {
            "attacks": mapping("by key in params.yaml", _attack_of_pairs()),
            "targets": mapping("the audited records by name, the most exposed first", _target()),
            "controls": _controls_of_pairs(),
            "epsilon": _epsilon({
                "target": text("record with the largest bound"), "lower_bounds": mapping("bounds by record, which all hold together", number("epsilon")),
                "confidence_each": number("that each of them holds with"), "attainable": number("the bound, had all decisions about that record been right"),
            }),
        },
    )  # fmt: skip


def _attack_of_pairs() -> Schema:
    return record(
        "an attack over all natural records; over those with a wrong label where there are no others",
        {
            "name": text("of the attack's function"), "alpha": number(f"{FPR} that its rule aims at"),
            "statistic": text("what it decides on: margin, loss, or the attack's score"), "options": declared("its options"),
            "n_fitted": whole("rounds that the rule was fitted on"), "models_for_level": whole("rounds that it would take to keep alpha with 95 % confidence"),
            "optimistic_fpr": number("FPR on the very rounds that were fitted"), "optimistic_tpr": number("TPR on them"),
        },
        {"fpr": proportion(f"{FPR}, on hold-out rounds; absent without them"), "tpr": proportion(f"{TPR}, on hold-out rounds; absent without them")},
    )  # fmt: skip


def _target() -> Schema:
    fitted = of(
        "object", "what was fitted: mean, std, min and max of the values; shapiro_p or bandwidth, and log_density_left_out in nats a value"
    ) | {"additionalProperties": number("a parameter")}
    needed = "rounds for a power of 0.8"
    many = "more than 100,000"
    attack = record(
        "an attack on this record",
        {
            "intervals": array("values of the statistic that say member", array("from, to", nothing(number("an end"), "unbounded"))),
            "in": fitted, "out": fitted,
            "optimistic": record("rates on the very rounds that were fitted", {
                "fpr": number("FPR"), "tpr": number("TPR"), "fitted_power": nothing(number("TPR by the fitted density"), "no density was fitted"),
            }),
        },
        {
            "fpr": proportion("FPR on hold-out rounds", k="integer"),
            "tpr": proportion("TPR on hold-out rounds", {
                "p": number("p-value of a record that leaks nothing"), "low_of_all": number("lower end of an interval that holds for all records at once"),
                "high_of_all": number("its upper end"),
            }, k="integer"),
        },
    )  # fmt: skip
    return record(
        "an audited record",
        {
            "kind": text("random, atypical, mislabelled or index"), "is_canary": flag("whether it was made for the audit, with a wrong label"),
            "sample_id": whole("in the audit"), "source_id": whole("row of the data set"), "label": whole("that models were trained with"),
            "true_label": whole("of the data set"), "n_twins": whole("other records of equal content, which are left out with it"),
            "p": number("one-sided p-value of the paired test: its margin is no higher where it was trained on"),
            "p_holm": number("the same, corrected for the number of records (Holm)"),
            "effect": record("margin with the record less margin without, in nats, over all rounds", {
                "mean_difference": number("nats"), "n_rounds": whole("pairs of models"),
                "standardised": nothing(number("mean over standard deviation"), "the differences are all equal"),
                "low": nothing(number("lower end of the standardised effect"), "unbounded"), "high": nothing(number("its upper end"), "unbounded"),
                "rounds_needed": nothing(whole(f"{needed}, if the effect is as estimated"), many),
                "rounds_needed_if_low": nothing(whole(f"{needed}, at the lower end"), many), "rounds_needed_if_high": nothing(whole(f"{needed}, at the upper end"), many),
                "testable": flag("whether so few rounds can show anything at all"), "least_rounds": whole("that can"),
            }),
            "means": record("means over all rounds, nats", {
                f"{signal}_{place}": number(f"{signal} {'with' if place == 'in' else 'without'} the record") for signal in ("margin", "loss") for place in ("in", "out")
            }),
            "auc": interval(f"{AUC}; of the margin, models with the record against those without", {"n": whole("models of each")}),
            "attacks": mapping("by key in params.yaml", attack),
            "state": {"enum": ["exposed", "effect found", "no evidence"], "description": "exposed: recognised significantly more often than alpha on hold-out rounds"},
            "exposure": number("TPR of the headline attack on this record; without hold-out rounds that on the fitted ones, which is optimistic"),
            "exposure_low": nothing(number("lower end of its interval"), "no hold-out rounds"), "exposure_high": nothing(number("its upper end"), "no hold-out rounds"),
        },
    )  # fmt: skip


def _controls_of_pairs() -> Schema:
    positive = record("a record with a wrong label, which a sound audit finds", {
        "state": text("as of any record"), "p_holm": number("of its paired test"), "found": flag("whether anything was found; if not, there is no verdict"),
    })  # fmt: skip
    level = proportion("FPR of the headline attack on hold-out rounds, over all records", {
        "alpha": number("that it aims at"), "p": number("p-value of keeping it"), "alarm": flag("p of 0.001 or less"),
    })  # fmt: skip
    return record(
        "checks of the audit itself",
        {
            "null": alarmed("models without the record, early rounds against late: nothing may differ", {"n_tests": whole("records tested")}),
            "positive": mapping("by record", positive),
        },
        {"level": level},
    )


def _pool() -> Schema:
    exposed = record(
        "a record, or whom it belongs to",
        {
            "sample_id": whole("in the audit"), "source_id": whole("row of the data set"), "label": whole("its class; -1: not known"),
            "n_holding": whole("targets that trained on it"), "n_detected": whole("of them recognised"),
            "rate": nothing(number("share recognised"), "no target trained on it"), "low": nothing(number("lower end of its interval"), "as above"),
            "high": nothing(number("upper end"), "as above"), "n_others": whole("targets that did not train on it"), "n_false_alarms": whole("of them accused"),
            "p": number("p-value of being recognised by chance"), "bh": flag("flagged: at most 5 % of the flagged are so by chance, in expectation (Benjamini-Hochberg)"),
        },
        {"unit": text("to whom it belongs"), "n_records": whole("records of theirs")},
    )  # fmt: skip
    run = record("one training", {
        "epsilon": number("its bound"), "delta": number("at"), "confidence": number("of this run alone"), "strategy": text("split or bonferroni"),
        "n_canaries": whole("coins"), "n_guesses": whole("guesses made"), "n_correct": whole("right ones"), "k_plus": whole("guesses member"),
        "k_minus": whole("guesses non-member"), "n_tried": whole("numbers of guesses that shared the error"), "attainable": number("the bound, had all been right"),
        "p": nothing(number("p-value of the claim"), "nothing is claimed"),
    })  # fmt: skip
    part = record("a list of records", {
        "name": text("its name"), "is_member": flag("whether the model trained on it"), "length": whole("records"), "n_audited": whole("of them audited"),
    }, {"n_left_out": whole("left out, as on both sides")})  # fmt: skip
    return record(
        "an audit in which every audited model is the target in turn, or of a given model",
        _head(["halves", "shadow", "canaries", "given", "imported"]) | {
            "n_targets": whole("audited models"), "n_samples": whole("audited records, or units"), "n_population": whole("records outside every training set"),
            "attacks": mapping("by key in params.yaml", _attack()),
            "comparison": mapping("each attack less the headline attack", record("the differences", {
                "auc": tested("of the AUCs", {"a": number("AUC of this attack"), "b": number("AUC of the headline attack")}),
                "tpr": tested("of the TPRs", {"at_fpr": number("FPR"), "a": number("TPR of this attack"), "b": number("TPR of the headline attack")}),
            })),
            "agreement": mapping("each attack beside the headline attack", _agreement()),
            "classes": nothing(array("the headline attack by class, in the order of labels", record("a class", {
                "class": whole("label"), "n_samples": whole("records"), "auc": nothing(interval(AUC), "too few records"), "tpr": nothing(rate(TPR), "too few records"),
            })), "records have no class"),
            "controls": _controls(),
            "thresholds_from": {"enum": ["mock targets", "other non-members"], "description": "what thresholds were set on, so that nothing decides about itself"},
            "exposure": nothing(record("how often single records are recognised by the headline attack", {
                "alpha": number("FPR of the decisions"), "n_flagged": whole("flagged records"), "n_samples": whole("of so many"),
                "most": array("the 20 most exposed", exposed),
            }), "one model, or no thresholds: no rate of a single record"),
            "usage": nothing(array("how well the share of a set that a model was trained on is estimated", record("sets of one true share", {
                "share": number("true share of members"), "n": whole("records of a set"), "n_sets": whole("sets tried"), "n_refused": whole("without an estimate"),
                "mean": nothing(number("mean estimate"), "none was made"), "width": number("mean width of the intervals"),
                "held": proportion("intervals that hold the true share", k="integer"),
            })), "fewer than three independent models, or than 20 members or non-members of each"),
            "epsilon": _epsilon({"strategy": text("how numbers of guesses share the error: split or bonferroni"), "runs": array("one a training", run)}),
        },
        {
            "unit": _unit({"n_records": whole("records of all"), "largest": whole("most records of one")}),
            "slices": array("the headline attack by columns of the data", _slices()),
            "parts": array("of a given model: the lists that it is held against", part),
            "references": text("recipe of a given model's references"),
            "is_balanced": flag("whether every record has as many models that trained on it, as imported ones may"),
            "notes": array("what is to be known of imported models", text("a sentence")),
        },
    )  # fmt: skip


def _agreement() -> Schema:
    of_two = "of two orders of the scores, mean over targets"
    return record("how alike two sets of scores are", {
        "spearman": interval(f"rank correlation {of_two}", may_lack=True), "jaccard": interval(f"overlap of the highest percent {of_two}", may_lack=True),
    })  # fmt: skip


def _ppv() -> Schema:
    return array("precision, by how many candidates are members", record("of one prior", {
        "prior": number("share of candidates that are members"), "value": nothing(number("share of the accused that are members"), "nobody was accused"),
        "low": number("lower end of its interval"), "high": number("upper end"),
    }))  # fmt: skip


def _decided(meaning: str, more: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """Rates of decisions whose threshold did not see what it decides about."""
    return record(meaning, {
        "achieved_fpr": interval(FPR), "tpr": interval(TPR), "ppv": _ppv(), "n_false_positives": whole("non-members accused"),
        "n_scores": whole("scores of non-members"), "n_non_members": whole("distinct non-members"), **more,
    }, optional)  # fmt: skip


def _attack() -> Schema:
    summary = record("over the targets", {
        "mean": number("mean"), "std": nothing(number("standard deviation"), "one target"), "lowest": number("lowest"), "median": number("median"), "highest": number("highest"),
    })  # fmt: skip
    counts = {"n_members": whole("members"), "n_non_members": whole("non-members")}
    return record(
        "an attack",
        {
            "name": text("of the attack's function"), "options": declared("its options"), "alpha": number(f"{FPR} that decisions aim at"),
            "n_references": whole("reference models that score a target"), "n_references_of_mocks": whole("that score a mock target, which sets thresholds"),
            "n_queries": nothing(number("queries of the target a record"), "not counted"),
            "auc": interval(AUC), "rates": array("TPR at several FPRs, thresholds chosen on these very scores", rate(TPR)),
            "balanced_accuracy": optimistic("best mean of TPR and 1 - FPR"), "advantage": optimistic("best TPR - FPR"),
            "n_targets": whole("audited models"), "n_units": whole("of them independent, such as pairs of complements"), "n_samples": whole("audited records"),
            "per_target": nothing(record("each target by itself", {
                "targets": array("in the order of the plan", record("a target", {"auc": interval(AUC, counts), "tpr": rate(TPR, pooled=False)})),
                "spread": record("how much they differ", {"auc": summary, "tpr": summary}),
            }), "no target has both members and non-members"),
            "calibrated": array("rates at thresholds that were set beforehand, on mock targets or other non-members; empty where too few set them",
                _decided("at a declared FPR", {"at_fpr": number("declared FPR"), "optimistic": record("at the best thresholds on these very scores", {
                    "tpr": nothing(number("TPR"), "none"), "achieved_fpr": nothing(number("FPR"), "none"),
                })})),
            "halves_of_references": nothing(_agreement(), "without references there are no halves of them"),
        },
        {"natural": _decided("rates at the attack's own threshold", {"is_only": flag("whether it has no other, as one that asks whether the answer is right")})},
    )  # fmt: skip


def _controls() -> Schema:
    null = nothing(alarmed("scores against the membership of an independent model: AUC 0.5", {
        "attacks": mapping("by attack", record("one attack", {"p": number("p-value"), "auc": number(AUC)})),
    }), "no independent model")  # fmt: skip
    count = nothing(alarmed("does the number of references that trained on a record tell who is a member?", {
        "attacks": mapping("by number of references", record("one number", {"p": number("p-value"), "auc": number(AUC)})),
    }), "references are as many of both kinds")  # fmt: skip
    columns = record("a property", {"auc": interval(AUC), "p": number("p-value, corrected by Holm")})
    blind = record("can members be told without asking the model?", {
        "n_members": whole("distinct members looked at"), "n_non_members": whole("distinct non-members"), "n_features": whole("features seen"),
        "auc": nothing(interval(AUC), "see why"), "p": nothing(number("p-value"), "see why"), "alarm": flag("p of 0.001 or less"),
        "balanced_accuracy": nothing(interval("of saying member to the highest"), "see why"),
        "classifiers": nothing(mapping("AUC of each classifier", number(AUC)), "see why"), "why": nothing(text("why it was not made"), "it was"),
    })  # fmt: skip
    permuted = record("shuffled membership: checks only the metrics", {
        "auc_mean": number("mean AUC"), "share_covered": number("shuffles whose interval holds 0.5"), "low": number("lower end of that share"),
        "high": number("upper end"), "n": whole("shuffles"), "alarm": flag("whether too few do"), "note": text("what it checks"),
    })  # fmt: skip
    sizes = alarmed("can members be told by their length?", {
        "tokens_differ": flag("whether tokens differ where bytes do not: the tokenizer knows the members"), "sizes": mapping("by bytes and tokens", columns),
    })  # fmt: skip
    return record(
        "checks of the audit itself",
        {"null": null, "count": count},
        {
            "blind": blind, "permuted": permuted, "length": sizes,
            "form": alarmed("can members be told by how they are written?", {"columns": mapping("by habit, such as capitals", columns)}),
            "placebo": alarmed("the loss attack on the reference, which has seen no member: AUC 0.5", {"auc": interval(AUC)}),
        },
    )  # fmt: skip


def _slices() -> Schema:
    few = "fewer than 20 distinct members or non-members"
    return record("a column", {
        "column": text("its name"), "is_measure": flag("whether its values are ranges of a number"),
        "slices": array("its values", record("a value", {
            "value": of(["string", "number", "boolean", "null"], "the value, or range"), "n_samples": whole("records"), "n_members": whole("members"), "n_non_members": whole("non-members"),
            "auc": nothing(interval(AUC), few), "tpr": nothing(rate(TPR), few), "difference": nothing(tested("AUC less that of all other records"), few),
        })),
    })  # fmt: skip
