"""What classifying checkpoints say about texts, tokens and images: logits, and the ordinary signals of `signals.classifier`.

A record's logits do not depend on what is asked beside it, or on the order, up to the last bits of float32.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from memleak.models.hub import Checkpoint
from memleak.models.tokens import Encoded, encode
from memleak.signals import SignalError, classifier
from memleak.signals.language.scoring import TOKENS_AT_ONCE, batches

UNLABELLED = -100  # of a token that has no label of its own, as training with torch ignores it
IMAGES_AT_ONCE = 32
_LABEL_FREE = {"confidence": classifier.confidence, "entropy": classifier.entropy}
_QUIET_SECONDS = 3


def ask(
    checkpoint: Checkpoint, records: Sequence[Any], labels: Sequence[Any] | None = None, token_budget: int | None = None
) -> dict[str, np.ndarray]:
    """The signals of a classifier of any kind about records, [N] each; without labels those that need none.

    Records are texts, or images (PIL, or arrays [H, W] and [H, W, C]). Labels are numbers or names, one a record; for tokens
    one for each word of a text, which are what blanks part, -100 where a word has none. Of tokens they are means over labelled ones.
    """
    if labels is not None and len(labels) != len(records):
        raise SignalError(f"{checkpoint.name}: {len(labels)} labels for {len(records)} records; give one a record")
    network, config = checkpoint.network, checkpoint.network.config
    if checkpoint.task == "image-classification":
        return signals(image_logits(network, records, checkpoint.processor), None if labels is None else label_ids(labels, config))
    encoded = encode(checkpoint.tokenizer, records, checkpoint.max_length)
    if checkpoint.task == "sequence-classification":
        return signals(text_logits(network, encoded, token_budget), None if labels is None else label_ids(labels, config))
    if checkpoint.task != "token-classification":
        raise SignalError(f"{checkpoint.name}: is asked as {checkpoint.task}, and is no classifier; its signals are those of tokens")
    logits, offsets = token_logits(network, encoded, token_budget)
    return token_signals(logits, offsets, None if labels is None else word_labels(checkpoint.tokenizer, records, labels, encoded, config))


# -- logits -------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def text_logits(network: Any, encoded: Encoded, token_budget: int | None = None) -> np.ndarray:
    """Logits about whole texts, float32 [N, C]."""
    _refuse_other_outputs(network.config)
    found = np.empty((len(encoded), network.config.num_labels), np.float32)
    for rows, logits in _answers(network, encoded, token_budget):
        found[rows] = logits
    return found


@torch.inference_mode()
def token_logits(network: Any, encoded: Encoded, token_budget: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Logits about each token of the texts themselves, float32 [total, C], and where those of each text begin, [N + 1]."""
    _refuse_other_outputs(network.config)
    offsets = np.cumsum([0, *encoded.n_text], dtype=np.int64)
    found = np.empty((offsets[-1], network.config.num_labels), np.float32)
    for rows, logits in _answers(network, encoded, token_budget):
        for row, answer in zip(rows, logits, strict=True):
            first = encoded.n_prefix[row]
            found[offsets[row] : offsets[row + 1]] = answer[first : first + encoded.n_text[row]]
    return found, offsets


@torch.inference_mode()
def image_logits(network: Any, images: Sequence[Any], processor: Any | None = None, rows: int = IMAGES_AT_ONCE) -> np.ndarray:
    """Logits about images, float32 [N, C]. Without a processor: resized to what config.json says, values in [0, 1]."""
    _refuse_other_outputs(network.config)
    starts = tqdm(range(0, len(images), rows), desc="images", unit="batch", leave=False, delay=_QUIET_SECONDS, disable=None)
    found = [network(pixel_values=pixels(network, images[start : start + rows], processor)).logits.float().cpu().numpy() for start in starts]
    return np.concatenate(found) if found else np.empty((0, network.config.num_labels), np.float32)


def _refuse_other_outputs(config: Any) -> None:
    if config.num_labels < 2:
        raise SignalError("the checkpoint gives one number a record (a regression), and no classes; classifiers of two or more are supported")
    if config.problem_type == "multi_label_classification":
        raise SignalError("the checkpoint gives several labels to one record, which is not supported; give one with a single label a record")


def _answers(network: Any, encoded: Encoded, token_budget: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and what the network says about them, batch by batch."""
    device = next(network.parameters()).device
    with padding_of(network, encoded) as pad:
        budget = token_budget or TOKENS_AT_ONCE.get(device.type, TOKENS_AT_ONCE["cpu"])
        bar = tqdm(total=len(encoded), desc="texts", leave=False, delay=_QUIET_SECONDS, disable=None)
        for rows in batches(encoded.lengths, budget if pad is not None else 1):
            tokens = torch.from_numpy(encoded.padded(rows)).to(device)
            is_there = tokens >= 0
            answer = network(input_ids=tokens.masked_fill(~is_there, pad or 0), attention_mask=is_there.long())
            yield rows, answer.logits.float().cpu().numpy()
            bar.update(len(rows))
        bar.close()


@contextmanager
def padding_of(network: Any, encoded: Encoded) -> Iterator[int | None]:
    """The id to pad with: the checkpoint's, else one that no text holds; None where there is none, and texts are asked one by one.

    Classifiers that read from left to right answer at the last token that is not this one, and need it in their config meanwhile.
    """
    config = network.config
    before = config.pad_token_id
    if before is None:
        free = np.setdiff1d(np.arange(config.get_text_config().vocab_size), encoded.ids)
        config.pad_token_id = int(free[-1]) if len(free) else None
    try:
        yield config.pad_token_id
    finally:
        config.pad_token_id = before


def pixels(network: Any, images: Sequence[Any], processor: Any | None = None) -> torch.Tensor:
    """What an image network takes, [B, 3, H, W]."""
    device = next(network.parameters()).device
    pictures = [picture(image) for image in images]
    if processor is not None:
        return processor(images=pictures, return_tensors="pt")["pixel_values"].to(device, _dtype_of(network))
    side = getattr(network.config, "image_size", None)
    if side is None:
        raise SignalError("the checkpoint brings no preprocessor_config.json, and its config.json no image_size; add the former")
    height, width = (side, side) if isinstance(side, int) else side
    arrays = np.stack([np.asarray(picture.resize((width, height)), np.float32) / 255 for picture in pictures])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).to(device, _dtype_of(network))


def _dtype_of(network: Any) -> torch.dtype:
    return next(network.parameters()).dtype


def picture(image: Any) -> Any:
    """An RGB picture of PIL; floats are in [0, 1]."""
    from PIL import Image

    if isinstance(image, Image.Image):
        return image.convert("RGB")
    values = np.asarray(image)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (1, 3)):
        raise SignalError(f"an image has shape {values.shape}, expected [H, W], [H, W, 1] or [H, W, 3], or a picture of PIL")
    if values.dtype != np.uint8:
        if not (values.dtype.kind == "f" and values.size and values.min() >= 0 and values.max() <= 1):
            raise SignalError(
                f"an image has values of type {values.dtype} from {values.min()} to {values.max()}, expected uint8, or floats in [0, 1]"
            )
        values = np.round(values * 255).astype(np.uint8)
    return Image.fromarray(values.squeeze(2) if values.shape[2:] == (1,) else values).convert("RGB")


# -- labels -------------------------------------------------------------------------------------------------------


def label_ids(labels: Sequence[Any], config: Any) -> np.ndarray:
    """Labels as the checkpoint numbers them, int64 [N]: numbers stay, names are those of config.json; -100 stays too."""
    known: Mapping[str, int] = {str(name): int(i) for name, i in (config.label2id or {}).items()}
    return np.array([_label_id(label, known, config.num_labels) for label in labels], np.int64)


def _label_id(label: Any, known: Mapping[str, int], n_classes: int) -> int:
    is_number = isinstance(label, (int, np.integer)) or (isinstance(label, (float, np.floating)) and float(label).is_integer())
    if is_number and (0 <= label < n_classes or label == UNLABELLED):
        return int(label)
    if not is_number and str(label) in known:
        return known[str(label)]
    raise SignalError(f"label {label!r} is unknown to the checkpoint; expected 0 to {n_classes - 1}, or one of {', '.join(list(known)[:10])}")


def word_labels(tokenizer: Any, texts: Sequence[str], labels: Sequence[Sequence[Any]], encoded: Encoded, config: Any) -> np.ndarray:
    """The label of each token of the texts, int64 [total]: a word's at its first piece, -100 elsewhere. Words are what blanks part."""
    if not tokenizer.is_fast:
        raise SignalError("labels of words: this tokenizer does not tell where its tokens stand in a text; save it as a tokenizer.json")
    found = np.full(int(encoded.n_text.sum()), UNLABELLED, np.int64)
    start = 0
    for i, (text, of_words) in enumerate(zip(texts, labels, strict=True)):
        n, begins = int(encoded.n_text[i]), [match.start() for match in re.finditer(r"\S+", text)]
        if len(begins) != len(of_words):
            raise SignalError(f"text {i} has {len(begins)} words between blanks and {len(of_words)} labels; give one a word, -100 where it has none")
        spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
        ends = np.array([end for _, end in spans], dtype=np.int64)
        first = np.searchsorted(ends, begins, side="right")  # the first token that reaches into the word
        is_read = first < n
        found[start + first[is_read]] = label_ids(of_words, config)[is_read]
        start += n
    return found


# -- signals ------------------------------------------------------------------------------------------------------


def signals(logits: np.ndarray, labels: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Signals from logits [N, C], [N] each."""
    if labels is None:
        return {name: signal(logits) for name, signal in _LABEL_FREE.items()}
    return classifier.all_signals(logits, labels)


def token_signals(logits: np.ndarray, offsets: np.ndarray, labels: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Means over the labelled tokens of each text (all tokens without labels), float32 [N]; NaN where a text has none."""
    is_counted = np.ones(len(logits), bool) if labels is None else labels != UNLABELLED
    text_of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))[is_counted]
    n = np.bincount(text_of, minlength=len(offsets) - 1)
    found = signals(logits[is_counted], None if labels is None else labels[is_counted])
    with np.errstate(invalid="ignore"):
        return {name: (np.bincount(text_of, values, len(offsets) - 1) / n).astype(np.float32) for name, values in found.items()}
