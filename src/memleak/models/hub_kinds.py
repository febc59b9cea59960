"""What a checkpoint is: the class and the questions that follow from `architectures` in its config.json, never from trial."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from memleak.models import ModelError, hub_files
from memleak.models.hub_files import some

AUTO = {  # what a checkpoint can be asked about, and the class of transformers that knows all of the kind
    "causal-lm": "AutoModelForCausalLM", "masked-lm": "AutoModelForMaskedLM", "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification", "image-classification": "AutoModelForImageClassification",
}  # fmt: skip
TASKS = tuple(AUTO)
_LISTS = {
    "causal-lm": "CAUSAL_LM", "masked-lm": "MASKED_LM", "sequence-classification": "SEQUENCE_CLASSIFICATION",
    "token-classification": "TOKEN_CLASSIFICATION", "image-classification": "IMAGE_CLASSIFICATION", "seq2seq": "SEQ_TO_SEQ_CAUSAL_LM",
}  # fmt: skip


@functools.cache
def names(task: str) -> dict[str, str]:
    """The architectures of a kind by model_type, as transformers lists them."""
    from transformers.models.auto import modeling_auto

    return dict(getattr(modeling_auto, f"MODEL_FOR_{_LISTS[task]}_MAPPING_NAMES"))


def task_of(config: Any, architecture: str, name: str) -> str:
    """What a network of this class can be asked. Raises ModelError where it is nothing that we know."""
    is_decoder_alone = architecture.endswith("ForCausalLM")
    tasks = [task for task in TASKS if architecture in names(task).values()]
    if architecture in names("seq2seq").values() or (
        config.is_encoder_decoder and not is_decoder_alone and tasks[:1] in (["causal-lm"], ["masked-lm"])
    ):
        raise ModelError(
            f"checkpoint {name}: {architecture} goes from one sequence to another, which is not supported; "
            f"give a causal, masked or classifying model ({', '.join(TASKS)})"
        )
    if architecture.endswith("ForPreTraining") and config.model_type in names("masked-lm"):
        return "masked-lm"  # one of its two heads
    remote = [task for task, auto in AUTO.items() if str((getattr(config, "auto_map", None) or {}).get(auto, "")).endswith(f".{architecture}")]
    if not tasks + remote:
        raise ModelError(
            f"checkpoint {name}: is a {architecture}, which has no head that can be asked, or one that is not supported; expected one of {', '.join(TASKS)}"
        )
    return (tasks + remote)[0]


def refuse_other_task(found: str, asked: str, architecture: str, name: str) -> None:
    if asked not in ("auto", *TASKS):
        raise ModelError(f"task: '{asked}' is unknown; it is auto or one of {', '.join(TASKS)}")
    if asked not in ("auto", found):
        raise ModelError(
            f"checkpoint {name}: is a {architecture}, so it is asked as {found}, not as {asked}; its weights have no head for that: "
            "fine-tune one, or leave task out"
        )


def class_of(config: Any, architecture: str, task: str, trust_remote_code: bool) -> Any:
    import transformers

    if trust_remote_code and AUTO[task] in (getattr(config, "auto_map", None) or {}):
        return getattr(transformers, AUTO[task])
    if architecture.endswith("ForPreTraining"):
        architecture = names("masked-lm")[config.model_type]
    return getattr(transformers, architecture)


def config_of(name: str, folder: Path, trust_remote_code: bool) -> tuple[Any, str | None]:
    """The configuration, and the architecture that it names."""
    import transformers

    facts = hub_files.facts_of(folder)
    kind, code = facts.get("model_type"), facts.get("auto_map")
    architecture = (facts.get("architectures") or [None])[0]
    is_ours = kind in transformers.CONFIG_MAPPING and (architecture is None or hasattr(transformers, architecture))
    if not is_ours and code and not trust_remote_code:
        raise ModelError(
            f"checkpoint {name}: {architecture or kind} is code that lies beside the weights ({some(sorted(map(str, code.values())))}), and it is run only "
            "when asked: read it, then pass trust_remote_code=True"
        )
    if not is_ours and not code:
        what = f"architecture '{architecture}'" if kind in transformers.CONFIG_MAPPING else f"model_type '{kind}'"
        raise ModelError(
            f"checkpoint {name}: its {what} is unknown to transformers {transformers.__version__}; update transformers, or check config.json"
        )
    try:
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True), architecture
    except Exception as error:  # transformers checks fields by classes of its own
        raise ModelError(f"{folder / hub_files.CONFIG}: cannot be used ({type(error).__name__}: {hub_files.first_line(error)}); check it") from None
