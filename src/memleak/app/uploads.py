"""Files that somebody brings to the app: known by their content, small enough, and looked at before anything of them is unpacked."""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from memleak.app.serve import MAX_UPLOAD_MB, is_local

MB = 2**20
MOST_ROWS = 200_000  # texts of a side
MOST_SCORES = 20_000_000
UNPACKED = 5  # times the largest upload: what a Parquet file may hold once it is unpacked
MOST_JSON_MB = 50  # a JSON list is read as a whole, and takes ten times its size
N_SHOWN = 3  # texts of a preview
LENGTH = 300  # letters of each
_BINARY = {  # how files begin that are no tables
    b"\x80": "a Python pickle, which can run any program when it is opened", b"PK": "a ZIP archive (a spreadsheet, a pickled checkpoint)",
    b"\x1f\x8b": "compressed by gzip", b"%PDF": "a PDF",
}  # fmt: skip
_OF_TEXTS = ("csv", "tsv", "jsonl", "json", "txt")
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class UploadError(ValueError):
    """A file or a name that is not taken; the text says why and what to do."""


@dataclass(frozen=True)
class Upload:
    """A file of texts that was looked at: what is handed on, and what is shown of it."""

    kind: str
    content: bytes
    n: int
    first: tuple[str, ...]


def largest_mb() -> int:
    """How many megabytes a file may have."""
    told = os.environ.get("MEMLEAK_MAX_UPLOAD_MB", "")
    return int(told) if told.isdigit() and int(told) > 0 else MAX_UPLOAD_MB


def kind_of(content: bytes, name: str) -> str:
    """What a file is, by its content: parquet, or text of the kind that its name says."""
    if len(content) > largest_mb() * MB:
        raise UploadError(
            f"{name}: {len(content) / MB:,.0f} MB, at most {largest_mb()} are taken; bring a sample, or start the app with --max-upload-mb"
        )
    if not content.strip():
        raise UploadError(f"{name}: is empty")
    if content[:4] == b"PAR1":
        return "parquet"
    told = next((what for start, what in _BINARY.items() if content.startswith(start)), "no text" if b"\0" in content[:4096] else None)
    if told is None:
        try:
            content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            told = f"not UTF-8 (byte {error.start})"
    if told is not None:
        raise UploadError(f"{name}: is {told}; bring Parquet, CSV, JSON lines, a JSON list or plain text in UTF-8")
    suffix = Path(name).suffix.lower().lstrip(".")
    if suffix not in _OF_TEXTS:
        raise UploadError(
            f"{name}: is text, and its name does not say of which kind; call it {', '.join('.' + kind for kind in _OF_TEXTS)} or .parquet"
        )
    if suffix == "json" and len(content) > MOST_JSON_MB * MB:
        raise UploadError(f"{name}: a JSON list of {len(content) / MB:,.0f} MB, at most {MOST_JSON_MB} are taken; bring JSON lines or Parquet")
    return suffix


def texts(content: bytes, name: str, column: str) -> Upload:
    """A file of texts, checked. Of Parquet only the texts with their labels and ids are kept."""
    from memleak.data import DataError
    from memleak.data import texts as data_texts

    kind = kind_of(content, name)
    kept = narrowed(content, name, (column, data_texts.LABEL, "id"), MOST_ROWS) if kind == "parquet" else content
    with tempfile.TemporaryDirectory(prefix="memleak-app-") as folder:
        path = Path(folder) / f"upload.{kind}"
        path.write_bytes(kept)
        try:
            found = data_texts.checked(data_texts.load(str(path), column).inputs, str(path))
        except DataError as error:
            raise UploadError(str(error).replace(str(path), name)) from None
        except RecursionError:
            raise UploadError(f"{name}: is nested too deep; bring a list of texts, or one of records with a column of texts") from None
        except UnicodeDecodeError:
            raise UploadError(f"{name}: a text in it is not UTF-8; write it again as UTF-8") from None
    if len(found) > MOST_ROWS:
        raise _too_many(name, len(found), MOST_ROWS)
    return Upload(kind, kept, len(found), tuple(text[:LENGTH] + ("…" if len(text) > LENGTH else "") for text in found[:N_SHOWN]))


def by_id(found: Upload, column: str, side: str) -> dict[str, str]:
    """The texts by their ids, as a test calls them: by the column `id`, or by side and place."""
    from memleak.data import texts as data_texts

    with tempfile.TemporaryDirectory(prefix="memleak-app-") as folder:
        path = Path(folder) / f"upload.{found.kind}"
        path.write_bytes(found.content)
        samples = data_texts.load(str(path), column)
    ids = samples.columns.get("id")
    return {str(ids[place]) if ids is not None else f"{side}-{place}": text for place, text in enumerate(samples.inputs)}


def narrowed(content: bytes, name: str, columns: Sequence[str], most_rows: int) -> bytes:
    """Some columns of a Parquet file, the first of which must be there; its foot is looked at before a value is unpacked."""
    try:
        with pq.ParquetFile(io.BytesIO(content)) as file:
            schema, n = file.schema_arrow, file.metadata.num_rows
            there = [column for column in columns if column in schema.names]
            if columns[0] not in there:
                raise UploadError(f"{name}: there is no column {columns[0]}; it has {', '.join(schema.names) or 'none'}; name one of them")
            if n > most_rows:
                raise _too_many(name, n, most_rows)
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            _refuse_bomb(name, sum(group.total_byte_size for group in groups))
            _refuse_shared(
                content, name, [column for column in there if pa.types.is_string(kind := schema.field(column).type) or pa.types.is_large_string(kind)]
            )
            table = file.read(columns=there)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise UploadError(f"{name}: truncated or not Parquet ({str(error).splitlines()[0]}); fetch it again") from None
    written = io.BytesIO()
    pq.write_table(table, written)
    return written.getvalue()


def _refuse_shared(content: bytes, name: str, columns: list[str]) -> None:
    """Refuse one long text that many rows share: the file holds it once, and memory would as often as there are rows."""
    total = 0
    with pq.ParquetFile(io.BytesIO(content), read_dictionary=columns) as file:
        for batch in file.iter_batches(columns=columns) if columns else ():
            for column in batch.columns:
                total += pc.sum(pc.take(pc.binary_length(column.dictionary), column.indices)).as_py() or 0
            _refuse_bomb(name, total)


def _refuse_bomb(name: str, n_bytes: int) -> None:
    most = UNPACKED * largest_mb()
    if n_bytes > most * MB:
        raise UploadError(f"{name}: unpacks to more than {most:,} MB; bring a sample of its rows")


def _too_many(name: str, n: int, most: int) -> UploadError:
    return UploadError(f"{name}: {n:,} rows, at most {most:,} are taken; bring a sample of them")


# -- what is named, not brought --------------------------------------------------------------------------------------


def model_of(name: str, what: str, root: Path, address: str | None) -> str:
    """A model's folder as a whole path, or its name on the hub. Code that comes with a model is never run."""
    name = name.strip()
    if not name:
        raise UploadError(f"{what}: name a folder of this machine, or a model on the Hugging Face hub")
    if (root / name).expanduser().exists() or _is_path(name):
        return str(_allowed(name, what, root, address))
    if not _HUB.fullmatch(name) or ".." in name:
        raise UploadError(f"{what}: '{name}' is neither a folder nor a name on the hub, which looks like owner/name")
    return name


def file_of(name: str, what: str, root: Path, address: str | None) -> Path:
    """A file of this machine that somebody names instead of uploading it."""
    found = _allowed(name.strip(), what, root, address)
    if not found.is_file():
        raise UploadError(f"{what}: {name.strip()} is a folder; name one file of texts")
    return found


def _allowed(name: str, what: str, root: Path, address: str | None) -> Path:
    """A path of this machine. Who is not sitting at it sees only what lies below the folder that the app was started in."""
    found = (root / Path(name).expanduser()).resolve()
    if not is_local(address) and not found.is_relative_to(root.resolve()):
        raise UploadError(f"{what}: {name} lies outside of the folder that the app was started in; name one inside of it, or upload the texts")
    if not found.exists():
        raise UploadError(f"{what}: there is no '{name}' (a path is taken from the folder that the app was started in)")
    return found


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/") or "\\" in name
