"""`tokenshift export`: an output folder or a Parquet file to a text file."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tokenshift.recipes.command_line.export import main


def test_a_folder_and_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run" / "table").mkdir(parents=True)
    file = tmp_path / "run" / "table" / "0.parquet"
    pq.write_table(pa.table({"js": [0.5, 0.25], "token": ["a", "b"]}), file)
    assert main([str(tmp_path / "run"), str(tmp_path / "x.csv")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == '"js","token"\n0.5,"a"\n0.25,"b"\n'
    assert main([str(file), str(tmp_path / "y.tsv"), "--columns", "token"]) == 0
    assert (tmp_path / "y.tsv").read_text() == '"token"\n"a"\n"b"\n'
