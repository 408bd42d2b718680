"""The columns of a parquet file: encoded images, labels, and the names of the classes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from advss.data.sources.parquet_files import partitions
from advss.errors import UsageError, did_you_mean

IMAGE_COLUMNS = ("img", "image")
PIECE_BYTES = 2**28  # of a column are read at once: Arrow reads no struct column of more than 2 GiB in one piece


def check_installed() -> None:
    """Raise where there is no pyarrow."""
    _pyarrow()


def images_of(path: Path, said: str) -> Any:
    """The column of encoded images: bytes, or None in rows without.

    ``said`` is its name; where it is empty, the first of :data:`IMAGE_COLUMNS` that is there.
    """
    names = _opened(path).schema_arrow.names
    name = said or next((name for name in IMAGE_COLUMNS if name in names), None)
    if name is None:
        raise UsageError(f"{path}: no column {' or '.join(IMAGE_COLUMNS)}; `--data.image` names one of {_some(names)}")
    _check_column(path, name, flag="--data.image")
    kind = _value_type(_opened(path).schema_arrow.field(name).type)
    types = _pyarrow().types
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return _column(path, name, field="bytes")
    if any(check(kind) for check in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary)):
        return _column(path, name)
    raise UsageError(
        f"{path}: column '{name}' is {kind}, expected bytes or a struct {{bytes, path}}; `--data.image NAME` says "
        "which column holds the images"
    )


def labels_of(path: Path, name: str) -> list[int] | list[str]:
    """The label of each row: whole numbers, or text; booleans are the text ``false`` and ``true``."""
    file = _opened(path)
    if name not in file.schema_arrow.names and name in partitions(path):
        return [unquote(partitions(path)[name])] * rows_of(path)
    _check_column(path, name, flag="--data.label")
    types, kind = _pyarrow().types, _value_type(file.schema_arrow.field(name).type)
    if not (types.is_integer(kind) or types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind)):
        raise UsageError(f"{path}: column '{name}' is {kind}, expected whole numbers, text or booleans as labels")
    labels: list[Any] = _column(path, name).to_pylist()
    if None in labels:
        raise UsageError(f"{path}, row {labels.index(None)}: no label in column '{name}'")
    return [str(label).lower() for label in labels] if types.is_boolean(kind) else labels


def rows_of(path: Path) -> int:
    """How many images there are."""
    return int(_opened(path).metadata.num_rows)


def names_of(path: Path, label: str) -> tuple[str, ...]:
    """The names of the classes, as Hugging Face's ``datasets`` writes them into the schema; empty where it has none."""
    stored = _opened(path).schema_arrow.metadata or {}
    try:
        features = json.loads(stored.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        return tuple(features.get(label, {}).get("names", None) or ())
    except (ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"{path}: the schema's huggingface metadata are not as expected ({error})") from error


def _column(path: Path, name: str, *, field: str = "") -> Any:
    """A column, or a field of a column of structs, piece by piece."""
    arrow, pieces = _pyarrow(), []
    with _readable(path):
        file = _opened(path)
        for group in range(file.num_row_groups):
            rows = _rows_a_piece(file.metadata.row_group(group), name)
            for batch in file.iter_batches(rows, row_groups=[group], columns=[name]):
                piece = batch.column(0)
                piece = piece.dictionary_decode() if arrow.types.is_dictionary(piece.type) else piece
                pieces.append(arrow.compute.struct_field(piece, field) if field else piece)
        return arrow.chunked_array(pieces, type=None if pieces else arrow.null())


def _rows_a_piece(group: Any, name: str) -> int:
    columns = (group.column(i) for i in range(group.num_columns))
    size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] == name.split(".")[0])
    return max(1, int(group.num_rows * min(1, PIECE_BYTES / max(size, 1))))


def _check_column(path: Path, name: str, *, flag: str) -> None:
    names = _opened(path).schema_arrow.names
    if name not in names:
        raise UsageError(f"{path}: no column '{name}'{did_you_mean(name, names)}; `{flag} NAME` says which")


def _value_type(kind: Any) -> Any:
    return kind.value_type if _pyarrow().types.is_dictionary(kind) else kind


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _opened(path: Path) -> Any:
    with _readable(path):
        return _pyarrow().parquet.ParquetFile(path, memory_map=True)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (_pyarrow().ArrowException, OSError) as error:
        raise UsageError(f"{path}: not a readable parquet file ({error})") from error


@cache
def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError("parquet files need pyarrow: pip install 'advss[parquet]'") from error
    return pyarrow
