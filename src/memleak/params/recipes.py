"""Recipes: everything that changes a trained weight, and what says how models train without changing what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, JsonValue, model_validator
from pydantic_core import InitErrorDetails

from memleak import plugins, provenance
from memleak.params.base import Frozen
from memleak.params.defences import DPSGD, Distillation, EarlyStopping, Selena, Stacking
from memleak.params.texts import ARCHITECTURES, IDLE_FOR_TEXTS, Text

IDLE = {  # fields that change nothing in an architecture of fixed shape
    "fast_cnn": {"hidden"}, "mlp": {"channels", "normalisation"}, "resnet18": {"channels", "hidden"}, "wide_resnet28_2": {"channels", "hidden"},
}  # fmt: skip
LOOP_NEEDS = ("epochs", "batch_size", "learning_rate")  # without a default, but unknown to a trainer of the user's
OWN_TRAINER = {  # fields of a recipe with a trainer of the user's
    "trainer", "trainer_options", "architecture", "channels", "hidden", "normalisation", "dropout", "precision",
}  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {
    # Frozen: a recipe that names a preset is digested field by field, so a changed number here would train anew, and without
    # a word, all models of everybody who chose it. Add a preset of another name instead.
    "digits-cnn": {
        "architecture": "small_cnn", "channels": [16, 32], "hidden": [64], "epochs": 40, "batch_size": 64, "learning_rate": 0.05,
    },
    "digits-mlp": {"architecture": "mlp", "hidden": [64], "epochs": 40, "batch_size": 64, "learning_rate": 0.1},
    "cifar-cnn": {  # nothing that hides what was memorised: no augmentation, no dropout
        "architecture": "small_cnn", "channels": [32, 64, 128], "hidden": [], "epochs": 12, "batch_size": 32,
        "optimizer": "adamw", "learning_rate": 0.003, "weight_decay": 0.05, "schedule": "one_cycle",
    },
    "cifar-fast": {  # few epochs over all of CIFAR
        "architecture": "fast_cnn", "channels": [64, 256, 256], "epochs": 12, "batch_size": 512,
        "learning_rate": 0.4, "weight_decay": 0.0005, "schedule": "one_cycle", "warmup": 0.2, "label_smoothing": 0.2, "flip": True, "shift": 2,
    },
    "cifar-resnet18": {
        "architecture": "resnet18", "epochs": 100, "batch_size": 128,
        "learning_rate": 0.1, "weight_decay": 0.0005, "schedule": "cosine", "flip": True, "shift": 4,
    },
    "cifar-wide-resnet": {
        "architecture": "wide_resnet28_2", "epochs": 100, "batch_size": 128,
        "learning_rate": 0.1, "weight_decay": 0.0005, "schedule": "cosine", "flip": True, "shift": 4,
    },
    "table-mlp": {"architecture": "mlp", "hidden": [256], "epochs": 30, "batch_size": 32, "optimizer": "adamw", "learning_rate": 0.001},
}  # fmt: skip


class Recipe(Frozen):
    """Everything that changes a trained weight, but for the data.

    A `preset` is resolved while it is read: what is left are plain fields, and no trace of the preset's name. With a
    `trainer` of the user's only the fields that shape the network remain, and its options: what it never sees is refused.
    """

    preset: str | None = Field(None, exclude=True, description="begin with the fields of a named recipe; those written beside it come first")
    architecture: str = Field(description="a built-in network, or file.py:function that builds one")
    channels: tuple[Annotated[int, Field(gt=0)], ...] = Field((32, 64, 128), description="of convolutional blocks")
    hidden: tuple[Annotated[int, Field(gt=0)], ...] = Field((128,), description="widths of the fully connected layers")
    normalisation: Literal["none", "batch", "group"] = Field("batch", description="between the layers of a convolutional network")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the values that is left out while it trains")
    text: Text = Field(default=Text(), description="of models that read texts: gpt2, or a checkpoint to train further")
    # 0, like the next and the learning rate: none, since the user's own trainer trains
    epochs: int = Field(0, gt=0, description="passes over the training records")
    batch_size: int = Field(0, gt=0, description="records of a step; with dp, in expectation")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="stochastic gradient descent with momentum, or AdamW")
    learning_rate: float = Field(0.0, gt=0, description="of the optimiser; with a schedule, its largest")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD, with Nesterov's correction")
    weight_decay: float = Field(0.0, ge=0, description="of the optimiser")
    schedule: Literal["constant", "cosine", "one_cycle"] = Field("constant", description="how the learning rate goes over the steps")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the steps in which the learning rate rises from 0 (0 with one_cycle: 0.3)")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of a label that is spread over all classes")
    gradient_clip: float | None = Field(None, gt=0, description="largest norm of a step's gradient")
    flip: bool = Field(False, description="augmentation: mirror left to right with probability 1/2")
    shift: int = Field(0, ge=0, description="augmentation: move by up to so many pixels, zeros come in")
    cutout: int = Field(0, ge=0, description="augmentation: erase a square of so many pixels a side, with the mean colour")
    mixup: float = Field(
        0.0, ge=0, description="augmentation: blend each sample with another; the share is drawn from Beta(mixup, mixup) (Zhang et al. 2018)"
    )
    flooding: float = Field(0.0, ge=0, description="nats below which a step's loss is not let fall (Ishida et al. 2020)")
    relaxed_loss: float = Field(0.0, ge=0, description="nats that the loss is held near: steps up, and flatter targets, below it (Chen et al. 2022)")
    early_stopping: EarlyStopping | None = Field(None, description="end when records in reserve are told no better")
    distillation: Distillation | None = Field(None, description="release a student that learnt from a teacher's answers")
    selena: Selena | None = Field(None, description="learn from sub-models that never saw the record")
    stacking: Stacking | None = Field(None, description="join two networks that learnt from different records")
    dp: DPSGD | None = Field(None, description="differentially private training")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of a step: the model is this moving average of its weights")
    precision: Literal["float32", "float64", "tf32", "bfloat16", "float16"] = Field(
        "float32", description="of the matrix products; weights stay float32 with tf32, bfloat16 and float16"
    )
    compile: bool = Field(False, description="compile the training step (torch.compile)")
    trainer: str | None = Field(None, description="trains in memleak's place: `file.py:function`, (data, indices, seed, device) -> state_dict")
    trainer_options: dict[str, JsonValue] = Field({}, description="further keyword arguments of the trainer")

    @model_validator(mode="before")
    @classmethod
    def _resolve_preset(cls, value: Any) -> Any:
        """The preset's fields, but for those that are written beside it, or that the chosen architecture does not read."""
        if not isinstance(value, Mapping) or value.get("preset") is None:
            return value
        name, written = value["preset"], {key: given for key, given in value.items() if key != "preset"}
        if not isinstance(name, str) or name not in PRESETS:
            raise ValueError(f"preset: no preset is called '{name}'{plugins.nearest(str(name), list(PRESETS))}")
        idle = IDLE.get(str(written.get("architecture", PRESETS[name]["architecture"])), set())
        return {key: given for key, given in PRESETS[name].items() if key not in idle} | written

    @model_validator(mode="before")
    @classmethod
    def _refuse_a_preset_beside_a_trainer(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and None not in (value.get("trainer"), value.get("preset")):
            raise ValueError(f"preset: a preset says how memleak trains, and here {value['trainer']} does; leave one of them out")
        return value

    @property
    def loosened_by(self) -> list[str]:
        """The defences that keep a model from fitting its training data as well as it could."""
        names = ("dp", "early_stopping", "mixup", "flooding", "relaxed_loss", "distillation", "selena", "stacking")
        return [name for name in names if getattr(self, name)]

    @property
    def reserve(self) -> int:
        """Records that training takes beside those of the model: to stop early by, then those that a student learns from."""
        return sum(taken.records for taken in (self.early_stopping, self.distillation) if taken)

    @property
    def weight_dtype(self) -> Literal["float32", "float64"]:
        """The type that weights and inputs are kept in; the others round matrix products alone."""
        return "float64" if self.precision == "float64" else "float32"

    @model_validator(mode="after")
    def _known_architecture(self) -> Recipe:
        plugins.locate("architectures", self.architecture)
        self._check_text()
        idle = IDLE.get(self.architecture, set()) & self.model_fields_set
        if idle:
            raise ValueError(f"{min(idle)}: this changes nothing in {self.architecture}; leave it out")
        if self.dropout and self.architecture in ("small_cnn", "mlp") and not self.hidden:
            raise ValueError(
                f"dropout: {self.architecture} drops after its hidden layers, and has none; give hidden, such as [64], or leave dropout out"
            )
        return self

    def _check_text(self) -> None:
        """Texts are read by some architectures only, and some fields change nothing there."""
        if not self.reads_texts:
            if self.text != Text():
                raise ValueError(f"text: {self.architecture} reads no texts; leave it out, or use architecture: {' or '.join(ARCHITECTURES)}")
            return
        if self.trainer is not None:
            raise ValueError(f"trainer: models of texts are trained by memleak; leave it out, or use another architecture than {self.architecture}")
        if self.architecture == "checkpoint" and self.text.checkpoint is None:
            raise ValueError("text.checkpoint: missing; name a folder with config.json and weights, or a checkpoint on the Hugging Face hub")
        if self.architecture == "gpt2" and self.text.checkpoint is not None:
            raise ValueError("text.checkpoint: gpt2 begins with random weights; use architecture: checkpoint, or leave it out")
        for name in IDLE_FOR_TEXTS:
            if name in self.model_fields_set and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name}: this does not go with models of texts; leave it out")

    @property
    def reads_texts(self) -> bool:
        """Whether the model is one of texts."""
        return self.architecture in ARCHITECTURES

    @model_validator(mode="after")
    def _somebody_trains(self) -> Recipe:
        """Our loop has the numbers that it needs, or a trainer of the user's has none that it would never see."""
        if self.trainer is not None:
            self._check_trainer(self.trainer)
        elif missing := [name for name in LOOP_NEEDS if name not in self.model_fields_set]:
            details = [InitErrorDetails(type="missing", loc=(name,), input={}) for name in missing]
            raise pydantic.ValidationError.from_exception_data("Recipe", details)
        elif self.trainer_options:
            raise ValueError("trainer_options: these are told to a trainer of your own; name it, as in `trainer: my_train.py:train`")
        return self

    @model_validator(mode="after")
    def _defences_go_together(self) -> Recipe:
        taught = [name for name in ("distillation", "selena", "stacking") if getattr(self, name)]
        if len(taught) > 1:
            raise ValueError(f"{taught[1]}: {taught[0]} too is asked for, and each says what the released model learns from; leave one out")
        if self.flooding and self.relaxed_loss:
            raise ValueError("flooding: relaxed_loss too holds the loss up; leave one of them out")
        if self.dp is None:
            return self
        without = {  # a private step is a sum over samples, each clipped alone
            "mixup": "a blended sample is two records, and clipping bounds one", "flooding": "it goes by the loss of the whole batch",
            "relaxed_loss": "it goes by the loss of the whole batch", "gradient_clip": "dp.clip bounds every sample's gradient already",
            "selena": "each record is trained on by several sub-models, which spend the promise each",
            "stacking": "its parts would each need a promise of their own", "compile": "gradients of single samples are not compiled",
        }  # fmt: skip
        for name, why in without.items():
            if getattr(self, name):
                raise ValueError(f"dp: {name} does not go with it, for {why}; leave {name} out")
        if self.precision not in ("float32", "float64", "tf32"):
            raise ValueError(f"dp: precision is {self.precision}, in which noise and clipping would be rounded; use float32 or tf32")
        return self

    def _check_trainer(self, name: str) -> None:
        if name not in plugins.installed("trainers") and ":" not in name:
            raise ValueError(f"trainer: expected a function of your own, as in `my_train.py:train`, found '{name}'")
        plugins.locate("trainers", name)
        unseen = sorted(self.model_fields_set - OWN_TRAINER)
        if unseen:
            raise ValueError(f"{unseen[0]}: {name} never sees this; leave it out, or give it as `trainer_options: {{{unseen[0]}: ...}}`")
        if self.precision != self.weight_dtype:
            raise ValueError(f"precision: with a trainer of your own it is the type of the weights, float32 or float64, found '{self.precision}'")
        taken = sorted({"data", "indices", "seed", "device"} & self.trainer_options.keys())
        if taken:
            raise ValueError(f"trainer_options: '{taken[0]}' is given to every trainer; choose another name")
        try:
            provenance.canonical_json(self.trainer_options)
        except ValueError as error:
            raise ValueError(f"trainer_options: {error}; numbers must be finite") from None


class Training(Frozen):
    """How models are trained, and not what comes out: nothing here moves a path or trains a model anew."""

    engine: Literal["auto", "sequential", "ensemble"] = Field(
        default="auto", description="one model after another, or several as one program; auto: whichever a committed table says is faster"
    )
    stack: int | None = Field(default=None, gt=0, description="models trained as one program (default: what the table says)")
    checkpoint_minutes: float = Field(
        default=10.0, gt=0, description="write the state of a training every so many minutes, to go on from after a kill"
    )
