"""TRL's records of a generation, put right where a batch comes out of several: completions table and metrics."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Rows = dict[tuple[str, str], list[Any]]
"""Columns of the completions table by kind and name, a value a row of all ranks."""


@contextmanager
def counted_by_groups(metrics: dict[str, list[float]], groups: int) -> Iterator[None]:
    """Count each metric appended inside `groups` times: TRL logs the plain mean, and rounds differ in size."""
    before = {name: len(values) for name, values in metrics.items()}
    yield
    for name, values in metrics.items():
        values.extend(values[before.get(name, 0) :] * (groups - 1))


def _columns(logs: dict[str, Any]) -> dict[tuple[str, str], deque[Any]]:
    found = {(name, ""): logs[name] for name in ("prompt", "completion", "advantages")}
    return found | {(kind, name): column for kind in ("rewards", "extra") for name, column in logs[kind].items()}


def take_rows(logs: dict[str, Any]) -> Rows:
    """The table's rows, which leave it."""
    rows = {place: list(column) for place, column in _columns(logs).items()}
    for column in _columns(logs).values():
        column.clear()
    logs["extra"].clear()  # a column that a generation does not fill would make the table ragged
    return rows


def put_rows(logs: dict[str, Any], rows: Rows) -> None:
    """Add rows to the table."""
    for (kind, name), values in rows.items():
        (logs[kind][name] if name else logs[kind]).extend(values)


def replace_logged(table: Rows, fresh: Rows, to: list[int], source: list[int]) -> None:
    """Put rows `source` of a round in place of rows `to`; a column that only one of them has is None elsewhere."""
    size, nothing = len(table["prompt", ""]), [None] * len(fresh["prompt", ""])
    for column in {**table, **fresh}:
        values, news = table.setdefault(column, [None] * size), fresh.get(column, nothing)
        for row, new in zip(to, source, strict=True):
            values[row] = news[new]
