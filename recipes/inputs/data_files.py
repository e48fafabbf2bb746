"""A file of problems, looked at by the standard library: whether it is there, can be read, and has the columns.

`datasets` reads the data and is asked again afterwards; what it takes and this module does not know passes here.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenshift.analysis.storage.json_files import parse_json
from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.rewards.text import gold_text

READERS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}
"""Suffix of a data file -> the reader of `datasets` for it."""

LARGEST = 32 * 2**20
"""Bytes of the largest file whose every row is looked at."""


def check_data_file(
    setting: str,
    name: str,
    columns: Mapping[str, str | None],
    *,
    compared: bool = False,
    held_out: int | None = None,
) -> None:
    """Raise for a file that is not there, is no data, is empty, or lacks a column.

    Args:
        setting: the argument that names the data.
        name: the name that the user gave; names of other data pass.
        columns: column by the argument that names it, such as `prompt_column`; None for no column.
        compared: whether answers are compared with the gold answers by an accuracy reward.
        held_out: rows that are held out of the file; None for none.

    Raises:
        ValueError: if something is plainly wrong.
    """
    file = user_path(name, setting)
    if file.suffix in READERS and not file.is_file():
        raise ValueError(f"{setting}={name!r}: there is no such file.")
    if not file.is_file():
        if file.suffix and name.startswith(("/", "./", "../", "~")) and not file.exists():
            raise ValueError(f"{setting}={name!r}: there is no such file or folder.")
        return
    if file.suffix not in READERS:
        known = ", ".join(READERS)
        raise ValueError(f"{setting}={name!r} is a file of an unknown kind; problems are read from {known} files.")
    rows = _rows(file, f"{setting}={name!r}")
    if rows is None:
        return
    _check_rows(rows, columns)
    solutions = columns.get("solution_column")
    if compared and solutions is not None and "." not in solutions:
        check_golds([row.get(solutions) for row in rows])
    if held_out is not None and len(rows) <= held_out:
        raise ValueError(
            f"{setting}={name!r}: its {len(rows)} rows are too few to hold eval_size={held_out} of them out; lower "
            "eval_size."
        )


def data_rows(name: str) -> int | None:
    """The number of rows of a small file of problems; None for other data, and for what only `datasets` can judge.

    Args:
        name: the name that the user gave.

    Raises:
        ValueError: if the file is empty, or plainly no data.
    """
    file = user_path(name, "dataset_name")
    if file.suffix not in READERS or not file.is_file():
        return None
    rows = _rows(file, f"dataset_name={name!r}")
    return None if rows is None else len(rows)


def check_golds(golds: Iterable[Any]) -> None:
    """Refuse gold answers that the accuracy rewards cannot compare with.

    Args:
        golds: the gold answers, row by row.

    Raises:
        ValueError: for one that is neither text nor a number, such as a list, or where every one is blank.
    """
    texts = []
    for row, gold in enumerate(golds):
        try:
            texts.append(gold_text(gold))
        except ValueError as error:
            raise ValueError(f"solution_column, row {row}: {error}") from error
    if not any(text.strip() for text in texts):
        raise ValueError("solution_column is blank in every row, so that no response can be right; name another.")


def _rows(file: Path, where: str) -> Sequence[Mapping[str, Any]] | None:
    """The rows of a small file, and None for one that only `datasets` can judge.

    Raises:
        ValueError: if the file is empty, or plainly no data.
    """
    if not file.stat().st_size:
        raise ValueError(f"{where} cannot be loaded: it is empty.")
    if file.suffix == ".parquet":
        with file.open("rb") as opened:
            opened.seek(-4, 2 if file.stat().st_size >= 4 else 0)
            if opened.read() != b"PAR1":
                raise ValueError(f"{where} cannot be loaded: it is no Parquet file, or its end is missing.")
        return None
    if file.stat().st_size > LARGEST:
        return None
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix == ".csv":
            table = csv.DictReader(io.StringIO(text, newline=""))
            rows: Any = list(table)
            if not rows and table.fieldnames:
                raise UnreadableDataError(f"{where} cannot be loaded: it is empty.")
        elif text.lstrip().startswith("["):
            rows = parse_json(text)
        else:
            lines = [line for line in text.split("\n") if line.strip()]
            rows = [_parsed(line, row, where) for row, line in enumerate(lines)]
    except json.JSONDecodeError as error:
        if _is_one_mapping(text) or error.msg == "Extra data":  # readers differ there
            return None
        line = text.count("\n", 0, text.find(error.doc) + error.pos) + 1 if error.doc in text else 1
        raise ValueError(f"{where} cannot be loaded: line {line} is no JSON ({error.msg}).") from error
    except (UnicodeDecodeError, csv.Error) as error:
        if isinstance(error, UnicodeDecodeError):
            raise ValueError(f"{where} cannot be loaded: it is no text in UTF-8; save it so.") from error
        return None
    except UnreadableDataError:
        raise
    except ValueError as error:  # a number of too many digits, or a value that is nested without end
        raise ValueError(f"{where} cannot be loaded: {error}.") from error
    return rows if rows and all(isinstance(row, dict) for row in rows) else None


class UnreadableDataError(ValueError):
    """A file has no rows, or one that is JSON and that Python does not read; the message is the whole line."""


def _parsed(line: str, row: int, where: str) -> Any:
    """A line's value.

    Raises:
        json.JSONDecodeError: if it is no JSON.
        UnreadableDataError: if it has a number of too many digits, or is nested without end.
    """
    try:
        return parse_json(line)
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise UnreadableDataError(f"{where} cannot be loaded: row {row}: {str(error).partition(';')[0]}.") from error


def _is_one_mapping(text: str) -> bool:
    try:
        return isinstance(parse_json(text), dict)
    except ValueError:
        return False


def _check_rows(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str | None]) -> None:
    """Look at the columns, and at the prompts and gold answers in them."""
    there = list(dict.fromkeys(name for row in rows for name in row))
    for setting, column in columns.items():
        if column is not None and column not in there and column.partition(".")[0] not in there:
            listed = ", ".join(repr(name) for name in there)
            raise ValueError(f"{setting}={column!r} is not in the data; it has {listed}.")
    prompts, solutions = columns.get("prompt_column"), columns.get("solution_column")
    if prompts in there:
        values = [row.get(prompts) for row in rows]
        first = next((value for value in values if value is not None), None)
        if not isinstance(first, str | list):
            raise ValueError(
                f"prompt_column={prompts!r} holds {type(first).__name__}; prompts are text or conversations."
            )
        if missing := [row for row, value in enumerate(values) if value is None]:
            raise ValueError(
                f"prompt_column={prompts!r} is empty in {len(missing)} rows, the first of them row {missing[0]}."
            )
    if solutions in there and all(row.get(solutions) is None for row in rows):
        raise ValueError(f"solution_column={solutions!r} is empty in every row.")
