"""One classifier, as signals that take queries of their own ask it: about records in the scale of the stored ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from memleak.data import Dataset
from memleak.models import hub, language
from memleak.models.tokens import Encoded, encode
from memleak.params import Recipe
from memleak.signals import SignalError
from memleak.signals.language import classifiers, gradients
from memleak.training.batches import inputs_on

ROWS_AT_ONCE = 256  # of a forward pass


@dataclass(frozen=True)
class Asker:
    """What one model answers."""

    answer: Callable[[np.ndarray], np.ndarray]  # records [n, ...] -> logits [n, C]
    network: torch.nn.Module | None = None
    given: Callable[[np.ndarray], torch.Tensor] | None = None  # what the network takes
    norms: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None  # of gradients, by records and labels, where there is a way of its own


def of_trained(network: Any, dataset: Dataset, recipe: Recipe, device: torch.device) -> Asker:
    """A network that a recipe trained."""
    network.eval()
    if dataset.is_text:
        return of_texts(network.network, language.tokenizer_of(recipe, dataset), recipe.text.max_length)
    mean, std = dataset.facts["mean"], dataset.facts["std"]

    def taken(inputs: np.ndarray) -> torch.Tensor:
        return inputs_on(inputs, mean, std, recipe, device).take(torch.arange(len(inputs), device=device))

    def answer(inputs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            parts = [network(taken(inputs[start : start + ROWS_AT_ONCE])).cpu() for start in range(0, len(inputs), ROWS_AT_ONCE)]
        return torch.cat(parts).numpy()

    return Asker(answer, network, taken)


def of_texts(network: Any, tokenizer: Any, max_length: int, token_budget: int | None = None) -> Asker:
    """A network of transformers that tells the labels of texts."""

    def read(texts: np.ndarray) -> Encoded:
        return encode(tokenizer, list(texts), max_length)

    def answer(texts: np.ndarray) -> np.ndarray:
        return classifiers.text_logits(network, read(texts), token_budget)

    def norms(texts: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return gradients.gradient_norm(network, "sequence-classification", read(texts), labels=labels)

    return Asker(answer, norms=norms)


def of_checkpoint(checkpoint: hub.Checkpoint, dataset: Dataset) -> Asker:
    """A classifying checkpoint of the user's. Raises SignalError for data that it does not read, or has more classes."""
    reads_texts = checkpoint.task != "image-classification"
    if checkpoint.task == "token-classification":
        raise SignalError(f"{checkpoint.name}: tells a label for each token, and a data set has one a record; ask it through MembershipTester")
    if reads_texts != dataset.is_text:
        what = "texts" if reads_texts else "images"
        raise SignalError(f"{checkpoint.name}: reads {what}, and the records have shape {dataset.shape}; give it a data set of {what}")
    if dataset.n_classes > len(checkpoint.class_names):
        raise SignalError(
            f"{checkpoint.name}: tells {len(checkpoint.class_names)} labels apart ({', '.join(checkpoint.class_names[:5])}), the data set has "
            f"{dataset.n_classes}; number the labels of the data as the checkpoint does"
        )
    if reads_texts:
        return of_texts(checkpoint.network, checkpoint.tokenizer, checkpoint.max_length)

    def answer(images: np.ndarray) -> np.ndarray:
        return classifiers.image_logits(checkpoint.network, list(images), checkpoint.processor)

    def norms(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return gradients.image_norms(checkpoint.network, list(images), labels, checkpoint.processor).whole

    return Asker(answer, norms=norms)
