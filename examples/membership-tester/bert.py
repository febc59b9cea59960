"""Who was among the texts that a BERT was fine-tuned on, as a masked language model and as a classifier?

python bert.py                                a small BERT, made on the spot from texts that ship with Python: about a minute, no network
python bert.py --model bert-base-uncased      the same with Google's weights, from the hub or a folder; better with a GPU
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from small import LENGTH, run, tell
from torch.utils.data import DataLoader
from tqdm import tqdm

from memleak import MembershipTester
from memleak.data import topics
from memleak.models import hub

OF_TOKENS = ["loss", "min_k", "zlib", "reference_difference", "reference_ratio", "ez", "wbc"]  # of one pass a token through both models
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="what is fine-tuned: a folder or a name on the hub (default: a small one is made)")
    parser.add_argument("--output", type=Path, default=Path("bert-audit"), help="folder for models and pages")
    parser.add_argument("--quick", action="store_true", help="few texts and epochs, to see that it runs")
    options = parser.parse_args()
    n, n_base, epochs = (24, 50, 1) if options.quick else (100, 1200, 8)
    found, rest = topics.load(), list(topics.load_rest().inputs)
    members, others = list(found.inputs[:n]), list(found.inputs[n : 2 * n])
    base = options.model or str(made_on_the_spot(rest[:n_base], options.output / "base", epochs))

    print("\n== A masked language model")
    audit_masked(base, members, others, 1 if options.quick else 10, options)
    print("\n== A classifier of topics")
    labels = [int(topic < "l") for topic in found.columns["topic"][: 2 * n]]  # is the topic in the first half of the alphabet?
    audit_classifier(base, (members, others), (labels[:n], labels[n:]), 1 if options.quick else 30, options)


def made_on_the_spot(texts: Sequence[str], folder: Path, epochs: int) -> Path:
    """A small BERT (Devlin et al. 2019) with a tokenizer of its own."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    pieces = BertWordPieceTokenizer()
    pieces.train_from_iterator(texts, vocab_size=2000, show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces._tokenizer, **SPECIAL)
    torch.manual_seed(0)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256, "max_position_embeddings": LENGTH}
    network = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **size))
    learn_masked(network, tokenizer, texts, epochs, 0.003)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def learn(network: Any, rows: Sequence[Any], collator: Any, epochs: int, learning_rate: float) -> None:
    """A plain training loop; `collator` makes a batch of rows."""
    batches = DataLoader(rows, batch_size=16, shuffle=True, collate_fn=collator, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate)
    network.train()
    for _ in tqdm(range(epochs), "epochs", leave=False, disable=None):
        for batch in batches:
            network(**batch.to(network.device)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    network.eval()


def learn_masked(network: Any, tokenizer: Any, texts: Sequence[str], epochs: int, learning_rate: float) -> None:
    """To guess the 15 % of the tokens that are hidden, others in every epoch."""
    from transformers import DataCollatorForLanguageModeling

    rows = [tokenizer(text, truncation=True, max_length=LENGTH) for text in texts]
    learn(network, rows, DataCollatorForLanguageModeling(tokenizer, seed=0), epochs, learning_rate)


def audit_masked(base: str, members: list[str], others: list[str], epochs: int, options: argparse.Namespace) -> None:
    """Fine-tune on members; the base is what the audit compares with (Mireshghallah et al. 2022)."""
    tuned = hub.load(base, "cpu", task="masked-lm", max_length=LENGTH)
    learn_masked(tuned.network, tuned.tokenizer, members, epochs, 0.001 if options.model is None else 0.0001)
    with MembershipTester(tuned.network, tokenizer=tuned.tokenizer, max_length=LENGTH, reference=base) as tester:
        tell(tester.run_attacks(members, others, attacks=OF_TOKENS), options.output / "masked.html")


def audit_classifier(
    base: str, texts: tuple[list[str], list[str]], labels: tuple[list[int], list[int]], epochs: int, options: argparse.Namespace
) -> None:
    """Train a fresh head, and the body with it, to tell members' labels."""
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding
    from transformers.utils import logging

    logging.set_verbosity_error()  # it says at length that the head is new
    tokenizer = hub.load(base, "cpu", task="masked-lm").tokenizer
    torch.manual_seed(0)
    network = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    rows = [{**tokenizer(text, truncation=True, max_length=LENGTH), "labels": label} for text, label in zip(texts[0], labels[0], strict=True)]
    learn(network, rows, DataCollatorWithPadding(tokenizer), epochs, 0.001 if options.model is None else 0.0001)
    with MembershipTester(network, tokenizer=tokenizer, max_length=LENGTH) as tester:
        tell(tester.run_attacks(*texts, *labels), options.output / "classifier.html")


if __name__ == "__main__":
    run(main)
