"""The classic YAML list of tasks (BASELINE, ML-LEAK, LABEL-ONLY against a given model), turned into params.yaml.

A key that has no counterpart is named in a remark, never dropped in silence. Nothing is imported, and no weights are read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from memleak import plugins

TYPE = "MEMBERSHIP_INFERENCE_ATTACK"
SETS = ("test_datasets", "target_datasets")  # two names of one key
SHADOW = ("shadow_model", "shadow_datasets", "shadow_epoch", "shadow_lr")
CLASSIFIER = ("classifier_epoch", "classifier_lr")
KEYS = {  # what each task may say of itself
    "BASELINE": {*SETS, "target_model", "batch_size"},
    "ML-LEAK": {*SETS, "target_model", "batch_size", *SHADOW, *CLASSIFIER, "topk"},
    "LABEL-ONLY": {*SETS, "target_model", "batch_size", *SHADOW, *CLASSIFIER, "attack_type", "r"},
}
USUAL = {"shadow_epoch": 10, "shadow_lr": 0.0002, "batch_size": 128, "topk": 3, "r": 6}  # where a task leaves them out
LARGEST_TURN = 45  # degrees; views do not turn further
WEIGHTS = (".safetensors", ".pt", ".pth")


class TasksError(ValueError):
    """A file that is no list of tasks, or that holds nothing we have; the text says what was found and what is expected."""


@dataclass
class _Audit:
    """Tasks against one model and its two sets that share their shadow model, if they have one."""

    id: str
    target: tuple[str, str, str]  # folders: model, members, non-members
    shadow: dict[str, Any] | None = None  # folders and numbers of the recipe
    batch_size: int | None = None  # of queries
    attacks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, attack: dict[str, Any]) -> None:
        """Under a name of its own: a second ML-LEAK becomes ml-leak-2."""
        self.attacks[_free(name.lower(), self.attacks)] = attack


def convert(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[str]]:
    """What params.yaml says for a list of tasks, and remarks: what is not mapped, what is expected where, what to look at.

    Folders are looked for from here, then from beside the file. Tasks with one target and one shadow model become one
    audit; another shadow model, or other shadow sets, another audit.
    """
    file, remarks = Path(path), list[str]()
    audits: list[_Audit] = []
    for where, name, args in _tasks(file, remarks):
        _place(where, name, args, audits, file.parent, remarks)
    if not audits:
        raise TasksError("\n".join([f"{file}: none of its tasks could be mapped; expected {', '.join(KEYS)} of type {TYPE}", *remarks]))
    params: dict[str, Any] = {"seed": 0, "datasets": {}, "recipes": {}, "audits": {}}
    for audit in audits:
        _write(audit, params, remarks)
    if not params["recipes"]:
        del params["recipes"]
    remarks.append(
        "inputs: stored is written, since classic data sets give what their network takes; write inputs: scaled where yours give bytes 0 to 255"
    )
    return params, list(dict.fromkeys(remarks))


def _tasks(file: Path, remarks: list[str]) -> list[tuple[str, str, dict[str, Any]]]:
    """Place, name and arguments of each task that there is a counterpart of."""
    try:
        listed = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TasksError(f"{file}: there is no such file (looked in {Path.cwd()})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TasksError(f"{file}: this is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(listed, list) or not listed:
        raise TasksError(f"{file}: expected a list of tasks (- type: {TYPE}, name: BASELINE, args: ...), found {type(listed).__name__}")
    found = []
    for i, task in enumerate(listed, 1):
        if not isinstance(task, Mapping) or not isinstance(task.get("args"), Mapping):
            raise TasksError(f"{file}: task {i} is not a mapping with type, name and args")
        name, where = str(task.get("name", "")).upper(), f"task {i} ({task.get('name', 'no name')})"
        remarks += [f"{where}: not mapped: '{key}'; a task has type, name and args" for key in task if key not in ("type", "name", "args")]
        if task.get("type") != TYPE:
            remarks.append(f"{where}: NOT MAPPED: type {task.get('type')!r}; memleak answers who was in the training data, and maps {TYPE} only")
        elif name not in KEYS:
            remarks.append(f"{where}: NOT MAPPED: no such attack{plugins.nearest(name, list(KEYS))}")
        else:
            found.append((where, name, dict(task["args"])))
    return found


def _place(where: str, name: str, args: dict[str, Any], audits: list[_Audit], beside: Path, remarks: list[str]) -> None:
    """Put a task into the audit that it belongs to, or into a new one."""
    sets: Any = args.get(SETS[0], args.get(SETS[1]))
    missing = [key for key, given in (("target_model", args.get("target_model")), ("test_datasets", sets)) if not given]
    if name != "BASELINE":
        missing += [key for key in SHADOW[:2] if not args.get(key)]
    if missing:
        remarks.append(f"{where}: NOT MAPPED: {', '.join(missing)} missing")
        return
    for key, given in ((SETS[0], sets), ("shadow_datasets", args.get("shadow_datasets"))):
        if given is not None and (not isinstance(given, list) or len(given) != 2):
            raise TasksError(f"{where}: {key} is {given!r}; expected two folders, [members, non-members]")
    remarks += [f"{where}: not mapped: '{key}'{plugins.nearest(key, sorted(KEYS[name]))}" for key in args if key not in KEYS[name]]
    if all(key in args for key in SETS) and args[SETS[0]] != args[SETS[1]]:
        remarks.append(f"{where}: test_datasets and target_datasets differ; test_datasets is taken")
    target = _folder(args["target_model"], beside), _folder(sets[0], beside), _folder(sets[1], beside)
    shadow = None if name == "BASELINE" else _shadow(where, args, beside, remarks)
    fitting = [one for one in audits if one.target == target and (shadow is None or one.shadow in (None, shadow))]
    if fitting:
        audit = fitting[0]
    else:
        audit = _Audit(_free(_id(Path(target[0]).name), [one.id for one in audits]), target)
        audits.append(audit)
    audit.shadow = audit.shadow or shadow
    if name == "BASELINE" and "batch_size" in args:
        audit.batch_size = args["batch_size"]
    audit.add(name, _attack(where, name, args, remarks))


def _shadow(where: str, args: dict[str, Any], beside: Path, remarks: list[str]) -> dict[str, Any]:
    """Folders and numbers of a shadow model."""
    for key in ("shadow_epoch", "shadow_lr", "batch_size"):
        if key not in args:
            remarks.append(f"{where}: {key} is not given; the usual {USUAL[key]} is written")
    return {
        "model": _folder(args["shadow_model"], beside), "datasets": [_folder(one, beside) for one in args["shadow_datasets"]],
        "epochs": args.get("shadow_epoch", USUAL["shadow_epoch"]), "batch_size": args.get("batch_size", USUAL["batch_size"]),
        "learning_rate": args.get("shadow_lr", USUAL["shadow_lr"]),
    }  # fmt: skip


def _attack(where: str, name: str, args: dict[str, Any], remarks: list[str]) -> dict[str, Any]:
    """The entry below `attacks`."""
    if name == "BASELINE":
        return {"name": "threshold", "signal": "correctness"}
    written = ", ".join(key for key in CLASSIFIER if key in args)
    if written:
        remarks.append(f"{where}: not mapped: {written}; the attack's classifier is scikit-learn's, which stops by itself (batch_size likewise)")
    if name == "ML-LEAK":
        remarks.append(f"{where}: the largest outputs are taken after the softmax, as logarithms (features: log_posterior)")
        return {"name": "top_k", "k": args.get("topk", USUAL["topk"]), "classifier": "mlp"}
    if args.get("attack_type", "r") != "r":
        remarks.append(f"{where}: not mapped: attack_type {args['attack_type']!r}; turned images are r. label_only is written with views of its own")
        return {"name": "label_only", "classifier": "mlp"}
    asked = args.get("r", USUAL["r"])
    if isinstance(asked, bool) or not isinstance(asked, (int, float)) or asked < 1:
        raise TasksError(f"{where}: r is {asked!r}; expected degrees, 1 or more")
    degrees = min(int(asked), LARGEST_TURN)
    if degrees != asked:
        remarks.append(f"{where}: r is {asked}; views turn by whole degrees up to {LARGEST_TURN}, so that {degrees} is written")
    return {"name": "label_only", "views": ["identity", *(f"rotate-{i}" for i in range(1, degrees + 1))], "classifier": "mlp"}


def _write(audit: _Audit, params: dict[str, Any], remarks: list[str]) -> None:
    """The data set, recipe and audit of some tasks, added to `params`."""
    model, members, others = audit.target
    parts = {"members": members, "non-members": others}
    design: dict[str, Any] = {"kind": "given", "model": _given(model, remarks)}
    if audit.batch_size is not None:
        design["model"]["batch_size"] = audit.batch_size
    design |= {"members": "members", "non_members": "non-members"}
    written: dict[str, Any] = {"dataset": audit.id}
    if audit.shadow is not None:
        shadow_parts, design["references"] = _references(audit, remarks)
        parts |= shadow_parts
        written["recipe"] = _recipe(audit.shadow, params["recipes"], remarks)
    named = {part: {"name": f"{_code(folder, 'get_dataset', 'dataset.py', remarks)}:get_dataset"} for part, folder in parts.items()}
    params["datasets"][audit.id] = {"parts": named}
    headline = next((one for kind in ("top_k", "label_only") for one, attack in audit.attacks.items() if attack["name"] == kind), None)
    params["audits"][audit.id] = written | {"design": design, "attacks": audit.attacks, "headline": headline or next(iter(audit.attacks))}


def _given(folder: str, remarks: list[str]) -> dict[str, Any]:
    """The audited model."""
    code = _code(folder, "get_model", "model.py", remarks)
    return {"name": f"{code}:get_model", "weights": _weights(folder, Path(code).stem, remarks), "output": "logits", "inputs": "stored"}


def _references(audit: _Audit, remarks: list[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Parts of the shadow pool, and the references that train on them; audited records are no shadow pool."""
    assert audit.shadow is not None
    train, out = audit.shadow["datasets"]
    free = [folder for folder in dict.fromkeys((train, out)) if folder not in audit.target[1:]]
    if len(free) == 2:
        return {"shadow-train": train, "shadow-test": out}, {"kind": "shadow", "models": 1, "train": "shadow-train", "out": "shadow-test"}
    if train == out:
        remarks.append(
            f"{audit.id}: WARNING: both shadow sets are {train}: a shadow model that has seen all of them shows nothing about those unseen"
        )
    taken = [folder for folder in dict.fromkeys((train, out)) if folder in audit.target[1:]]
    if taken:
        remarks.append(
            f"{audit.id}: WARNING: the shadow sets hold the audited records themselves ({', '.join(taken)}): "
            "a shadow model that trains on the target's non-members, with its members for non-members, learns the answer upside down"
        )
    if free:
        remarks.append(f"{audit.id}: the shadow model trains on a random half of {free[0]} alone, the other half are its non-members")
        return {"shadow": free[0]}, {"kind": "shadow", "models": 1, "parts": ["shadow"]}
    remarks.append(
        f"{audit.id}: references train on random halves of members and non-members instead (references: {{kind: halves, models: 2}}), "
        "as an auditor can, and an attacker who holds none of them cannot; give shadow records of their own for that"
    )
    return {}, {"kind": "halves", "models": 2}


def _recipe(shadow: dict[str, Any], recipes: dict[str, Any], remarks: list[str]) -> str:
    """The id of the recipe that trains a shadow model; a recipe is written once. Adam without decay is AdamW with none."""
    unused = [file.name for file in sorted(Path(shadow["model"]).glob("*")) if file.suffix in (*WEIGHTS, ".pdparams")]
    if unused:
        remarks.append(f"{shadow['model']}: {', '.join(unused)} not used for the shadow model, which is trained from new weights")
    recipe = {
        "architecture": f"{_code(shadow['model'], 'get_model', 'model.py', remarks)}:get_model",
        **{key: shadow[key] for key in ("epochs", "batch_size", "learning_rate")},
        "optimizer": "adamw", "weight_decay": 0.0,
    }  # fmt: skip
    known = next((one for one, written in recipes.items() if written == recipe), None)
    name = known or _free("shadow", recipes)
    recipes[name] = recipe
    return name


def _folder(given: Any, beside: Path) -> str:
    """A folder as it is found from here, or from beside the list of tasks; as written where it is in neither place."""
    path = Path(str(given))
    place = beside / path if not path.is_dir() and (beside / path).is_dir() else path
    return Path(os.path.normpath(place)).as_posix()


def _code(folder: str, function: str, expected: str, remarks: list[str]) -> str:
    """The `.py` file of a folder that defines a function; the expected one, and a remark, where there is none."""
    if not Path(folder).is_dir():
        remarks.append(f"{folder}: no such folder; expected there: {expected} with {function}()")
        return f"{folder}/{expected}"
    files = sorted(Path(folder).glob("*.py"))
    defining = [file for file in files if re.search(rf"^def {function}\b", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)]
    if not defining:
        found = f"; {', '.join(file.name for file in files)} has none" if files else ""
        remarks.append(f"{folder}: no function {function}() is found{found}; expected there: {expected} with {function}()")
        return f"{folder}/{expected}"
    if len(defining) > 1:
        remarks.append(f"{folder}: {function}() stands in {', '.join(file.name for file in defining)}; {defining[0].name} is taken")
    return defining[0].as_posix()


def _weights(folder: str, code: str, remarks: list[str]) -> str:
    """The file of weights in a folder; the expected one, called as the code is, and a remark, where there is none that can be read."""
    found = sorted(file for file in Path(folder).glob("*") if file.suffix in WEIGHTS)
    found.sort(key=lambda file: WEIGHTS.index(file.suffix))  # stable: safetensors first
    if len(found) > 1:
        remarks.append(f"{folder}: {', '.join(file.name for file in found)}; {found[0].name} is taken for the weights")
    if found:
        return found[0].as_posix()
    paddle = sorted(Path(folder).glob("*.pdparams"))
    expected = f"{folder}/{paddle[0].stem if paddle else code}.safetensors"
    if paddle:
        remarks.append(
            f"{paddle[0].as_posix()}: weights of Paddle cannot be read; load them there (paddle.load), write every array under the name that the "
            f"network of get_model() has for it (linear weights transposed; BatchNorm's _mean and _variance are running_mean and running_var), "
            f"by safetensors.numpy.save_file, to {expected}"
        )
    else:
        remarks.append(f"{folder}: no weights are found; expected there: {Path(expected).name} (or .pt, .pth with a state dict)")
    return expected


def _id(name: str) -> str:
    """An id of params.yaml for the name of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "model"


def _free(name: str, taken: Sequence[str] | Mapping[str, Any]) -> str:
    """The name, or the name with the next number that is not taken."""
    return next(one for one in (name, *(f"{name}-{i}" for i in range(2, len(taken) + 3))) if one not in taken)
