"""Recipes, and models of the user's, on a data set: what their directories are called."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from memleak import plugins, provenance
from memleak.params import TRAINING_VERSION, Dataset, GivenModel, Recipe, plugin_code
from memleak.params.texts import checkpoint_files


@dataclass(frozen=True)
class PlannedRecipe:
    """A recipe on a data set."""

    id: str
    dataset_id: str
    dataset: Dataset
    recipe: Recipe

    @cached_property
    def name(self) -> str:
        """`digits-cnn-1a2b3c4d`. Fields at their frozen default stay out, so that a new field moves no old path."""
        facts = {
            "dataset": self.dataset.identity(),
            "recipe": self.recipe.model_dump(mode="json", exclude_defaults=True) | recipe_code(self.recipe),
            "version": TRAINING_VERSION,
        }
        return f"{self.id}-{provenance.digest(facts)}"

    def files(self) -> list[str]:
        """The local files beside the data that training begins with: a checkpoint's."""
        return self.recipe.text.files() if self.recipe.reads_texts else []

    def canonical_json(self) -> str:
        """What a job needs to know to train: one text."""
        return provenance.canonical_json({"name": self.name, "recipe": self.recipe.model_dump(mode="json", exclude_defaults=True)})


@dataclass(frozen=True)
class PlannedModel:
    """A model of the user's, asked about a data set."""

    dataset_id: str
    dataset: Dataset
    model: GivenModel

    @cached_property
    def name(self) -> str:
        """`resnet18-1a2b3c4d`: of the file that it lies in. The content of its weights reaches the job as an input."""
        place = self.model.checkpoint or self.model.weights or plugins.locate("models", self.model.name or "")[0]
        facts = {"dataset": self.dataset.identity(), "model": self.model.model_dump(mode="json", exclude_defaults=True)}
        code = plugin_code("models", self.model.name) if self.model.name else {}
        return f"{re.sub('[^a-z0-9]+', '-', Path(place).stem.lower()).strip('-') or 'model'}-{provenance.digest(facts | code)}"

    def files(self) -> list[str]:
        """The local files that it is made of."""
        if self.model.checkpoint is not None:
            return [file for name in (self.model.checkpoint, self.model.tokenizer, self.model.reference) for file in checkpoint_files(name)]
        is_code = self.model.name is not None and plugins.is_file("models", self.model.name)
        return ([self.model.weights] if self.model.weights else []) + (
            [plugins.locate("models", self.model.name)[0]] if is_code and self.model.name else []
        )

    def data_path(self) -> str:
        return prepared_path(self.dataset_id, self.dataset)

    def canonical_json(self) -> str:
        return provenance.canonical_json({"name": self.name, "model": self.model.model_dump(mode="json", exclude_defaults=True)})


def recipe_code(recipe: Recipe) -> dict[str, str]:
    """Digests of the user's code that makes the weights: of the architecture's file, and of the trainer's file or module."""
    found = plugin_code("architectures", recipe.architecture)
    if recipe.trainer is not None:
        try:
            found |= {"trainer_code": provenance.plugin_digest(plugins.source_of("trainers", recipe.trainer))}
        except SyntaxError as error:
            raise ValueError(f"{recipe.trainer}: it, or a file that it imports, is not Python: {error.msg} in line {error.lineno}; mend it") from None
    return found


def prepared_name(dataset_id: str, dataset: Dataset) -> str:
    return f"{dataset_id}-{provenance.digest(dataset.identity())}"


def prepared_path(dataset_id: str, dataset: Dataset) -> str:
    return f"data/prepared/{prepared_name(dataset_id, dataset)}/dataset.json"
