"""The files of probes: what is read back is what was written, and overlaps are with the right earlier probe."""

from pathlib import Path

import pyarrow as pa
import pytest
from helpers.random_table import random_rows

from tokenshift.analysis.shift.high_tokens import high_tokens, jaccard
from tokenshift.trainer.probe.files import FIXED_KIND, OWN_KIND, ProbeFiles


def of_kind(table: pa.Table, kind: str) -> pa.Table:
    column = pa.array([kind] * table.num_rows).dictionary_encode().cast(table["trajectory"].type)
    return table.set_column(table.column_names.index("trajectory"), "trajectory", column)


def test_overlaps_are_with_the_previous_and_the_first_high_probe(tmp_path: Path) -> None:
    files = ProbeFiles(tmp_path / "shift")
    files.folder.mkdir()
    quiet = random_rows(0, [12, 30], largest=0.05)
    tables = {0: quiet, 10: random_rows(1, [12, 30]), 20: random_rows(2, [12, 30]), 30: random_rows(3, [12, 30])}
    for step, table in tables.items():
        own = of_kind(random_rows(10 + step, [4]), OWN_KIND)
        files.add(step, {FIXED_KIND: of_kind(table, FIXED_KIND), OWN_KIND: own}, {})
    high = {step: high_tokens(table, "js") for step, table in tables.items()}
    truncated = {step: high_tokens(table, "js_top_p") for step, table in tables.items()}
    assert "shift/jaccard_first" not in files.metrics(10)
    assert files.metrics(10)["shift/jaccard_previous"] == 0  # nothing was high before
    assert files.metrics(30)["shift/jaccard_previous"] == jaccard(high[30], high[20])
    assert files.metrics(30)["shift/jaccard_first"] == jaccard(high[30], high[10])
    assert files.metrics(30)["shift/top_p/jaccard_previous"] == jaccard(truncated[30], truncated[20])
    assert files.metrics(30)["shift/top_p/jaccard_first"] == jaccard(truncated[30], truncated[0])
    assert next(iter(files.metrics(30))).startswith("shift/top_p/")
    assert files.overlaps_with_last("js") == {step: jaccard(high[step], high[30]) for step in tables}
    assert files.overlaps_with_last() == {step: jaccard(truncated[step], truncated[30]) for step in tables}
    assert list(files.summaries(FIXED_KIND)) == [0, 10, 20, 30]
    assert files.summaries(OWN_KIND)[10]["tokens"] == 4
    assert files.summaries(FIXED_KIND)[10]["tokens"] == 42
    assert files.read(20, FIXED_KIND)["js"].equals(tables[20]["js"])
    files.forget_after(10)
    assert files.steps() == [0, 10]
    files.forget_after(0)
    assert files.steps() == []
    assert files.overlaps_with_last() == {}


def test_probes_without_a_token_have_no_summary(tmp_path: Path) -> None:
    files = ProbeFiles(tmp_path)
    empty = random_rows(0, [3]).slice(0, 0)
    assert files.add(5, {FIXED_KIND: empty, OWN_KIND: empty}, {}) == {}
    assert files.summaries(FIXED_KIND) == {}


def test_a_damaged_probe_is_named(tmp_path: Path) -> None:
    files = ProbeFiles(tmp_path)
    files.table_path(3).write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"step_000003\.parquet is not a whole Parquet file"):
        files.forget_after(4)
