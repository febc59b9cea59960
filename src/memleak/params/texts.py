"""Recipes and models for texts: a small GPT-2 of any size, or a checkpoint as Hugging Face's `transformers` keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from memleak.params.base import Frozen

ARCHITECTURES = ("gpt2", "checkpoint")  # those that take texts
FROM_CONFIG = ("layers", "width", "heads")  # what a checkpoint has decided already
TOKEN_SIGNALS = (  # of each scored token of a text, ragged: [N, Q, K] when read, NaN (ids: -1) beyond a text's end
    "log_prob", "mean_log_prob", "std_log_prob", "log_rank", "top_prob", "top_gap", "token_id", "reference_log_prob",
)  # fmt: skip
TEXT_SIGNALS = ("n_tokens", "n_bytes", "zlib_bytes")  # of each text: scored tokens, bytes of what the model was shown, the same compressed
LANGUAGE_SIGNALS = ("margin", "loss", "confidence", "entropy")  # of `SIGNALS`, those that a language model tells: means over scored tokens
IDLE_FOR_TEXTS = (  # fields of a recipe that change nothing for texts
    "channels", "hidden", "normalisation", "flip", "shift", "cutout", "mixup", "relaxed_loss", "distillation", "selena", "stacking",
)  # fmt: skip


class Lora(Frozen):
    """Train low-rank additions to some of the linear layers, and nothing else (Hu et al. 2022)."""

    rank: int = Field(default=8, gt=0, description="of the additions: more of them learn more")
    alpha: float = Field(default=16.0, gt=0, description="the additions are scaled by alpha / rank")
    targets: tuple[str, ...] = Field(default=(), description="ends of the names of layers (default: all linear layers of the blocks)")


class Text(Frozen):
    """What a model of texts is made of."""

    checkpoint: str | None = Field(default=None, description="a folder with config.json and weights, or a name on the Hugging Face hub")
    revision: str | None = Field(default=None, description="commit of a checkpoint on the hub")
    tokenizer: str | None = Field(
        default=None,
        description="a folder, a tokenizer.json, or a name on the hub (default: the checkpoint's, or one trained on the data set's texts)",
    )
    task: Literal["causal-lm", "sequence-classification"] = Field(default="causal-lm", description="to go on with a text, or to tell its label")
    layers: int = Field(default=2, gt=0, description="of gpt2: blocks")
    width: int = Field(default=64, gt=0, description="of gpt2: numbers that stand for a token, a multiple of heads")
    heads: int = Field(default=2, gt=0, description="of gpt2: of attention, in each block")
    max_length: int = Field(default=128, gt=1, description="tokens of a text that are read, the first ones")
    lora: Lora | None = Field(default=None, description="train low-rank additions instead of all weights")

    @model_validator(mode="after")
    def _goes_together(self) -> Text:
        if self.width % self.heads:
            raise ValueError(f"width: {self.width} is not a multiple of heads ({self.heads}); give each head as many columns")
        if self.checkpoint is not None and (written := [name for name in FROM_CONFIG if name in self.model_fields_set]):
            raise ValueError(f"{written[0]}: the checkpoint's own config.json says it; leave it out")
        if self.checkpoint is None and self.lora is not None:
            raise ValueError("lora: additions to weights that were never trained learn little; name a checkpoint, or leave lora out")
        if self.checkpoint is None and self.revision is not None:
            raise ValueError("revision: it is a commit of a checkpoint on the hub, and none is named; leave it out")
        for key in ("checkpoint", "tokenizer"):
            refuse_missing_folder(key, getattr(self, key))
        return self

    def files(self) -> list[str]:
        """The local files that it is made of."""
        return [file for name in (self.checkpoint, self.tokenizer) for file in checkpoint_files(name)]


def looks_local(name: str) -> bool:
    """Whether a checkpoint's name is a path rather than a name on the hub (`owner/name`, or one word)."""
    return Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/")


def refuse_missing_folder(key: str, name: str | None) -> None:
    """Raise ValueError for a path that does not exist."""
    if name is not None and looks_local(name) and not Path(name).exists():
        raise ValueError(f"{key}: there is no folder or file '{name}' (looked in {Path.cwd()})")


def checkpoint_files(name: str | None) -> list[str]:
    """The files of a local checkpoint or tokenizer, sorted; none of one on the hub."""
    if name is None or not looks_local(name):
        return []
    path = Path(name)
    return [str(path)] if path.is_file() else sorted(str(file) for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
