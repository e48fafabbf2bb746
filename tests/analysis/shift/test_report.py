"""A control's numbers are of the measure that counts: read, or made anew of its table."""

import json
from pathlib import Path

import pytest
from helpers import hand_table

from tokenshift.analysis import summarise
from tokenshift.analysis.shift.report import check_control, kinds_by_measure
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.token_table.schema import write_table


def test_a_control_of_before_is_measured_anew(tmp_path: Path) -> None:
    """Its summary.json names no measure, and has the full JS alone."""
    table = hand_table.table()
    old = {"metadata": {}, "kinds": summarise(table, measure="js", resamples=10)}
    (tmp_path / "summary.json").write_text(json.dumps(old))
    assert kinds_by_measure(tmp_path, "js") == json.loads(json.dumps(old["kinds"]))
    check_control(tmp_path, "js")
    with pytest.raises(ValueError, match="has no numbers of measure='js_top_p' and no table to make them of") as error:
        check_control(tmp_path, "js_top_p")
    assert "\n" not in str(error.value)
    write_table(RunFolder(tmp_path).table / "part-00000-of-00001.parquet", table, {"top_p": 0.7})
    check_control(tmp_path, "js_top_p")
    kinds = kinds_by_measure(tmp_path, "js_top_p", resamples=10)
    assert kinds["rl"]["all"]["measure"] == "js_top_p"


def test_both_measures_of_a_summary_are_read(tmp_path: Path) -> None:
    kinds = {name: {"rl": {"all": {"measure": name}}} for name in ("js_top_p", "js")}
    record = {"metadata": {}, "measure": "js_top_p", "kinds": kinds["js_top_p"]}
    (tmp_path / "summary.json").write_text(json.dumps(record | {"second": {"measure": "js", "kinds": kinds["js"]}}))
    for name, of_measure in kinds.items():
        check_control(tmp_path, name)
        assert kinds_by_measure(tmp_path, name) == of_measure
