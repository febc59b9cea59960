"""Tiny checkpoint folders as Hugging Face's transformers keeps them, made on the spot: random weights from a seed, a tokenizer of given texts.

They know nothing; tests that need a model with a memory train one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

VOCABULARY = 300  # byte-level: 256 bytes, special tokens, and the commonest pairs
CONTEXT = 64  # tokens that the tiny models can read
SPREAD = 0.3  # of the drawn weights: wide enough for answers that differ from text to text
_NAMES = ("Ada Berg", "Bo Chen", "Cy Diaz", "Di Engel", "Ed Fox", "Flo Gray", "Gus Holm", "Hal Ito", "Ida Jones", "Jo Khan")
_ILLS = (
    "a dry cough and a light fever",
    "pain in the left knee",
    "a rash on both arms",
    "no complaint at all",
    "headaches after reading",
    "a broken finger",
)


def records(n: int = 60, seed: int = 0) -> list[str]:
    """Made-up notes about made-up patients, of different lengths."""
    draw = np.random.default_rng(seed)
    notes = [f"{_NAMES[draw.integers(10)]}, {draw.integers(18, 95)}, came with {_ILLS[draw.integers(6)]}." for _ in range(n)]
    return [" ".join([note, *(notes[other] for other in draw.integers(0, n, draw.integers(0, 3)))]) for note in notes]


def tiny_tokenizer(
    texts: Iterable[str] | None = None, *, kind: str = "causal", vocabulary: int = VOCABULARY, pad: bool = False, bos: bool = False
) -> Any:
    """A byte-level tokenizer trained on texts. `causal`: `<|endoftext|>`, a BOS before every text on request; `bert`: [CLS] text [SEP]."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    is_bert = kind == "bert"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] if is_bert else ["<|endoftext|>", *(["<pad>"] if pad else []), *(["<s>"] if bos else [])]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(records() if texts is None else texts, trainer)
    if is_bert:
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
        names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    else:
        names = {"eos_token": "<|endoftext|>"} | ({"pad_token": "<pad>"} if pad else {}) | ({"bos_token": "<s>"} if bos else {})
        if bos:
            template = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
            tokenizer.post_processor = template
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _drawn(kind: str, config: Any, seed: int) -> Any:
    """A network of transformers with weights drawn from a seed."""
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return getattr(transformers, kind)(config).eval()


def _saved(folder: Path, network: Any, tokenizer: Any | None, max_shard_size: str = "1GB") -> Path:
    network.save_pretrained(folder, max_shard_size=max_shard_size)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def tiny_gpt2(
    folder: Path, tokenizer_texts: Iterable[str] | None = None, *, vocabulary: int = VOCABULARY, layers: int = 2, width: int = 32, context: int = CONTEXT,
    pad: bool = False, bos: bool = False, seed: int = 0, max_shard_size: str = "1GB",
) -> Path:  # fmt: skip
    """A causal language model. GPT-2's own tokenizer has neither a pad token nor a BOS before the text; ours has them on request."""
    from transformers import GPT2Config

    tokenizer = tiny_tokenizer(tokenizer_texts, vocabulary=vocabulary, pad=pad, bos=bos)
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=context, n_embd=width, n_layer=layers, n_head=2, initializer_range=SPREAD,
        bos_token_id=tokenizer.bos_token_id if bos else end, eos_token_id=end, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return _saved(folder, _drawn("GPT2LMHeadModel", config, seed), tokenizer, max_shard_size)


def _bert(tokenizer: Any, **fields: Any) -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, initializer_range=SPREAD,
        max_position_embeddings=CONTEXT, pad_token_id=tokenizer.pad_token_id, **fields,
    )  # fmt: skip


def tiny_bert_mlm(folder: Path, tokenizer_texts: Iterable[str] | None = None, *, seed: int = 0) -> Path:
    """A masked language model."""
    tokenizer = tiny_tokenizer(tokenizer_texts, kind="bert")
    return _saved(folder, _drawn("BertForMaskedLM", _bert(tokenizer), seed), tokenizer)


def _labelled(labels: tuple[str, ...]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}


def tiny_bert_classifier(
    folder: Path, tokenizer_texts: Iterable[str] | None = None, *, labels: tuple[str, ...] = ("calm", "worried", "urgent"), seed: int = 0
) -> Path:
    """A classifier of texts, whose labels have names."""
    tokenizer = tiny_tokenizer(tokenizer_texts, kind="bert")
    return _saved(folder, _drawn("BertForSequenceClassification", _bert(tokenizer, **_labelled(labels)), seed), tokenizer)


def tiny_gpt2_classifier(
    folder: Path, tokenizer_texts: Iterable[str] | None = None, *, labels: tuple[str, ...] = ("no", "yes"), seed: int = 0
) -> Path:
    """A classifier of texts that reads from left to right, without a pad token: transformers refuses to ask it about several texts at once."""
    from transformers import GPT2Config

    tokenizer = tiny_tokenizer(tokenizer_texts)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=2, initializer_range=SPREAD, pad_token_id=None,
        bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id, **_labelled(labels),
    )  # fmt: skip
    return _saved(folder, _drawn("GPT2ForSequenceClassification", config, seed), tokenizer)


def tiny_token_classifier(
    folder: Path, tokenizer_texts: Iterable[str] | None = None, *, labels: tuple[str, ...] = ("O", "NAME", "AGE"), seed: int = 0
) -> Path:
    """A classifier of tokens."""
    tokenizer = tiny_tokenizer(tokenizer_texts, kind="bert")
    return _saved(folder, _drawn("BertForTokenClassification", _bert(tokenizer, **_labelled(labels)), seed), tokenizer)


def tiny_vit(folder: Path, *, size: int = 8, labels: tuple[str, ...] = ("cat", "dog"), has_processor: bool = True, seed: int = 0) -> Path:
    """A classifier of images, size x size x 3."""
    from transformers import ViTConfig, ViTImageProcessor

    config = ViTConfig(
        image_size=size, patch_size=4, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, initializer_range=SPREAD,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **_labelled(labels),
    )  # fmt: skip
    _saved(folder, _drawn("ViTForImageClassification", config, seed), None)
    if has_processor:
        ViTImageProcessor(size={"height": size, "width": size}).save_pretrained(folder)
    return folder


def tiny_t5(folder: Path, tokenizer_texts: Iterable[str] | None = None, *, seed: int = 0) -> Path:
    """A sequence-to-sequence model, which we refuse."""
    from transformers import T5Config

    tokenizer = tiny_tokenizer(tokenizer_texts, pad=True)
    config = T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=2, pad_token_id=tokenizer.pad_token_id)
    return _saved(folder, _drawn("T5ForConditionalGeneration", config, seed), tokenizer)


def tiny_adapter(folder: Path, base: Path, *, rank: int = 2, seed: int = 0) -> Path:
    """Low-rank additions to a tiny GPT-2 as peft keeps them, drawn so that they change its answers."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base),
            LoraConfig(r=rank, lora_alpha=4, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False, task_type="CAUSAL_LM"),
        )
    network.save_pretrained(folder)
    return folder


def edit_config(folder: Path, name: str = "config.json", **changed: Any) -> Path:
    """Change fields of a checkpoint's file of facts; None removes one."""
    path = folder / name
    config = {**json.loads(path.read_text()), **changed}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None or key not in changed}))
    return folder
