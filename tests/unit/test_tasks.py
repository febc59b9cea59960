"""The classic list of tasks, key by key: what becomes of it, and what is said of the rest."""

from __future__ import annotations

import pytest
import yaml

from memleak import params
from memleak.tasks import TasksError, convert

BASELINE = {"test_datasets": ["data/train", "data/test"], "target_model": "models/resnet18"}
SHADOWED = BASELINE | {
    "shadow_model": "models/shadow", "shadow_datasets": ["data/shadow_train", "data/shadow_test"], "shadow_epoch": 10, "shadow_lr": 0.0002,
    "classifier_epoch": 10, "classifier_lr": 0.0002, "batch_size": 128,
}  # fmt: skip


def task(name, args, **more):
    return {"type": "MEMBERSHIP_INFERENCE_ATTACK", "name": name, "args": args} | more


CLASSIC = [task("BASELINE", BASELINE), task("ML-LEAK", SHADOWED | {"topk": 3}), task("LABEL-ONLY", SHADOWED | {"attack_type": "r", "r": 6})]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folders that tasks name, each with one file of code, and weights of the models."""
    monkeypatch.chdir(tmp_path)
    for name in ("train", "test", "shadow_train", "shadow_test"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / f"my_{name}.py").write_text("def get_dataset():\n    return []\n")
    for name in ("resnet18", "shadow"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / f"{name}_net.py").write_text("import torch\ndef get_model():\n    return torch.nn.Flatten()\n")
    (tmp_path / "models/resnet18/best.safetensors").write_bytes(b"")
    return tmp_path


def converted(tasks, path="mem_inf.yaml"):
    with open(path, "w") as file:
        yaml.safe_dump(tasks, file)
    return convert(path)


def test_the_classic_list_becomes_one_audit(folder):
    found, remarks = converted(CLASSIC)

    assert found["datasets"] == {"resnet18": {"parts": {
        "members": {"name": "data/train/my_train.py:get_dataset"}, "non-members": {"name": "data/test/my_test.py:get_dataset"},
        "shadow-train": {"name": "data/shadow_train/my_shadow_train.py:get_dataset"},
        "shadow-test": {"name": "data/shadow_test/my_shadow_test.py:get_dataset"},
    }}}  # fmt: skip
    assert found["recipes"] == {"shadow": {
        "architecture": "models/shadow/shadow_net.py:get_model", "epochs": 10, "batch_size": 128, "learning_rate": 0.0002, "optimizer": "adamw",
        "weight_decay": 0.0,
    }}  # fmt: skip
    audit = found["audits"]["resnet18"]
    assert audit["design"] == {
        "kind": "given", "members": "members", "non_members": "non-members",
        "model": {"name": "models/resnet18/resnet18_net.py:get_model", "weights": "models/resnet18/best.safetensors", "output": "logits", "inputs": "stored"},
        "references": {"kind": "shadow", "models": 1, "train": "shadow-train", "out": "shadow-test"},
    }  # fmt: skip
    assert audit["attacks"]["baseline"] == {"name": "threshold", "signal": "correctness"}
    assert audit["attacks"]["ml-leak"]["name"] == "top_k" and audit["attacks"]["ml-leak"]["k"] == 3
    assert audit["attacks"]["label-only"]["views"] == ["identity", *(f"rotate-{i}" for i in range(1, 7))]
    assert (audit["dataset"], audit["recipe"], audit["headline"]) == ("resnet18", "shadow", "ml-leak")
    assert sum("classifier_epoch, classifier_lr" in remark for remark in remarks) == 2 and not any("NOT MAPPED" in remark for remark in remarks)


def test_what_is_written_is_valid_params(folder):
    found, _ = converted(CLASSIC)
    audit = params.validate(found).audits["resnet18"]

    assert audit.design.n_references == 1 and set(audit.attacks) == {"baseline", "ml-leak", "label-only"}


def test_the_baseline_alone_trains_nothing(folder):
    found, _ = converted([task("BASELINE", BASELINE | {"batch_size": 64})])
    audit = found["audits"]["resnet18"]

    assert "recipes" not in found and "recipe" not in audit and "references" not in audit["design"]
    assert audit["design"]["model"]["batch_size"] == 64
    assert params.validate(found).audits["resnet18"].headline == "baseline"


def test_target_datasets_is_another_name_of_test_datasets(folder):
    args = {"target_datasets": BASELINE["test_datasets"], "target_model": BASELINE["target_model"]}

    assert converted([task("BASELINE", args)]) == converted([task("BASELINE", BASELINE)])


def test_another_shadow_is_another_audit_and_a_task_of_the_same_kind_another_attack(folder):
    tasks = [*CLASSIC, task("ML-LEAK", SHADOWED | {"topk": 5}), task("ML-LEAK", SHADOWED | {"shadow_epoch": 50})]
    found, _ = converted(tasks)

    assert set(found["audits"]) == {"resnet18", "resnet18-2"} and set(found["recipes"]) == {"shadow", "shadow-2"}
    assert found["audits"]["resnet18"]["attacks"]["ml-leak-2"]["k"] == 5 and found["recipes"]["shadow-2"]["epochs"] == 50
    assert params.validate(found).audits["resnet18-2"].recipe == "shadow-2"


def test_shadow_sets_that_are_the_audited_ones_upside_down_are_not_taken(folder):
    """As the shipped list has it: the shadow model trains on the target's test set, the target's members are its non-members."""
    found, remarks = converted([task("LABEL-ONLY", SHADOWED | {"shadow_datasets": ["data/test", "data/train"]})])
    warned = " ".join(remark for remark in remarks if "WARNING" in remark)

    assert found["audits"]["resnet18"]["design"]["references"] == {"kind": "halves", "models": 2}
    assert "upside down" in warned and "data/test, data/train" in warned
    assert params.validate(found).audits["resnet18"].design.n_references == 2


def test_the_shadow_set_that_is_free_is_kept(folder):
    found, remarks = converted([task("ML-LEAK", SHADOWED | {"shadow_datasets": ["data/shadow_train", "data/test"]})])
    parts = found["datasets"]["resnet18"]["parts"]

    assert found["audits"]["resnet18"]["design"]["references"] == {"kind": "shadow", "models": 1, "parts": ["shadow"]}
    assert parts["shadow"]["name"].startswith("data/shadow_train/") and any("random half" in remark for remark in remarks)
    assert params.validate(found).audits["resnet18"].design.n_references == 1


def test_no_key_and_no_task_is_dropped_in_silence(folder):
    tasks = [
        task("BASELINE", BASELINE | {"batchsize": 3}, note="x"), task("ML-LEAK", SHADOWED | {"dropout": 1}), task("GAN", {}), task("LABELONLY", SHADOWED),
        {"type": "MODEL_EXTRACTION_ATTACK", "name": "KNOCKOFF", "args": {}}, task("ML-LEAK", BASELINE),
    ]  # fmt: skip
    _, remarks = converted(tasks)
    text = "\n".join(remarks)

    for words in ("'batchsize' (did you mean 'batch_size'?)", "'dropout'", "'note'", "MODEL_EXTRACTION_ATTACK", "task 3 (GAN): NOT MAPPED"):
        assert words in text
    assert "did you mean 'LABEL-ONLY'?" in text and "task 6 (ML-LEAK): NOT MAPPED: shadow_model, shadow_datasets missing" in text


def test_numbers_that_are_left_out_are_the_usual_ones_and_said(folder):
    args = {key: SHADOWED[key] for key in ("test_datasets", "target_model", "shadow_model", "shadow_datasets")}
    found, remarks = converted([task("ML-LEAK", args)])

    assert (found["recipes"]["shadow"]["epochs"], found["recipes"]["shadow"]["learning_rate"]) == (10, 0.0002)
    assert sum("the usual" in remark for remark in remarks) == 3 and found["audits"]["resnet18"]["attacks"]["ml-leak"]["k"] == 3


@pytest.mark.parametrize(("r", "last", "said"), [(60, "rotate-45", True), (2.5, "rotate-2", True), (1, "rotate-1", False)])
def test_turns_that_views_do_not_have_are_said(folder, r, last, said):
    found, remarks = converted([task("LABEL-ONLY", SHADOWED | {"r": r})])

    assert found["audits"]["resnet18"]["attacks"]["label-only"]["views"][-1] == last
    assert any("whole degrees" in remark for remark in remarks) == said and params.validate(found)


def test_another_kind_of_augmentation_is_named(folder):
    found, remarks = converted([task("LABEL-ONLY", SHADOWED | {"attack_type": "d"})])

    assert "views" not in found["audits"]["resnet18"]["attacks"]["label-only"] and any("attack_type 'd'" in remark for remark in remarks)


def test_folders_beside_the_list_are_found(folder, monkeypatch):
    (folder / "elsewhere").mkdir()
    with open("mem_inf.yaml", "w") as file:
        yaml.safe_dump(CLASSIC, file)
    monkeypatch.chdir(folder / "elsewhere")
    found, _ = convert("../mem_inf.yaml")

    assert found["audits"]["resnet18"]["design"]["model"]["weights"] == "../models/resnet18/best.safetensors" and params.validate(found)


def test_missing_folders_get_the_name_of_what_is_expected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, remarks = converted(CLASSIC)
    text = "\n".join(remarks)

    assert found["audits"]["resnet18"]["design"]["model"]["name"] == "models/resnet18/model.py:get_model"
    assert found["audits"]["resnet18"]["design"]["model"]["weights"] == "models/resnet18/model.safetensors"
    assert "data/train: no such folder; expected there: dataset.py with get_dataset()" in text and "no weights are found" in text


def test_weights_that_are_not_there_yet_are_expected_beside_the_code_under_its_name(folder):
    (folder / "models/resnet18/best.safetensors").unlink()
    found, remarks = converted(CLASSIC)

    assert found["audits"]["resnet18"]["design"]["model"]["weights"] == "models/resnet18/resnet18_net.safetensors"
    assert any("no weights are found; expected there: resnet18_net.safetensors" in remark for remark in remarks)


def test_a_shadow_model_in_the_folder_of_the_audited_one_is_trained_from_new_weights(folder):
    found, remarks = converted([task("ML-LEAK", SHADOWED | {"shadow_model": "models/resnet18"})])

    assert found["recipes"]["shadow"]["architecture"] == "models/resnet18/resnet18_net.py:get_model"
    assert any("best.safetensors not used for the shadow model" in remark for remark in remarks)


def test_paddles_weights_come_with_a_way_to_convert_them(folder):
    (folder / "models/resnet18/best.safetensors").rename(folder / "models/resnet18/cifar.pdparams")
    found, remarks = converted(CLASSIC)

    assert found["audits"]["resnet18"]["design"]["model"]["weights"] == "models/resnet18/cifar.safetensors"
    assert any("cifar.pdparams: weights of Paddle cannot be read" in remark and "save_file" in remark for remark in remarks)


def test_several_files_are_chosen_from_aloud(folder):
    (folder / "models/resnet18/older.pth").write_bytes(b"")
    (folder / "models/resnet18/a_helper.py").write_text("def other(): pass\n")
    (folder / "models/resnet18/z_other.py").write_text("def get_model(): pass\n")
    (folder / "models/shadow/start.pdparams").write_bytes(b"")
    found, remarks = converted(CLASSIC)
    text = "\n".join(remarks)

    assert found["audits"]["resnet18"]["design"]["model"]["name"] == "models/resnet18/resnet18_net.py:get_model"
    assert "best.safetensors is taken" in text and "resnet18_net.py is taken" in text and "start.pdparams not used" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1", "expected a list of tasks"), ("[", "this is not YAML"), ("[]", "expected a list"), ("- 3", "task 1 is not a mapping"),
        ("- {type: DLG, name: x, args: {}}", "none of its tasks could be mapped"), ("- !!python/object/apply:os.getcwd []", "this is not YAML"),
        ("- {type: MEMBERSHIP_INFERENCE_ATTACK, name: BASELINE, args: {test_datasets: [a], target_model: b}}", "two folders"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_tasks_is_refused(tmp_path, text, words):
    (tmp_path / "tasks.yaml").write_text(text)

    with pytest.raises(TasksError, match=words):
        convert(tmp_path / "tasks.yaml")


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(TasksError, match="there is no such file"):
        convert(tmp_path / "none.yaml")
