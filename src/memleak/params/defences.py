"""Defences that are part of a recipe, and what each can be told: everybody's models of an audit train with them, references too."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from memleak.params.base import Frozen


class DPSGD(Frozen):
    """DP-SGD (Abadi et al. 2016): every sample's gradient is clipped, and noise is added to their sum.

    A batch is drawn by Poisson sampling, of `batch_size` samples in expectation. The promise is about a record more or less.
    """

    clip: float = Field(1.0, gt=0, description="largest norm of a sample's gradient")
    noise_multiplier: float | None = Field(None, gt=0, description="standard deviation of the noise, in units of clip")
    epsilon: float | None = Field(None, gt=0, description="instead: the promise, for which the accountant finds the noise")
    delta: float = Field(1e-5, gt=0, lt=1, description="of the promise; less than 1 / the training records")
    accountant: Literal["prv", "rdp"] = Field("prv", description="numerical composition (Gopi et al. 2021), or Renyi (Mironov 2017): looser")

    @model_validator(mode="after")
    def _noise_or_epsilon(self) -> DPSGD:
        if (self.noise_multiplier is None) == (self.epsilon is None):
            found = "neither is" if self.epsilon is None else f"both are ({self.noise_multiplier} and {self.epsilon})"
            raise ValueError(f"dp: expected noise_multiplier or epsilon, {found} given; the one follows from the other")
        return self


class EarlyStopping(Frozen):
    """Training ends when the loss on records in reserve has not fallen for some epochs; the weights of the best epoch are kept."""

    records: int = Field(gt=0, description="held in reserve for it: outside the pool, so neither trained on nor audited")
    patience: int = Field(5, gt=0, description="epochs without a better loss")


class Distillation(Frozen):
    """A teacher trains on the private records, a student on what it says about public ones; the student is released.

    Hinton et al. 2015; Shejwalkar and Houmansadr 2021.
    """

    records: int = Field(gt=0, description="public ones: outside the pool, so neither trained on by the teacher nor audited")
    temperature: float = Field(1.0, gt=0, description="by which the teacher's and the student's logits are divided")
    epochs: int | None = Field(None, gt=0, description="of the student (default: those of the recipe)")


class Selena(Frozen):
    """Split-AI and self-distillation (Tang et al. 2022): a record's soft label comes from sub-models that were trained without it."""

    models: int = Field(8, ge=2, description="sub-models, K")
    left_out: int = Field(3, ge=1, description="sub-models that do not train on a record, L")

    @model_validator(mode="after")
    def _some_train(self) -> Selena:
        if self.left_out >= self.models:
            raise ValueError(f"selena: every record is left out by {self.left_out} of {self.models} sub-models, so none trains; lower left_out")
        return self


class Stacking(Frozen):
    """Model stacking (Salem et al. 2019): two networks on a third of the records each, and a layer over their answers on the last third."""

    hidden: int = Field(64, gt=0, description="width of the layer over the answers")
