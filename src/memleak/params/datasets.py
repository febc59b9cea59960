"""Data sets: where records come from, declared before any of them is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from memleak import plugins
from memleak.params.base import Frozen, Id, plugin_code

DECLARED_SIZES = {  # samples of the built-in data sets
    "digits": 1797, "cifar10": 50_000, "cifar100": 50_000, "adult": 48_842, "location30": 5010, "purchase100": 197_324, "texas100": 67_330,
    "python_topics": 1200, "python_topics_rest": 1200,
}  # fmt: skip


class Part(Frozen):
    """Where samples come from: a built-in name, or `file.py:function` of the user's."""

    name: str = Field(description="a built-in data set, or file.py:function")
    source: str | None = Field(None, description="`torchvision`, or a folder or file (relative to params.yaml)")
    n: int | None = Field(default=None, gt=0, description="declared number of samples; checked when the data is fetched")
    column: str | None = Field(None, description="of name: text, the column that holds the texts (default: text)")

    @model_validator(mode="after")
    def _exists(self) -> Part:
        plugins.locate("datasets", self.name)
        if self.column is not None and self.name != "text":
            raise ValueError(f"column: {self.name} has no choice of columns; leave it out, or use name: text")
        if self.name == "text" and self.source is None:
            raise ValueError("source: missing; name a file of texts (.parquet, .csv, .jsonl, .json, .txt), or a folder of them")
        if self.source not in (None, "torchvision") and not Path(self.source).exists():
            raise ValueError(f"source: there is no file or folder '{self.source}' (looked in {os.getcwd()})")
        return self

    @property
    def declared_size(self) -> int | None:
        """Samples before any data is there: as declared, or those of a built-in data set from its own source."""
        return self.n or (DECLARED_SIZES.get(self.name) if self.source in (None, "torchvision") else None)

    def source_files(self) -> list[str]:
        """The local files that the data is read from, relative as `source` is."""
        if self.source in (None, "torchvision"):
            return []
        source = Path(self.source)
        return [str(file) for file in training_files(source) or sorted(file for file in source.rglob("*") if file.is_file())]

    def identity(self) -> dict[str, Any]:
        """What names the samples in digests: the declaration, and the code of a plug-in."""
        return self.model_dump(exclude_defaults=True) | plugin_code("datasets", self.name)


class Dataset(Frozen):
    """Records to audit or to train on: of one source, or of several parts one after the other."""

    name: str | None = Field(None, description="a built-in data set, or file.py:function")
    source: str | None = Field(None, description="`torchvision`, or a folder or file (relative to params.yaml)")
    n: int | None = Field(default=None, gt=0, description="declared number of samples; checked when the data is fetched")
    column: str | None = Field(None, description="of name: text, the column that holds the texts (default: text)")
    vocabulary: int | None = Field(
        None, ge=258, description="of texts: tokens of the tokenizer that is trained on them, for models without one of their own (default: 2000)"
    )
    parts: dict[Id, Part] = Field({}, description="instead of name: several sources, such as members and non-members of a given model")
    unit: str | None = Field(None, description="column that says to whom a record belongs (a patient, a user): units are audited instead of records")

    @model_validator(mode="after")
    def _one_or_parts(self) -> Dataset:
        if self.parts and (self.name, self.source, self.n, self.column) != (None,) * 4:
            raise ValueError("name, source, n and column belong to each of the parts; leave them out beside parts")
        if not self.parts and self.name is None:
            raise ValueError(
                "neither name nor parts is given; write for example {name: digits}, or parts: {members: {name: my_data.py:get_train}, ...}"
            )
        if not self.parts:
            _ = self.sources  # a part checks its name and source
        return self

    @property
    def sources(self) -> dict[str, Part]:
        """The sources in order; one without a name where there are no parts."""
        return self.parts or {"": Part(name=self.name or "", source=self.source, n=self.n, column=self.column)}

    @property
    def declared_size(self) -> int | None:
        """Samples before any data is there."""
        sizes = [part.declared_size for part in self.sources.values()]
        return sum(size for size in sizes if size) if all(sizes) else None

    def source_files(self) -> list[str]:
        """The local files that the data is read from, relative as `source` is."""
        return [file for part in self.sources.values() for file in part.source_files()]

    def declaration(self) -> dict[str, Any]:
        """What the job that prepares it is told; a new field changes nothing where it is not used."""
        return {"name": self.name, "source": self.source, "n": self.n} | self.model_dump(exclude_defaults=True)

    def identity(self) -> dict[str, Any]:
        """What names the data set in digests: the declaration, and the code of plug-ins."""
        known = self.model_dump(exclude_defaults=True)
        if not self.parts:
            return known | plugin_code("datasets", self.name or "")
        return known | {"parts": [{"part": name, **part.identity()} for name, part in self.parts.items()]}


def training_files(source: Path) -> list[Path]:
    """The file itself, or a folder's Parquet files: those called train*, or all where none is."""
    if source.is_file():
        return [source]
    files = sorted(source.glob("*.parquet"))
    return [file for file in files if file.name.startswith("train")] or files
