"""Corrections of TRL's completions table and metrics where a batch comes from several generations."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LoggedRows = dict[tuple[str, str], list[Any]]
"""Columns of the completions table: (kind, name) -> one value per row, over all ranks."""


@contextmanager
def counted_by_groups(metrics: dict[str, list[float]], groups: int) -> Iterator[None]:
    """Weight each metric appended inside by `groups`: TRL logs the plain mean, and rounds differ in size."""
    before = {name: len(values) for name, values in metrics.items()}
    yield
    for name, values in metrics.items():
        values.extend(values[before.get(name, 0) :] * (groups - 1))


def _columns(logs: dict[str, Any]) -> dict[tuple[str, str], deque[Any]]:
    columns = {(name, ""): logs[name] for name in ("prompt", "completion", "advantages")}
    return columns | {(kind, name): column for kind in ("rewards", "extra") for name, column in logs[kind].items()}


def take_rows(logs: dict[str, Any]) -> LoggedRows:
    """Remove all rows from the table and return them."""
    rows = {key: list(column) for key, column in _columns(logs).items()}
    for column in _columns(logs).values():
        column.clear()
    logs["extra"].clear()  # a column that a generation does not fill would make the table ragged
    return rows


def put_rows(logs: dict[str, Any], rows: LoggedRows) -> None:
    """Add rows to the table."""
    for (kind, name), values in rows.items():
        (logs[kind][name] if name else logs[kind]).extend(values)


def replace_logged(table: LoggedRows, fresh: LoggedRows, to: list[int], source: list[int]) -> None:
    """Replace rows `to` of the table by rows `source` of a round; a column that one of them lacks is None there."""
    size, nothing = len(table["prompt", ""]), [None] * len(fresh["prompt", ""])
    for column in {**table, **fresh}:
        values, news = table.setdefault(column, [None] * size), fresh.get(column, nothing)
        for row, new in zip(to, source, strict=True):
            values[row] = news[new]
