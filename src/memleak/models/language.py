"""Models of texts: a GPT-2 of any size with weights from a seed, or a checkpoint to train further, whole or by low-rank additions."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from memleak import plugins, provenance
from memleak.data import Dataset
from memleak.models import ModelError, hub_files, hub_networks, lora
from memleak.models.layers import CounterDropout
from memleak.params import Recipe
from memleak.params.texts import Text, looks_local

END = "<|endoftext|>"
_SEEN = 0.123  # a probability of dropout by which layers are known that take the recipe's


class TextNetwork(nn.Module):
    """A network of `transformers` that takes tokens [B, K] int64, -1 beyond a text's end.

    It gives logits [B, K, V] of the token after each, or [B, C] of a text's label. Padding stands on the right and is
    masked, so that no text's answer depends on the others in its batch. Its state is what trains, each tensor once: not a
    frozen base, nor a weight's second name.
    """

    def __init__(self, network: nn.Module, task: str) -> None:
        super().__init__()
        self.network, self.task = network, task
        self.trained = [name for name, weight in self.named_parameters() if weight.requires_grad]
        self.has_cache = "use_cache" in inspect.signature(network.forward).parameters

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        is_there = tokens >= 0
        config: Any = self.network.config
        given = {"input_ids": torch.where(is_there, tokens, config.pad_token_id or 0), "attention_mask": is_there.long()}
        if self.has_cache:
            given["use_cache"] = False  # type: ignore[assignment]
        if config.model_type in ("gpt2", "bert"):  # with a row for each text, as gradients of single texts need them
            given["position_ids"] = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
        if config.model_type == "bert":
            given["token_type_ids"] = torch.zeros_like(tokens)
        return self.network(**given).logits

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        whole = super().state_dict(*args, **kwargs)
        return {name: whole[name] for name in self.trained}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        if strict and (differing := set(self.trained) ^ set(state_dict)):
            raise RuntimeError(f"not the weights of this model of texts: {len(differing)} names differ, such as {min(differing)}")
        return super().load_state_dict(state_dict, strict=False, assign=assign)


class Base(NamedTuple):
    """A checkpoint in memory, and the layers of it that were never trained: a fresh classifier's."""

    network: nn.Module
    fresh: list[str]


def build(recipe: Recipe, dataset: Dataset, seed: int, device: torch.device) -> TextNetwork:
    """The untrained network of a recipe, what is drawn of it from `seed` alone; models with low-rank additions have their base in common."""
    text = recipe.text
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, fresh = plugins.function_of("architectures", recipe.architecture)(recipe, dataset, device)
    reads = getattr(network.config, "max_position_embeddings", None) or text.max_length
    if reads < text.max_length:
        raise ModelError(f"text.max_length: {text.max_length} tokens, and {text.checkpoint} reads {reads}; set max_length to {reads} or less")
    if network.config.pad_token_id is None:  # which classifiers look for a text's end by
        network.config.pad_token_id = 0 if text.task == "causal-lm" else _padding(recipe, dataset)
    _set_dropout(network, recipe.dropout)
    if text.lora is not None:
        lora.add(network, text.lora, fresh, seed)
    found = TextNetwork(network, text.task).train()
    if recipe.dp is not None:
        from memleak.models.private import check_supported  # Opacus takes its time to load

        check_supported(found, recipe.architecture)
    return found.to(device, getattr(torch, recipe.weight_dtype))


def build_gpt2(recipe: Recipe, dataset: Dataset, device: torch.device) -> Base:
    """A GPT-2 of the recipe's size (Radford et al. 2019), its weights drawn on the CPU; the head is the embedding's transpose."""
    from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

    text, tokenizer = recipe.text, tokenizer_of(recipe, dataset)
    size: dict[str, Any] = {
        "vocab_size": len(tokenizer), "n_positions": text.max_length, "n_embd": text.width, "n_layer": text.layers, "n_head": text.heads,
        "num_labels": dataset.n_classes,
    }  # fmt: skip
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    kind = GPT2LMHeadModel if text.task == "causal-lm" else GPT2ForSequenceClassification
    return Base(kind(GPT2Config(**size, **ends)), [])


def build_checkpoint(recipe: Recipe, dataset: Dataset, device: torch.device) -> Base:
    """A checkpoint's network; layers that it lacks, a classifier's for so many labels, are drawn as its authors draw them."""
    text = recipe.text
    base = _loaded(text, dataset.n_classes, recipe.weight_dtype, str(device), _stamp(text))
    if text.lora is not None:
        base.network.requires_grad_(False)
        network = lora.sharing(base.network)
    else:
        network = copy.deepcopy(base.network).requires_grad_(True)
    for name in base.fresh:
        network.set_submodule(name, copy.deepcopy(network.get_submodule(name)).cpu().requires_grad_(True))
        for module in network.get_submodule(name).modules():
            network._init_weights(module)  # type: ignore[operator]
    return Base(network.to(device), base.fresh)


def _stamp(text: Text) -> tuple[tuple[str, int, int], ...]:
    """Sizes and times of a checkpoint's files, by which a changed one is loaded anew."""
    return tuple((file, Path(file).stat().st_size, Path(file).stat().st_mtime_ns) for file in text.files())


@functools.lru_cache(maxsize=1)
def _loaded(text: Text, n_classes: int, dtype: str, device: str, stamp: Any) -> Base:
    """A checkpoint, read once for all models of a process."""
    from memleak.models import hub

    assert text.checkpoint is not None
    if text.task == "causal-lm" or _has_head(text, n_classes):
        found = hub.load(
            text.checkpoint, "cpu", revision=text.revision, tokenizer=text.tokenizer, task=text.task, max_length=text.max_length, dtype="float32"
        )
        return Base(found.network.to(device, getattr(torch, dtype)), [])
    from transformers import AutoModelForSequenceClassification

    with hub_networks.quiet(), torch.random.fork_rng(devices=[]):  # what it lacks is drawn anew for each model, by draws that no loading disturbs
        network, said = AutoModelForSequenceClassification.from_pretrained(
            _folder(text),
            num_labels=n_classes,
            dtype=getattr(torch, dtype),
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            local_files_only=True,
        )
    missing = [*said["missing_keys"], *(entry[0] for entry in said["mismatched_keys"])]
    return Base(network.eval().to(device), sorted({name.rpartition(".")[0] for name in missing}))


def _folder(text: Text) -> Path:
    """Where a checkpoint's files lie."""
    assert text.checkpoint is not None
    return hub_files.folder_of(text.checkpoint, text.revision)


def _has_head(text: Text, n_classes: int) -> bool:
    """Whether a checkpoint has a classifier for as many labels as the data has."""
    config = hub_files.facts_of(_folder(text))
    n_labels = len(config.get("id2label") or (0, 1))  # transformers writes no labels where they are two without names
    return str((config.get("architectures") or [""])[0]).endswith("ForSequenceClassification") and n_labels == n_classes


def _padding(recipe: Recipe, dataset: Dataset) -> int:
    """An id to pad with, where the checkpoint names none."""
    tokenizer = tokenizer_of(recipe, dataset)
    return next((one for one in (tokenizer.pad_token_id, tokenizer.eos_token_id) if one is not None), 0)


def _set_dropout(network: nn.Module, probability: float) -> None:
    """Have the layers of dropout drop by draws that belong to each text; what drops inside of attention never does.

    Which layers these are is found in a copy without memory whose config says so.
    """
    config = copy.deepcopy(network.config)
    for key, value in network.config.to_dict().items():  # type: ignore[operator, union-attr]
        if "drop" in key and isinstance(value, (int, float)) and not isinstance(value, bool):
            setattr(network.config, key, 0.0)
            setattr(config, key, 0.0 if "att" in key else _SEEN)
    for module in network.modules():
        for key in ("p", *(key for key in vars(module) if "drop" in key)):
            if isinstance(getattr(module, key, None), float):
                setattr(module, key, 0.0)
    if not probability:
        return
    with torch.device("meta"):
        copied = type(network)(config)
    found = [name for name, module in copied.named_modules() if isinstance(module, nn.Dropout) and module.p == _SEEN]
    if not found:
        raise ModelError(f"dropout: {type(network).__name__} has no layers of dropout; leave it out")
    for layer, name in enumerate(found):
        network.set_submodule(name, CounterDropout(probability, layer))


def tokenizer_of(recipe: Recipe, dataset: Dataset) -> Any:
    """The tokenizer of a recipe, as `transformers` has them: the one it names, its checkpoint's, or the data set's own."""
    text = recipe.text
    if text.tokenizer is None and text.checkpoint is None:
        return _tokenizer(str(dataset.tokenizer_path), None, (Path(dataset.tokenizer_path).stat().st_mtime_ns,))
    return _tokenizer(text.tokenizer or text.checkpoint or "", None if text.tokenizer else text.revision, _stamp(text))


@functools.lru_cache(maxsize=4)
def _tokenizer(name: str, revision: str | None, stamp: Any) -> Any:
    """A tokenizer.json, or what a folder or a name on the hub has."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if Path(name).is_file():
        found = PreTrainedTokenizerFast(tokenizer_file=name)
        if END in found.get_vocab():
            found.eos_token = END
        return found
    try:
        return AutoTokenizer.from_pretrained(hub_files.folder_of(name, revision), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{name}: has no tokenizer that can be read ({hub_files.first_line(error)}); name one in text.tokenizer") from None


def save(model: TextNetwork, tokenizer: Any, folder: Path, base: str | None = None) -> None:
    """Write a whole model as a checkpoint of `transformers`, which appears at once or not at all; `base`: the checkpoint that it began from."""
    inner: Any = model.eval().network
    folder.parent.mkdir(parents=True, exist_ok=True)
    with hub_networks.quiet(), tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        written = Path(scratch) / folder.name
        inner.save_pretrained(written)
        tokenizer.save_pretrained(written)
        if base is not None:
            _note_base(written / hub_files.CONFIG, base, folder)
        written.rename(folder)


def _note_base(config: Path, base: str, folder: Path) -> None:
    """Write down where `hub.base_of` looks what a checkpoint began from: a path as seen from its own folder, so that both may move."""
    said = os.path.relpath(Path(base).expanduser().resolve(), folder.resolve()) if looks_local(base) else base
    known = json.loads(config.read_text(encoding="utf-8")) | {"_name_or_path": said}
    config.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def content_of(recipe: Recipe) -> str | None:
    """Digest of the files that a recipe's models begin with; of a checkpoint on the hub its commit. None where they begin with nothing."""
    text = recipe.text
    if not recipe.reads_texts or (text.checkpoint is None and text.tokenizer is None):
        return None
    said = [(Path(file).name, provenance.file_sha256(file)) for file in text.files()]
    if text.checkpoint is not None and not looks_local(text.checkpoint):
        said.append(("commit", _folder(text).name))  # as the hub's cache calls it
    return provenance.digest(said, 64)
