"""CSV and TSV of tables, read back by pandas."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tokenshift.analysis.token_table.export import export_table

TOKENS = ["a", "", "NA", "null", '"q"', "x,y", "l\nm", "\r", "\r\n", "\t", " ", "é🙂", "\ufeff", "nan", "\\", "a\0b"]
READ_BACK: dict[str, Any] = {"keep_default_na": False, "na_values": {"correct": [""]}}
"""The options that docs/reference/token-table.md gives."""


def hostile_table() -> pa.Table:
    """Tokens that a format of text could lose, and every type of the per-token table."""
    count = len(TOKENS)
    js = np.random.default_rng(0).random(count).astype(np.float32)
    js[:3] = np.inf, 1e-38, 0.1
    return pa.table(
        {
            "token": TOKENS,
            "correct": [(True, None, False)[index % 3] for index in range(count)],
            "js": js,
            "trajectory": pa.array(["rl", "base"] * (count // 2)).dictionary_encode(),
            "position": pa.array(range(count), pa.int32()),
        }
    )


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t")])
@pytest.mark.parametrize("kind", ["table", "dataframe", "folder"])
def test_pandas_reads_the_same_table(tmp_path: Path, suffix: str, delimiter: str, kind: str) -> None:
    table = hostile_table()
    source: Any = table
    if kind == "dataframe":
        source = table.to_pandas().set_axis(range(5, 5 + len(TOKENS)))  # an index of its own is no column
    if kind == "folder":
        (tmp_path / "table").mkdir()
        source = tmp_path / "table"
        for number, rows in enumerate((table.slice(0, 7), table.slice(7))):
            pq.write_table(rows, source / f"{number}.parquet")
    path = export_table(source, tmp_path / "new" / f"tokens.{suffix}")
    read = pd.read_csv(path, sep=delimiter, **READ_BACK)
    assert list(read.columns) == table.column_names
    assert read["token"].tolist() == TOKENS
    assert [None if value != value else value for value in read["correct"]] == table["correct"].to_pylist()
    assert read["js"].astype(np.float32).tolist() == table["js"].to_pylist()
    assert read["trajectory"].tolist() == table["trajectory"].to_pylist()
    assert read["position"].tolist() == table["position"].to_pylist()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_columns_are_those_that_are_asked_for(tmp_path: Path) -> None:
    path = export_table(hostile_table(), tmp_path / "x.TSV", columns=["position", "js"])
    assert path.read_text().splitlines()[0] == '"position"\t"js"'


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("x.xlsx", None, r"x.xlsx' must end in \.csv or \.tsv"),
        ("x.csv", ["js", "jss", "kl"], "no columns 'jss', 'kl'; it has token, correct, js"),
        ("x.csv", None, "column 'ids' holds lists; choose others by columns: token,correct,js,trajectory,position"),
    ],
)
def test_a_mistake_leaves_the_old_file(tmp_path: Path, name: str, columns: list[str] | None, message: str) -> None:
    table = hostile_table().append_column("ids", pa.array([[1, 2]] * len(TOKENS)))
    (tmp_path / name).write_text("old")
    with pytest.raises(ValueError, match=message) as error:
        export_table(table, tmp_path / name, columns=columns)
    assert "\n" not in str(error.value)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {name: "old"}


def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    table = hostile_table()
    for number, rows in enumerate((table, table)):
        pq.write_table(rows, tmp_path / f"{number}.parquet")
    (tmp_path / "1.parquet").write_bytes((tmp_path / "1.parquet").read_bytes()[:-20])
    (tmp_path / "x.csv").write_text("old")
    with pytest.raises(ValueError, match=r"1\.parquet is not a whole Parquet file"):
        export_table(tmp_path, tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "old"
    assert not list(tmp_path.glob("*.partial"))


def test_files_of_a_folder_have_the_same_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"js": [0.5], "match": [True]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"js": [0.5]}), tmp_path / "b.parquet")
    with pytest.raises(
        ValueError, match=r"b\.parquet has other columns or types than .*a\.parquet \(column 'match'\)"
    ):
        export_table(tmp_path, tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()


@pytest.mark.parametrize(("names", "columns"), [(["a", "a"], None), (["a", "b"], ["b", "b"]), (["a", "b"], [])])
def test_each_column_once(names: list[str], columns: list[str] | None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"column"):
        export_table(pa.table([[1], [2]], names=names), tmp_path / "table.csv", columns=columns)
