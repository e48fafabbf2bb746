"""The measure of a shift: JS between truncated next-token distributions, the publication's, or between whole ones."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa

from tokenshift.analysis.storage.parquet_files import open_parquet
from tokenshift.analysis.storage.provenance import METADATA_KEY
from tokenshift.analysis.token_table.reader import Source, table_files

TRUNCATED_JS = "js_top_p"
"""The column of a per-token table with the JS between distributions truncated to top-p."""

FULL_JS = "js"
"""The column with the JS between whole distributions."""

SHIFT_MEASURES = (TRUNCATED_JS, FULL_JS)
"""The measures of a shift, the default first."""

DEFAULT_MEASURE = TRUNCATED_JS


def check_measure(measure: str, setting: str = "measure") -> None:
    """Refuse a measure that is none of `SHIFT_MEASURES`.

    Args:
        measure: the measure.
        setting: the setting that names it, for the message.

    Raises:
        ValueError: in one line.
    """
    if measure not in SHIFT_MEASURES:
        raise ValueError(f"{setting}={measure!r} is not known; choose {' or '.join(SHIFT_MEASURES)}.")


def second_measure(measure: str, names: Collection[str] = SHIFT_MEASURES) -> str | None:
    """The measure that stands in a second column beside another one; None where there is none.

    Args:
        measure: the column that counts as the divergence.
        names: the columns that there are.
    """
    others = {TRUNCATED_JS: FULL_JS, FULL_JS: TRUNCATED_JS}
    second = others.get(measure)
    return second if second in names else None


def measure_name(measure: str, top_p: float | None = None) -> str:
    """A measure in words: "JS at top-p 0.7", "full JS".

    Args:
        measure: the column that counts as the divergence.
        top_p: what `js_top_p` truncates to; None if it is not known.
    """
    if measure == TRUNCATED_JS:
        return "JS at top-p" if top_p is None else f"JS at top-p {top_p:g}"
    return "full JS" if measure == FULL_JS else measure


def measure_label(measure: str, top_p: float | None = None, models: str = "base, RL") -> str:
    """Label of an axis of a measure, such as "JS(base, RL) at top-p 0.7, nats".

    Args:
        measure, top_p: as of `measure_name`.
        models: the two models that are compared.
    """
    if measure not in SHIFT_MEASURES:
        return f"{measure}, nats"
    return f"{measure_name(measure, top_p).removeprefix('full ').replace('JS', f'JS({models})', 1)}, nats"


def truncation(metadata: Mapping[str, Any]) -> float | None:
    """The top-p of the column `js_top_p`, from the metadata of its table; None if they do not say it."""
    top_p = metadata.get("truncated_top_p", metadata.get("top_p"))
    return None if top_p is None else float(top_p)


def source_metadata(source: Source) -> dict[str, Any]:
    """The metadata that a per-token table was written with; empty for one that has none."""
    schema = source.schema if isinstance(source, pa.Table) else open_parquet(table_files(source)[0]).schema_arrow
    record = (schema.metadata or {}).get(METADATA_KEY)
    metadata: dict[str, Any] = {} if record is None else json.loads(record)
    return metadata


def source_truncation(source: Source) -> float | None:
    """The top-p of the column `js_top_p` of a per-token table, as `truncation` gives it."""
    return truncation(source_metadata(source))
