"""What is written and read: columns, axes and units of every artefact; atomic writes, checked reads."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from memleak import __version__, params

SIGNALS = {name: np.bool_ if name == "is_correct" else np.float32 for name in params.SIGNALS}  # columns and types; margin, loss and entropies in nats
ALIGNMENT = params.ALIGNMENT  # a fact of each model, and then the only column: of canaries that are gradients, float64, in units of dp.clip
PLAN_COLUMNS = ("model_id", "shard", "recipe", "seed", "round", "role", "arm", "target", "is_target", "membership")
SAMPLE_COLUMNS = ("sample_id", "source_id", "label", "group_id", "is_population", "is_audited")
FORM = "form:"  # before the name of a column of how texts are written
SLICE = "slice:"  # before the name of a column by which samples are sliced; `unit` is to whom a sample belongs
SCORE_COLUMNS = ("target_id", "sample_id", "score")
POOL_SCORE_COLUMNS = (*SCORE_COLUMNS, "folded", "odd", "even")  # the same model, scored with fewer references


METRICS_FORMAT = 2  # of all metrics, raised by hand when a field changes its name or meaning; before it they did not say
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets take a cell for a formula by (OWASP, "CSV Injection")


class ArtefactError(RuntimeError):
    """A file that is missing, truncated, foreign or cannot be written; the text says which and what to do."""


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends well, and vanishes otherwise."""
    final = Path(path)
    temporary = None
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=final.parent, prefix=f".{final.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only their owner can read
        os.replace(temporary, final)
    except OSError as error:
        raise _cannot_write(final, error) from error
    except Exception as error:
        if "No space left" in str(error):  # some writers wrap the system's error in one of their own
            raise _cannot_write(final, OSError(errno.ENOSPC, "")) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _cannot_write(path: Path, error: OSError) -> ArtefactError:
    if error.errno == errno.ENOSPC:
        return ArtefactError(f"{path}: the disk is full; nothing was left half-written; free some space and run again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ArtefactError(f"{path}: no permission to write in {path.parent}; make it writable or choose another folder")
    return ArtefactError(f"{path}: cannot be written ({error.strerror or error})")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write readable JSON, sorted by insertion, without NaN."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def stamped(of: str, metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics that say what they are: their format, who wrote them, and whether they are of an audit, a sweep, scores or a tester."""
    return {"format": METRICS_FORMAT, "memleak": __version__, "of": of} | metrics


def write_csv(path: str | os.PathLike[str], table: pd.DataFrame) -> None:
    """Write CSV that no spreadsheet runs: see `csv_text`."""
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write(csv_text(table))


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV. Texts that a spreadsheet would take for formulas begin with an apostrophe; numbers are as they are."""
    return table.apply(_harmless).rename(columns=harmless).to_csv(index=False)


def _harmless(column: pd.Series) -> pd.Series:
    return column if pd.api.types.is_numeric_dtype(column) else column.map(harmless, na_action="ignore")


def harmless(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula; what is no text stays as it is."""
    if not isinstance(value, str):
        return value
    marked = f"'{value}" if value.startswith(FORMULA) else value
    return marked.replace("\r\n", "\n").replace("\r", "\n")  # a lone carriage return is not quoted, and would end the row


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read JSON, or say in one sentence why not."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise ArtefactError(f"{path}: missing; run the workflow to make it") from None
    except RecursionError:
        raise ArtefactError(f"{path}: nested too deep, so nothing of ours; delete it and run again") from None
    except ValueError as error:
        raise ArtefactError(f"{path}: truncated or not JSON ({error}); delete it and run again") from None
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read ({error.strerror or error}); let it be a file that you may read") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def write_table(path: str | os.PathLike[str], table: pd.DataFrame, facts: dict[str, Any] | None = None) -> None:
    """Write Parquet (zstd); `facts` travel in the schema's metadata under the key `memleak`."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata({"memleak": json.dumps(facts or {}, sort_keys=True)})
    with atomic(path) as temporary:
        pq.write_table(arrow, temporary, compression="zstd")


def read_table(path: str | os.PathLike[str], columns: Sequence[str]) -> pd.DataFrame:
    """Read columns of a Parquet file; a missing, truncated or foreign file is named."""
    with _checked(path):
        found = pq.read_schema(path).names
        absent = [column for column in columns if column not in found]
        if absent:
            raise ArtefactError(f"{path}: has no column {', '.join(absent)}; it holds {', '.join(found)}: not a file of this stage")
        return pq.read_table(path, columns=list(columns)).to_pandas()


def read_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `write_table` was given as `facts`."""
    with _checked(path):
        return json.loads((pq.read_schema(path).metadata or {}).get(b"memleak", b"{}"))


def columns_of(path: str | os.PathLike[str]) -> set[str]:
    """The names of a Parquet file's columns."""
    with _checked(path):
        return set(pq.read_schema(path).names)


@contextlib.contextmanager
def _checked(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ArtefactError(f"{path}: missing; run the workflow to make it") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtefactError(f"{path}: truncated or not Parquet ({str(error).splitlines()[0]}); delete it and run again") from None


def sample_digest(sample_id: np.ndarray) -> str:
    """SHA-256 of sample ids in order: whether two files speak of the same samples."""
    return hashlib.sha256(np.ascontiguousarray(sample_id, dtype="<i8").tobytes()).hexdigest()


def row_groups(path: str | os.PathLike[str], columns: Sequence[str], n_tokens: int | None = None) -> Iterator[dict[str, np.ndarray]]:
    """The columns of a Parquet file, row group by row group; of tokens [rows, K], K as the file's head says, or `n_tokens`."""
    with _checked(path), pq.ParquetFile(path) as file:
        absent = [column for column in columns if column not in file.schema_arrow.names]
        if absent:
            raise ArtefactError(f"{path}: has no column {', '.join(absent)}; delete it and run again")
        width = read_facts(path).get("n_tokens_max", 0) if n_tokens is None else n_tokens
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=list(columns))
            yield {column: _values(table[column], width) for column in columns}


def _values(column: pa.ChunkedArray, width: int) -> np.ndarray:
    """A column's values, [rows], or [rows, C] where each row has a list of C; lists of any length are padded to `width`."""
    if pa.types.is_fixed_size_list(column.type):
        return column.combine_chunks().flatten().to_numpy().reshape(-1, column.type.list_size)
    if not pa.types.is_list(column.type):
        return column.to_numpy()
    lists = column.combine_chunks()
    return padded(lists.flatten().to_numpy(), np.diff(lists.offsets.to_numpy()), width)


def padded(values: np.ndarray, lengths: np.ndarray, width: int) -> np.ndarray:
    """Lists [n] of given lengths, one after the other in `values`, as [n, width]: NaN beyond a list's end, -1 where they are whole numbers."""
    found = np.full((len(lengths), width), np.nan if values.dtype.kind == "f" else -1, dtype=values.dtype)
    found[np.arange(width) < lengths[:, None]] = values
    return found


def read_array(path: str | os.PathLike[str]) -> np.ndarray:
    """A `.npy` array, mapped into memory and not read until used."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ArtefactError(f"{path}: missing; run the workflow to make it") from None
    except (ValueError, OSError, EOFError) as error:
        raise ArtefactError(f"{path}: truncated or not an array ({error}); delete it and run again") from None


def write_array(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write a `.npy` array."""
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


def read_shard_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a shard of models says about itself, read from the head of the file without loading weights.

    Keys: version, recipe, shard, data_sha256, models (one dict a model). A file that is cut short is refused.
    """
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            size = os.fstat(file.fileno()).st_size
            if length > size:
                raise ValueError("its head is cut off")
            head = json.loads(file.read(length))
        facts = json.loads(head.pop("__metadata__")["memleak"])
        end = max((tensor["data_offsets"][1] for tensor in head.values()), default=0)
        if size != 8 + length + end:
            raise ValueError(f"{size} bytes, {8 + length + end} expected")
        return facts
    except FileNotFoundError:
        raise ArtefactError(f"{path}: missing; run the workflow to make it") from None
    except (ValueError, KeyError, struct.error) as error:
        raise ArtefactError(f"{path}: truncated or not a shard of models ({error}); delete it and run again") from None


def store_folder() -> Path:
    """Where trained models are kept outside the workflow's outputs: MEMLEAK_STORE, to share them on a machine."""
    return Path(os.environ.get("MEMLEAK_STORE", ".memleak/store"))


def make_folder(path: Path) -> None:
    """Make a folder and those above it, or say in one sentence why not."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
