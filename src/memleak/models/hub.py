"""Checkpoints as Hugging Face's transformers keeps them: loaded by what config.json says they are, or wrapped where they are loaded already.

The class follows from `architectures`, never from trial: a body loaded into a class with a head that it does not have
gets a random one, and every number after it is noise. So a weight that is missing is an error too.
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from memleak.models import ModelError, hub_files, hub_kinds, hub_networks
from memleak.models.hub_files import some
from memleak.models.hub_networks import quiet
from memleak.params.texts import looks_local

DEFAULT_LENGTH = 256  # tokens of a text that are read where nobody says how many
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_NO_LIMIT = 10**6  # a tokenizer without a limit says 1e30


@dataclass(frozen=True)
class Checkpoint:
    """A network that is there to be asked, and how texts or images become what it takes."""

    network: Any  # PreTrainedModel in evaluation mode on its device
    tokenizer: Any | None  # None for images
    task: str  # one of hub_kinds.TASKS
    name: str
    max_length: int  # tokens of a text that are read, special ones included
    facts: dict[str, Any]  # what stands in results about it
    warnings: list[str] = field(default_factory=list)
    processor: Any | None = None  # of images, where the checkpoint brings one

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of a classifier, as config.json calls them."""
        return tuple(str(self.network.config.id2label[i]) for i in range(self.network.config.num_labels))


def load(
    name: str, device: torch.device | str, *, revision: str | None = None, tokenizer: Any = None, task: str = "auto",
    max_length: int | None = None, dtype: str = "auto", trust_remote_code: bool = False, local_files_only: bool | None = None,
) -> Checkpoint:  # fmt: skip
    """The checkpoint of a folder or of the hub. Raises ModelError for what cannot be used, in one sentence.

    `max_length`: at most what the model can read (default: 256). `dtype="auto"`: float32 on a CPU, where shorter types are
    slower, and the checkpoint's own elsewhere.
    """
    device = torch.device(device)
    folder = hub_files.folder_of(name, revision, local_files_only, trust_remote_code)
    how = {"dtype": _dtype(dtype, device), "trust_remote_code": trust_remote_code}
    warnings: list[str] = []
    is_adapter = hub_files.is_adapter(folder)
    with quiet():
        if is_adapter:
            network, files, base = hub_networks.adapted(name, folder, task, local_files_only, how, warnings)
        else:
            network, files, base = *hub_networks.whole(name, folder, task, how, warnings), folder
        found = hub_kinds.task_of(network.config, type(network).__name__, name)
        given = tokenizer if tokenizer is not None else (folder if _has_tokenizer(folder) else base)
        reader = None if found == "image-classification" else _tokenizer(given, name, trust_remote_code, local_files_only)
        processor = _processor(folder) if found == "image-classification" else None
    is_commit = folder.parent.name == "snapshots"  # of the hub's cache
    facts = {"sha256": hub_files.sha256_of(files), "is_adapter": is_adapter} | ({"revision": folder.name} if is_commit else {})
    return _checkpoint(network.to(device), reader, found, name, max_length, facts, warnings, processor)


def wrap(
    model: Any, tokenizer: Any = None, *, device: torch.device | str | None = None, task: str = "auto", max_length: int | None = None,
    name: str | None = None, processor: Any = None,
) -> Checkpoint:  # fmt: skip
    """A network of transformers that is loaded already (an adapter of peft is merged in a copy); set to evaluation mode, left where it is.

    `tokenizer`: the object, or the name of one; without it, that of the folder which the network came from.
    """
    from transformers import PreTrainedModel

    is_adapter = hasattr(model, "merge_and_unload")
    if is_adapter:
        model = copy.deepcopy(model).merge_and_unload()
    if not isinstance(model, PreTrainedModel):
        raise ModelError(f"model: is {type(model).__name__}, expected a model of transformers, a folder or a name on the hub; a network of your own "
                         "is audited through params.yaml (design: given)")  # fmt: skip
    origin = str(model.name_or_path or "")
    name = name or origin or type(model).__name__
    found = hub_kinds.task_of(model.config, type(model).__name__, name)
    hub_kinds.refuse_other_task(found, task, type(model).__name__, name)
    if found != "image-classification":
        if tokenizer is None and not origin:
            raise ModelError(f"model {name}: was made in memory, and no tokenizer is given; pass tokenizer=")
        with quiet():
            tokenizer = _tokenizer(origin if tokenizer is None else tokenizer, name, False, None)
    facts = {"sha256": _sha256_of_tensors(model), "is_adapter": is_adapter}
    network = model.eval() if device is None else model.eval().to(torch.device(device))
    return _checkpoint(network, tokenizer, found, name, max_length, facts, [], processor)


def is_same(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints are one network: the same object, file or weights, however they were loaded."""
    if one.network is other.network or one.facts["sha256"] == other.facts["sha256"]:
        return True
    if any(one.facts[key] != other.facts[key] for key in ("architecture", "n_parameters", "dtype")):
        return False
    pairs = zip(one.network.parameters(), other.network.parameters(), strict=True)
    return all(torch.equal(a.cpu(), b.cpu()) for a, b in pairs)  # of two networks the first weights differ


def base_of(checkpoint: Checkpoint | str) -> str | None:
    """What a checkpoint says that it was fine-tuned from: the base of its adapter, or `_name_or_path` where it still exists.

    A network that was trained in memory does not say it: its name is that of what it was loaded from.
    """
    name = checkpoint if isinstance(checkpoint, str) else checkpoint.name
    if not looks_local(name):
        try:
            folder = hub_files.folder_of(name, local_files_only=True)  # what the cache does not hold was not asked about either
        except ModelError:
            return None
    else:
        folder = Path(name).expanduser()
    facts: dict[str, Any] = {}
    for file, key in ((hub_files.ADAPTER_CONFIG, "base_model_name_or_path"), (hub_files.CONFIG, "_name_or_path")):
        if (folder / file).is_file():
            facts.setdefault("base", hub_files.facts_of(folder, file).get(key))
    base = facts.get("base")
    if base and (folder / base).is_dir():  # as memleak writes it, so that both may move
        base = str((folder / base).resolve())
    if not base or base == name or (looks_local(base) and not Path(base).expanduser().is_dir()):
        return None
    return None if Path(base).expanduser().resolve() == folder.resolve() else str(base)


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt"))


def _tokenizer(given: Any, name: str, trust_remote_code: bool, local_files_only: bool | None) -> Any:
    """A tokenizer from a folder, a tokenizer.json or the hub; an object is taken as it is."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if not isinstance(given, (str, Path)):
        if not callable(given) or not hasattr(given, "get_vocab"):
            raise ModelError(
                f"tokenizer: is {type(given).__name__}, expected a tokenizer of transformers, a folder, a tokenizer.json or a name on the hub"
            )
        return given
    path = Path(given).expanduser()
    if looks_local(str(given)) and not path.exists():
        raise ModelError(
            f"tokenizer {given}: there is no such folder or file (looked for {path.absolute()}); give the folder that holds its tokenizer.json"
        )
    without = f"checkpoint {name}: {given} has no tokenizer; save it there (tokenizer.save_pretrained) or pass tokenizer="
    try:
        if path.is_file():
            found: Any = PreTrainedTokenizerFast(tokenizer_file=str(path))
        else:
            folder = path if path.is_dir() else hub_files.folder_of(str(given), None, local_files_only, trust_remote_code)
            found = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except ModelError:
        raise
    except Exception as error:  # of the library behind it, which raises Exception itself
        if path.is_dir() and not _has_tokenizer(path):
            raise ModelError(without) from None
        raise ModelError(f"checkpoint {name}: the tokenizer in {given} cannot be read ({type(error).__name__}: {hub_files.first_line(error)}); "
                         "copy it again, or name another (tokenizer)") from None  # fmt: skip
    if len(found) <= len(set(found.all_special_tokens)):  # what transformers makes up where there are no files
        raise ModelError(without)
    return found


def _processor(folder: Path) -> Any | None:
    """How the checkpoint wants images prepared, where it says so."""
    if not (folder / "preprocessor_config.json").is_file():
        return None
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(folder, local_files_only=True)


def _dtype(asked: str, device: torch.device) -> Any:
    if asked not in ("auto", *DTYPES):
        raise ModelError(f"dtype: '{asked}' is unknown; it is auto, {', '.join(DTYPES)}")
    return DTYPES[asked] if asked != "auto" else (torch.float32 if device.type == "cpu" else "auto")


# -- looked at once it is loaded ----------------------------------------------------------------------------------


def _checkpoint(
    network: Any, tokenizer: Any, task: str, name: str, max_length: int | None, facts: dict[str, Any], warnings: list[str], processor: Any
) -> Checkpoint:
    _refuse_broken_weights(network, name)
    context = None
    if tokenizer is not None:
        _refuse_strange_tokens(network, tokenizer, task, name)
        context = context_of(network, tokenizer)
        if max_length is not None and context is not None and max_length > context:
            warnings.append(f"max_length: {max_length} tokens asked, the model reads {context}; texts are cut there")
    if task == "causal-lm":
        _refuse_answers_that_look_ahead(network, name)
    facts = {
        "architecture": type(network).__name__,
        "model_type": network.config.model_type,
        "task": task,
        "n_parameters": sum(parameter.numel() for parameter in network.parameters()),
        **facts,
        "tokenizer_sha256": None if tokenizer is None else _sha256_of_tokenizer(tokenizer),
        "dtype": str(next(network.parameters()).dtype).removeprefix("torch."),
    }
    return Checkpoint(network.eval(), tokenizer, task, name, min(max_length or DEFAULT_LENGTH, context or _NO_LIMIT), facts, warnings, processor)


def _refuse_broken_weights(network: Any, name: str) -> None:
    bad = [key for key, value in network.named_parameters() if value.is_floating_point() and not torch.isfinite(value).all()]
    if bad:
        raise ModelError(
            f"checkpoint {name}: NaN or infinite values in {len(bad)} weights ({some(bad)}); its training diverged, or a file is damaged"
        )


def _refuse_strange_tokens(network: Any, tokenizer: Any, task: str, name: str) -> None:
    """Every token must have its row, and a masked model its mask."""
    largest, rows = max(tokenizer.get_vocab().values(), default=-1), network.get_input_embeddings().weight.shape[0]
    if largest >= rows:
        raise ModelError(
            f"checkpoint {name}: the tokenizer has tokens up to {largest}, the embedding {rows} rows; is it another model's? Name the right one (tokenizer)"
        )
    if task == "masked-lm" and tokenizer.mask_token_id is None:
        raise ModelError(f"checkpoint {name}: is a masked language model, and the tokenizer has no mask token; name the one that it was trained with")


def context_of(network: Any, tokenizer: Any) -> int | None:
    """How many tokens a model reads; None where nothing limits it."""
    config = network.config.get_text_config()
    limits = [getattr(tokenizer, "model_max_length", None), getattr(config, "max_position_embeddings", None)]
    for key, module in network.named_modules():  # RoBERTa counts places from its padding token's number on
        if key.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
            limits.append(module.num_embeddings - module.padding_idx - 1)
    known = [int(limit) for limit in limits if isinstance(limit, (int, float)) and 0 < limit < _NO_LIMIT]
    return min(known, default=None)


@torch.inference_mode()
def _refuse_answers_that_look_ahead(network: Any, name: str) -> None:
    """What a causal model says about a token must not depend on later ones; BERT loaded as a decoder sees the answer."""
    device = next(network.parameters()).device
    shown = [torch.tensor([[1, 2, last]], device=device) for last in (2, 0)]
    one, other = (network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, :2].float() for ids in shown)
    if not torch.allclose(one, other, rtol=1e-2, atol=1e-2):
        raise ModelError(
            f"checkpoint {name}: {type(network).__name__} reads ahead, so what it says about a token has seen it; correct architectures in config.json "
            "(a BERT is BertForMaskedLM), or set is_decoder where it was trained as one"
        )


def _sha256_of_tokenizer(tokenizer: Any) -> str:
    """Of all that it does, where it can say so; else of its tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256_of_tensors(network: Any) -> str:
    """Of weights in memory: names, types, shapes, bytes."""
    whole = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        raw = value.detach().contiguous().cpu()
        whole.update(f"{key}\0{raw.dtype}\0{tuple(raw.shape)}\0".encode())
        whole.update(raw.reshape(-1).view(torch.uint8).numpy())
    return whole.hexdigest()
