"""Reading a per-token table, of any size and whoever wrote it, in batches of whole responses."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tokenshift.analysis.storage.parquet_files import FAULTS, damaged, open_parquet
from tokenshift.analysis.token_table.schema import TABLE_SCHEMA

BATCH_ROWS = 2**18

KEYS = ("problem_id", "sample_id", "position", "length")

Source: TypeAlias = pa.Table | str | Path
"""A table, a Parquet file, or a folder of them."""


def arrow_source(source: Source | pd.DataFrame) -> Source:
    """A source as it is, and a pandas DataFrame, without its index, as a table.

    Raises:
        ValueError: if a column of a DataFrame holds values of several kinds.
    """
    if not isinstance(source, pd.DataFrame):
        return source
    try:
        return pa.Table.from_pandas(source, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"The DataFrame is no table of columns of one kind each: {_line(error)}") from error


def table_files(source: str | Path) -> list[Path]:
    """The Parquet files of a source, in order.

    Raises:
        ValueError: if there is none.
    """
    path = Path(source)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise ValueError(f"{str(source)!r} is neither a Parquet file nor a folder with some.")
    return files


def column_names(source: Source) -> list[str]:
    """The table's columns.

    Raises:
        ValueError: if a file is damaged, or no table of tokens.
    """
    if isinstance(source, pa.Table):
        names = source.column_names
    else:
        schemas = [open_parquet(file).schema_arrow for file in table_files(source)]  # a damaged file shows now
        names = schemas[0].names
    if missing := [name for name in (*KEYS, "js") if name not in names]:
        raise ValueError(f"This is no per-token table: it has no {listed_columns(missing)}.")
    return list(names)


def listed_columns(names: Collection[str]) -> str:
    """Columns in a message: "column 'js'", "columns 'js', 'position'"."""
    return f"column{'' if len(names) == 1 else 's'} {', '.join(map(repr, names))}"


def response_batches(
    source: Source, columns: Collection[str] | None = None, rows: int = BATCH_ROWS
) -> Iterator[pa.Table]:
    """Batches of about `rows` rows, each of whole responses.

    Args:
        source: the table; the rows of a response stand together, in order.
        columns: names of the wanted columns; `KEYS` always come too.
        rows: rows of a batch; a longer response comes whole.

    Raises:
        ValueError: if a file is damaged, or the rows of a response do not stand together.
    """
    wanted = None if columns is None else sorted({*columns, *KEYS})
    held: list[pa.Table] = []
    for part in _parts(source, wanted, rows):
        starts = np.flatnonzero(part["position"].to_numpy() == 0)
        if len(starts):  # the responses before the last start are whole now
            whole = pa.concat_tables([*held, part.slice(0, starts[-1])])
            held = [part.slice(starts[-1])]
            if whole.num_rows:
                yield _checked(whole)
        else:
            held.append(part)
    rest = pa.concat_tables(held) if held else None
    if rest is not None and rest.num_rows:
        yield _checked(rest)


def _parts(source: Source, columns: list[str] | None, rows: int) -> Iterator[pa.Table]:
    if isinstance(source, pa.Table):
        table = _typed(source if columns is None else source.select(columns))
        yield from (table.slice(start, rows) for start in range(0, table.num_rows, rows))
        return
    for path in table_files(source):
        try:
            for batch in open_parquet(path).iter_batches(rows, columns=columns):
                yield _typed(pa.Table.from_batches([batch]))
        except FAULTS as error:
            raise damaged(path, _line(error)) from error


def verdicts(table: pa.Table) -> np.ndarray:
    """The column `correct` as `(N,)` float: 1, 0, or NaN where nothing judged."""
    correct: np.ndarray = table["correct"].cast(pa.float32()).to_numpy()
    return correct


def _typed(table: pa.Table) -> pa.Table:
    """Columns in the types of `TABLE_SCHEMA`, whatever wrote them.

    Raises:
        ValueError: for values of another kind, or missing ones.
    """
    columns = {}
    for name in table.column_names:
        values = table[name]
        text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
        if name in TABLE_SCHEMA.names and not (name == "problem_id" and text):  # problems may have names
            wanted = TABLE_SCHEMA.field(name).type
            wanted = wanted.value_type if pa.types.is_dictionary(wanted) else wanted
            try:
                if name == "correct" and pa.types.is_floating(values.type):
                    values = pc.if_else(pc.is_nan(values), None, values)  # pandas' way of a missing one
                values = values.cast(pa.string()) if pa.types.is_dictionary(values.type) else values
                values = values.cast(wanted)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ValueError(f"The column {name!r} does not hold {wanted}: {_line(error)}") from error
            missing = values.null_count or (pa.types.is_floating(wanted) and pc.any(pc.is_nan(values)).as_py())
            if missing and name != "correct":
                raise ValueError(f"The column {name!r} has missing values.")
        columns[name] = values
    return pa.table(columns)


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0]


def _checked(table: pa.Table) -> pa.Table:
    position, length = table["position"].to_numpy(), table["length"].to_numpy()
    ends = np.append(position[1:] == 0, True)
    follows = np.append(position[1:] == position[:-1] + 1, True) | ends
    if position[0] != 0 or not follows.all() or (position[ends] + 1 != length[ends]).any():
        raise ValueError(
            "The rows of a response must stand together, positions 0 to length - 1; sort the table by problem_id, "
            "sample_id (and trajectory), and position."
        )
    return table
