"""Checkpoints: loaded as what config.json says, refused in one sentence where a number would be noise."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import sys
import time
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from memleak.models import ModelError, hub, hub_files, language

MAKERS = {
    "gpt2": checkpoints.tiny_gpt2, "bert": checkpoints.tiny_bert_mlm, "classifier": checkpoints.tiny_bert_classifier,
    "gpt2-classifier": checkpoints.tiny_gpt2_classifier, "tokens": checkpoints.tiny_token_classifier, "vit": checkpoints.tiny_vit,
    "t5": checkpoints.tiny_t5,
}  # fmt: skip
REMOTE = """
from transformers import GPT2Config, GPT2LMHeadModel

class OddConfig(GPT2Config):
    model_type = "odd"

class OddForCausalLM(GPT2LMHeadModel):
    config_class = OddConfig
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with one checkpoint of every kind; not to be changed."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, make in MAKERS.items():
        make(folder / name)
    checkpoints.tiny_adapter(folder / "adapter", folder / "gpt2")
    return folder


@pytest.fixture
def copied(made, tmp_path):
    """Copies one of them, to be damaged."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(made / name, tmp_path / name))

    return copy


def load(folder: Path, **how) -> hub.Checkpoint:
    return hub.load(str(folder), "cpu", **how)


def refused(folder: Path | str, **how) -> str:
    """What is said about a checkpoint that cannot be used."""
    with pytest.raises(ModelError) as error:
        hub.load(str(folder), "cpu", **how)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "task", "architecture"),
    [
        ("gpt2", "causal-lm", "GPT2LMHeadModel"), ("bert", "masked-lm", "BertForMaskedLM"),
        ("classifier", "sequence-classification", "BertForSequenceClassification"),
        ("gpt2-classifier", "sequence-classification", "GPT2ForSequenceClassification"),
        ("tokens", "token-classification", "BertForTokenClassification"), ("vit", "image-classification", "ViTForImageClassification"),
    ],
)  # fmt: skip
def test_a_checkpoint_is_what_its_config_says(made, name, task, architecture):
    found = load(made / name)

    assert (found.task, found.facts["architecture"], found.warnings) == (task, architecture, [])
    assert not found.network.training
    assert (found.tokenizer is None) == (task == "image-classification")


def test_facts_name_weights_tokenizer_and_size(made):
    found = load(made / "gpt2")

    assert found.facts == {
        "architecture": "GPT2LMHeadModel", "model_type": "gpt2", "task": "causal-lm", "is_adapter": False, "dtype": "float32",
        "n_parameters": sum(value.numel() for value in load_file(made / "gpt2/model.safetensors").values()),
        "sha256": hub_files.sha256_of([made / "gpt2/model.safetensors"]), "tokenizer_sha256": found.facts["tokenizer_sha256"],
    }  # fmt: skip
    assert len(found.facts["tokenizer_sha256"]) == 64


def test_other_weights_and_another_tokenizer_have_other_digests(tmp_path, made):
    checkpoints.tiny_gpt2(tmp_path / "a", seed=1)
    checkpoints.tiny_gpt2(tmp_path / "b", ["another text"])
    first, second, third = (load(folder).facts for folder in (made / "gpt2", tmp_path / "a", tmp_path / "b"))

    assert first["sha256"] != second["sha256"]
    assert first["tokenizer_sha256"] == second["tokenizer_sha256"] != third["tokenizer_sha256"]


@pytest.mark.parametrize(("asked", "expected"), [(None, checkpoints.CONTEXT), (16, 16), (400, checkpoints.CONTEXT)])
def test_the_length_is_the_least_of_what_is_asked_and_the_context(made, asked, expected):
    found = load(made / "gpt2", max_length=asked)

    assert found.max_length == expected
    assert len(found.warnings) == (asked == 400)


def test_a_tokenizer_without_a_pad_token_needs_no_word(made):
    found = load(made / "gpt2")

    assert found.tokenizer.pad_token_id is None
    assert found.warnings == []


@pytest.mark.parametrize(
    ("name", "asked"), [("bert", "sequence-classification"), ("gpt2", "sequence-classification"), ("bert", "causal-lm"), ("gpt2", "nonsense")]
)
def test_a_checkpoint_is_not_asked_for_what_it_is_not(made, name, asked):
    said = refused(made / name, task=asked)

    assert asked in said


@pytest.mark.parametrize(("name", "head"), [("bert", "BertForSequenceClassification"), ("gpt2", "GPT2ForSequenceClassification")])
def test_a_head_that_the_weights_lack_is_not_drawn_at_random(copied, name, head):
    said = refused(checkpoints.edit_config(copied(name), architectures=[head]))

    assert "lack" in said and "random" in said and head in said


def test_a_bert_as_decoder_is_refused_because_it_sees_the_answer(copied):
    assert "reads ahead" in refused(checkpoints.edit_config(copied("bert"), architectures=["BertLMHeadModel"]))


def test_tied_weights_are_not_missing(made):
    network = load(made / "gpt2").network

    assert "lm_head.weight" not in load_file(made / "gpt2/model.safetensors")
    assert network.lm_head.weight is network.transformer.wte.weight


def test_sequence_to_sequence_is_refused(made):
    assert "sequence to another" in refused(made / "t5")


def test_a_body_without_head_is_refused(copied):
    assert "no head" in refused(checkpoints.edit_config(copied("gpt2"), architectures=["GPT2Model"]))


def test_without_architectures_the_task_must_be_said(copied):
    folder = checkpoints.edit_config(copied("gpt2"), architectures=None)

    assert "names no architectures" in refused(folder)
    assert load(folder, task="causal-lm").task == "causal-lm"


def test_a_task_that_is_said_does_not_replace_a_missing_head(copied):
    folder = checkpoints.edit_config(copied("bert"), architectures=None)

    assert "random" in refused(folder, task="sequence-classification")


def test_the_two_heads_of_a_pretrained_bert_are_asked_as_a_masked_model(copied):
    assert load(checkpoints.edit_config(copied("bert"), architectures=["BertForPreTraining"])).task == "masked-lm"


def test_an_unknown_kind_is_named(copied):
    assert "model_type 'odd' is unknown" in refused(checkpoints.edit_config(copied("gpt2"), model_type="odd", architectures=["OddModel"]))


def test_an_unknown_architecture_is_named(copied):
    assert "'GPT2ForDreams' is unknown" in refused(checkpoints.edit_config(copied("gpt2"), architectures=["GPT2ForDreams"]))


def test_code_beside_the_weights_is_run_only_when_asked(copied, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = copied("gpt2")
    (folder / "odd.py").write_text(REMOTE)
    code = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddForCausalLM"}
    checkpoints.edit_config(folder, model_type="odd", architectures=["OddForCausalLM"], auto_map=code)

    said = refused(folder)
    found = load(folder, trust_remote_code=True)

    assert "trust_remote_code" in said and "odd.OddForCausalLM" in said
    assert (found.task, found.facts["architecture"]) == ("causal-lm", "OddForCausalLM")


def test_code_that_is_not_needed_is_not_asked_about(copied):
    assert load(checkpoints.edit_config(copied("gpt2"), auto_map={"AutoModel": "odd.Odd"})).task == "causal-lm"


# -- files --------------------------------------------------------------------------------------------------------


def test_a_sharded_checkpoint_loads_and_a_missing_shard_is_named(tmp_path, made):
    folder = checkpoints.tiny_gpt2(tmp_path / "sharded", max_shard_size="40KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    whole, parts = load(made / "gpt2").network, load(folder).network
    shards[1].unlink()

    assert len(shards) > 2
    assert torch.equal(whole.transformer.wte.weight, parts.transformer.wte.weight)
    assert shards[1].name in refused(folder)


def test_cut_weights_are_told(copied):
    folder = copied("gpt2")
    os.truncate(folder / "model.safetensors", 5000)

    assert "cut short" in refused(folder)


def test_a_note_of_git_instead_of_weights_is_told(copied):
    folder = copied("gpt2")
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")

    assert "git lfs pull" in refused(folder)


def test_a_folder_without_weights_says_what_it_found(copied):
    folder = copied("gpt2")
    (folder / "model.safetensors").rename(folder / "model.gguf")

    assert "has no weights" in (said := refused(folder)) and "model.gguf" in said


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_config_that_is_not_json_is_told(copied, content):
    folder = copied("gpt2")
    (folder / "config.json").write_text(content)

    assert "config.json" in refused(folder)


def test_a_folder_of_a_training_is_told_to_look_inside(made, tmp_path):
    shutil.copytree(made / "gpt2", tmp_path / "run/checkpoint-30")

    assert "did you mean" in (said := refused(tmp_path / "run")) and "checkpoint-30" in said


def test_a_folder_without_tokenizer_is_told_and_another_can_be_named(copied, made):
    folder = copied("gpt2")
    for file in folder.glob("tokenizer*"):
        file.unlink()

    assert "has no tokenizer; save it there (tokenizer.save_pretrained) or pass tokenizer=" in refused(folder)
    assert load(folder, tokenizer=str(made / "gpt2")).tokenizer is not None
    assert load(folder, tokenizer=str(made / "gpt2/tokenizer.json")).tokenizer is not None


def test_a_damaged_tokenizer_is_told(copied):
    folder = copied("gpt2")
    (folder / "tokenizer.json").write_text("{")

    assert "tokenizer" in refused(folder) and "cannot be read" in refused(folder)


def test_a_tokenizer_of_another_model_is_told(made, tmp_path):
    checkpoints.tiny_gpt2(tmp_path / "large", vocabulary=350)

    assert "up to 349, the embedding 300 rows" in refused(made / "gpt2", tokenizer=str(tmp_path / "large"))


def test_a_masked_model_needs_a_mask(made):
    assert "no mask token" in refused(made / "bert", tokenizer=str(made / "gpt2"))


def test_weights_with_nan_are_refused(copied):
    folder = copied("gpt2")
    weights = load_file(folder / "model.safetensors")
    weights["transformer.wpe.weight"][3, 3] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})

    assert "transformer.wpe.weight" in refused(folder)


def test_weights_of_another_size_are_refused(copied):
    assert "other shapes" in refused(checkpoints.edit_config(copied("gpt2"), n_embd=16))


def test_a_state_dict_of_torch_is_read_and_other_pickles_are_not_opened(copied, tmp_path):
    folder = copied("gpt2")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    read = load(folder).network.transformer.wte.weight.clone()  # the file is mapped, and is written over
    torch.save({"a": _Evil(tmp_path / "ran")}, folder / "pytorch_model.bin")

    assert torch.equal(read, weights["transformer.wte.weight"])
    assert "may run code" in refused(folder)
    assert not (tmp_path / "ran").exists()


class _Evil:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_the_mark_of_a_run_pickle_would_show(tmp_path):
    pickle.loads(pickle.dumps(_Evil(tmp_path / "ran")))

    assert (tmp_path / "ran").exists()


def test_a_path_that_is_not_there_is_told(tmp_path):
    assert f"no such folder (looked for {tmp_path / 'nothing'})" in refused(tmp_path / "nothing")
    assert f"no folder of this name (looked for {Path('runs/nothing').absolute()})" in refused("runs/nothing")


def test_a_tokenizer_that_is_not_there_is_called_one(made):
    with pytest.raises(ModelError, match="tokenizer /no/tok: there is no such folder or file"):
        load(made / "gpt2", tokenizer="/no/tok")


def test_a_file_is_not_a_folder(made):
    assert "is a file" in refused(made / "gpt2/model.safetensors")


# -- adapters -----------------------------------------------------------------------------------------------------


def test_an_adapter_is_merged_into_its_base(made):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    found = load(made / "adapter")
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(made / "gpt2"), made / "adapter")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        alone, merged, apart = (network(ids).logits for network in (load(made / "gpt2").network, found.network, expected))

    torch.testing.assert_close(merged, apart, rtol=1e-4, atol=1e-5)
    assert float((merged - alone).abs().max()) > 0.01
    assert found.facts["is_adapter"] and found.facts["architecture"] == "GPT2LMHeadModel"
    assert found.facts["sha256"] != load(made / "gpt2").facts["sha256"]
    assert found.tokenizer.get_vocab() == load(made / "gpt2").tokenizer.get_vocab()


def test_an_adapter_without_peft_says_what_to_install(made, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, found=importlib.util.find_spec: None if name == "peft" else found(name))

    assert "memleak[adapters]" in refused(made / "adapter")


@pytest.mark.parametrize("base", ["./gone", "owner/of-no-network", None])
def test_an_adapter_whose_base_is_missing_says_so(copied, base, monkeypatch):
    monkeypatch.setattr(hub_files, "_is_hub_reachable", lambda: False)
    folder = copied("adapter")
    facts = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(facts))

    assert str(base or "names no base") in refused(folder) and "base_model_name_or_path" in refused(folder)


def test_an_adapter_that_is_cut_or_incomplete_is_told(copied):
    folder = copied("adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    save_file(dict(list(weights.items())[:-1]), folder / "adapter_model.safetensors")
    incomplete = refused(folder)
    os.truncate(folder / "adapter_model.safetensors", 400)

    assert "lacks 1 weights" in incomplete
    assert "cut short" in refused(folder)


def test_an_adapter_that_learns_a_prompt_is_refused(made, tmp_path):
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(made / "gpt2")
    get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)).save_pretrained(tmp_path / "prompt")

    assert "learns a prompt" in refused(tmp_path / "prompt")


def test_an_adapter_of_a_head_that_the_base_lacks_is_told(copied):
    folder = checkpoints.edit_config(copied("adapter"), "adapter_config.json", modules_to_save=["score"], task_type="SEQ_CLS")

    assert "adds score" in refused(folder) and "merge" in refused(folder)


# -- the hub ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cached(made, tmp_path, monkeypatch):
    """A cache of the hub that holds `owner/tiny`, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub_files, "_is_hub_reachable", lambda: False)
    (tmp_path / "models--owner--tiny/refs").mkdir(parents=True)
    (tmp_path / "models--owner--tiny/refs/main").write_text("c0ffee")
    shutil.copytree(made / "gpt2", tmp_path / "models--owner--tiny/snapshots/c0ffee")
    return "owner/tiny"


def test_a_name_of_the_hub_without_network_is_answered_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    hub_files._is_hub_reachable()  # what is imported on the way is not counted

    start = time.perf_counter()
    said = refused("owner/not-there")

    assert time.perf_counter() - start < 2
    assert "cannot be reached" in said and "hf download" in said


def test_a_name_of_the_hub_that_is_cached_needs_no_network(cached):
    found = hub.load(cached, "cpu")

    assert (found.name, found.facts["revision"]) == (cached, "c0ffee")


def test_a_revision_that_is_not_cached_is_told(cached):
    assert "revision beef" in refused(cached, revision="beef")


def test_a_half_cached_checkpoint_is_told(cached, tmp_path):
    (tmp_path / "models--owner--tiny/snapshots/c0ffee/model.safetensors").unlink()

    assert "has no weights" in refused(cached)


def test_pickles_are_downloaded_only_where_there_is_nothing_else(made, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **how: asked.append(how) or str(tmp_path))
    monkeypatch.setattr(hub_files, "_is_hub_reachable", lambda: True)
    hub_files.folder_of("owner/pickled")
    (tmp_path / "model.safetensors").touch()
    hub_files.folder_of("owner/safe", revision="r1")

    assert [("*.bin" in how["allow_patterns"], how["revision"]) for how in asked] == [(False, None), (True, None), (False, "r1")]
    assert not any("*.py" in how["allow_patterns"] for how in asked)


def test_what_the_hub_refuses_is_told_in_a_sentence(monkeypatch):
    def gated(name, **how):
        raise PermissionError("401 Client Error.\nAccess to this model is restricted")

    monkeypatch.setattr("huggingface_hub.snapshot_download", gated)
    monkeypatch.setattr(hub_files, "_is_hub_reachable", lambda: True)

    assert "hf auth login" in refused("owner/gated")


# -- what is in memory --------------------------------------------------------------------------------------------


def test_a_loaded_network_is_wrapped_and_answers_alike(made):
    loaded = load(made / "gpt2")
    found = hub.wrap(loaded.network.train(), loaded.tokenizer, max_length=20)

    assert (found.task, found.max_length, found.network.training) == ("causal-lm", 20, False)
    assert found.network is loaded.network


def test_the_digest_of_a_wrapped_network_follows_its_weights(made):
    network = load(made / "gpt2").network
    before = hub.wrap(network).facts["sha256"]
    with torch.no_grad():
        network.transformer.wpe.weight[0, 0] += 1

    assert hub.wrap(network).facts["sha256"] != before


def test_a_wrapped_network_finds_the_tokenizer_of_its_folder(made):
    assert hub.wrap(load(made / "bert").network).tokenizer.mask_token == "[MASK]"


def test_an_adapter_in_memory_is_merged_in_a_copy(made):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(made / "gpt2"), made / "adapter")
    found = hub.wrap(adapted)

    assert found.facts["is_adapter"] and type(found.network).__name__ == "GPT2LMHeadModel"
    assert any("lora" in name for name, _ in adapted.named_modules())
    np.testing.assert_allclose(found.network.transformer.h[0].attn.c_attn.weight.detach(), load(made / "adapter").network.transformer.h[0].attn.c_attn.weight.detach(), rtol=1e-6)  # fmt: skip


def test_a_network_that_is_not_of_transformers_is_refused():
    with pytest.raises(ModelError, match="expected a model of transformers"):
        hub.wrap(torch.nn.Linear(2, 2))


def test_an_object_that_is_no_tokenizer_is_refused(made):
    with pytest.raises(ModelError, match="tokenizer: is int"):
        hub.wrap(load(made / "gpt2").network, 3)


def test_the_base_of_an_adapter_and_of_a_tuned_checkpoint_is_found(copied, made):
    tuned = checkpoints.edit_config(copied("gpt2"), _name_or_path=str(made / "gpt2"))
    lost = checkpoints.edit_config(copied("bert"), _name_or_path="./out/run3")

    assert hub.base_of(str(made / "adapter")) == str(made / "gpt2")
    assert hub.base_of(load(made / "adapter")) == str(made / "gpt2")
    assert hub.base_of(str(tuned)) == str(made / "gpt2")
    assert hub.base_of(str(lost)) is None
    assert hub.base_of(str(made / "gpt2")) is None


def test_the_base_of_a_checkpoint_that_memleak_wrote_is_found_beside_it(copied, made, monkeypatch, tmp_path):
    begun = copied("gpt2")
    network = language.TextNetwork(load(made / "gpt2").network, "causal-lm")
    language.save(network, load(made / "gpt2").tokenizer, begun.parent / "mine", str(begun))
    monkeypatch.chdir(tmp_path)

    assert hub.base_of(str(begun.parent / "mine")) == str(begun.resolve())
    assert json.loads((begun.parent / "mine/config.json").read_text())["_name_or_path"] == f"../{begun.name}"
    assert hub.is_same(load(begun), load(begun.parent / "mine"))


def test_short_types_are_not_computed_with_on_a_cpu(copied):
    folder = copied("gpt2")
    weights = {name: value.bfloat16() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    checkpoints.edit_config(folder, dtype="bfloat16")

    assert load(folder).facts["dtype"] == "float32"
    assert load(folder, dtype="bfloat16").facts["dtype"] == "bfloat16"


def test_loading_leaves_the_words_of_transformers_as_they_were(made):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    refused(made / "t5")

    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_roberta_reads_two_tokens_less_than_it_has_places(tmp_path):
    from transformers import RobertaConfig, RobertaForMaskedLM

    tokenizer = checkpoints.tiny_tokenizer(kind="bert")
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=34,
        pad_token_id=1,
    )  # fmt: skip

    assert hub.wrap(RobertaForMaskedLM(config), tokenizer, name="roberta").max_length == 32


def test_a_small_llama_is_loaded_in_a_moment():
    folder = Path(os.environ.get("MEMLEAK_TEST_DATA", "")) / "models/stories260k"
    if not os.environ.get("MEMLEAK_TEST_DATA") or not folder.is_dir():
        pytest.skip("MEMLEAK_TEST_DATA names no folder with models/stories260k")
    found = load(folder)

    assert (found.task, found.max_length, found.facts["n_parameters"]) == ("causal-lm", 256, 260032)
