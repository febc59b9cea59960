"""The table of signals: one row a (model, sample, view), and of texts lists of what is said about each token."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from memleak import artefacts
from memleak.designs import Roster
from memleak.signals.language import TokenSignals

SAMPLES_PER_GROUP = 8192  # a row group of the file holds the answers of all models of a shard about so many samples


def write_signals(
    output: Path, signals: Mapping[str, np.ndarray], roster: Roster, facts: dict[str, Any], tokens: Sequence[Sequence[TokenSignals]] = ()
) -> None:
    """Write signals [M, N, Q], logits [M, N, Q, C], as a table, row group by row group of samples: a reader takes any run of samples of all models.

    Within a row group model comes before sample before view. The file's head says which samples it holds, so that who
    reads one signal need not read the keys. `tokens` [M][Q] become a list a row.
    """
    n_models, n_samples, n_views = next(iter(signals.values())).shape[:3]
    model_ids = [model["model_id"] for model in facts["models"]]
    facts = facts | {"samples_sha256": artefacts.sample_digest(roster.sample_id), "n_samples": n_samples, "n_views": n_views}
    if tokens:
        facts["n_tokens_max"] = max(int(said.n_tokens.max(initial=0)) for of_model in tokens for said in of_model)
    listed = {name: pa.list_(pa.from_numpy_dtype(values.dtype)) for name, values in (tokens[0][0].columns if tokens else {}).items()}
    schema = pa.schema(
        [("model_id", pa.dictionary(pa.int32(), pa.string())), ("sample_id", pa.int64()), ("view", pa.int32())]
        + [(name, _column_type(values)) for name, values in signals.items()]
        + list(listed.items()),
        metadata={"memleak": json.dumps(facts, sort_keys=True)},
    )
    with artefacts.atomic(output) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for start in range(0, n_samples, SAMPLES_PER_GROUP):
            part = slice(start, min(start + SAMPLES_PER_GROUP, n_samples))
            n = part.stop - part.start
            model = pa.DictionaryArray.from_arrays(np.repeat(np.arange(n_models, dtype=np.int32), n * n_views), model_ids)
            columns = {
                "model_id": model,
                "sample_id": np.tile(np.repeat(roster.sample_id[part], n_views), n_models),
                "view": np.tile(np.arange(n_views, dtype=np.int32), n_models * n),
                **{name: _column(values[:, part]) for name, values in signals.items()},
                **(_lists(tokens, part) if tokens else {}),
            }
            writer.write_table(pa.table(columns, schema=schema), row_group_size=n_models * n * n_views)


def _column_type(values: np.ndarray) -> pa.DataType:
    """Of a signal [M, N, Q], or of one with several values a row, [M, N, Q, C]."""
    kind = pa.from_numpy_dtype(values.dtype)
    return kind if values.ndim == 3 else pa.list_(kind, values.shape[3])


def _column(values: np.ndarray) -> pa.Array:
    flat = pa.array(values.ravel())
    return flat if values.ndim == 3 else pa.FixedSizeListArray.from_arrays(flat, values.shape[3])


def _lists(tokens: Sequence[Sequence[TokenSignals]], part: slice) -> dict[str, pa.Array]:
    """The tokens of some samples, a list for each (model, sample, view)."""
    rows = [(said, i) for of_model in tokens for i in range(part.start, part.stop) for said in of_model]
    spans = [(said, slice(said.offsets[i], said.offsets[i + 1])) for said, i in rows]
    offsets = np.cumsum([0, *(span.stop - span.start for _, span in spans)], dtype=np.int32)
    return {
        name: pa.ListArray.from_arrays(offsets, np.concatenate([said.columns[name][span] for said, span in spans])) for name in tokens[0][0].columns
    }
