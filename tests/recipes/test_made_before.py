"""Output folders, tables and checkpoints that an earlier version made are still read, and gone on with.

`data/made_before.tar.xz` holds what version 0.1.0 left before its modules were moved: two random models of some
thousand parameters, and the outputs of every recipe on them, figures and pages left out.
"""

import importlib
import json
import tarfile
from pathlib import Path

import pandas
import pytest

from tokenshift.analysis import summarise

ARCHIVE = Path(__file__).parents[1] / "data" / "made_before.tar.xz"
TINY = ["--size", "4", "--max_new_tokens", "8", "--resamples", "20"]
PAIR = ["--base_model", "base", "--rl_model", "rl", *TINY]
FULL_JS = ["--measure", "js"]
TRAINING = """--model_name_or_path base --max_steps 4 --save_steps 2 --per_device_train_batch_size 4
    --steps_per_generation 2 --num_generations 2 --max_completion_length 8 --train_size 16 --eval_size 4
    --probe_steps 2 --probe_size 2 --logging_steps 1 --report_to none --learning_rate 1e-3 --output_dir training"""

COMMANDS: dict[str, tuple[str, list[str], str]] = {
    "shift": (
        "analyze_shift",
        [*PAIR, *FULL_JS, "--report_responses", "1", "--output_dir", "shift"],
        "table/*.parquet",
    ),
    "evolution": (
        "analyze_evolution",
        ["--base_model", "base", "--checkpoints", "base", "rl", *TINY, *FULL_JS, "--output_dir", "evolution"],
        "models/**/*.parquet",
    ),
    "robustness": (
        "shift_robustness",
        [*PAIR, *FULL_JS, "--mixed_criterion", "js", "--top_ps", "0.7", "0.9", "--output_dir", "robustness"],
        "cells/**/*.parquet",
    ),
    "cross": (
        "cross_sample",
        [*PAIR, "--pilot", "4", "--criteria", "js", "random", "--budgets", "0.2", "--output_dir", "cross"],
        "cells/*.parquet",
    ),
    "evaluation": (
        "evaluate",
        ["--model", "rl", "--against", "base", *TINY, "--samples", "2", "--output_dir", "evaluation"],
        "responses/*.parquet",
    ),
    "comparison": (
        "compare_variants",
        ["--config", "comparison.yaml", *FULL_JS, "--output_dir", "comparison"],
        "cells/*/**/*.parquet",
    ),
}
"""Recipe, its arguments as they were given then, and the files that hold rows.

Then the full JS was the measure everywhere, and robustness truncated at 0.7 and 0.9: these are no defaults any more.
"""

MADE = {"shift": "summary.json", "evolution": "evolution.json", "robustness": "robustness.json"}
MADE |= {"cross": "cross.json", "evaluation": "evaluation.json", "comparison": "comparison.json"}
"""Where the numbers are that are made of those rows."""


@pytest.fixture
def made_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with what the archive holds."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def differences(before: object, after: object, place: str = "") -> list[str]:
    """Where two JSONs differ by more than 1e-9 of a number."""
    if isinstance(before, dict) and isinstance(after, dict):
        missing = [f"{place}/{name} is gone" for name in before.keys() - after.keys()]
        return missing + [
            line
            for name in before.keys() & after.keys()
            for line in differences(before[name], after[name], f"{place}/{name}")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            line
            for index, pair in enumerate(zip(before, after, strict=True))
            for line in differences(*pair, f"{place}[{index}]")
        ]
    if isinstance(before, float) and isinstance(after, float):
        return (
            [] if before == pytest.approx(after, rel=1e-9, abs=1e-15, nan_ok=True) else [f"{place}: {before}, {after}"]
        )
    return [] if before == after else [f"{place}: {before!r}, {after!r}"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", COMMANDS)
def test_a_finished_run_is_found_finished(made_before: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command of then makes no row anew, and the same numbers of the rows."""
    recipe, words, pattern = COMMANDS[kind]
    folder = made_before / kind
    rows = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob(pattern)}
    if kind == "comparison":  # recovery switched by the full JS then
        file = made_before / "comparison.yaml"
        file.write_text(file.read_text().replace("recovery: {", "recovery: {criterion: js, "))
    before = json.loads((folder / MADE[kind]).read_text())
    (folder / MADE[kind]).unlink()
    assert rows
    assert importlib.import_module(f"tokenshift.recipes.{recipe}").main(words) == 0, capsys.readouterr().err
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in rows} == rows
    again = json.loads((folder / MADE[kind]).read_text())
    if kind == "robustness":  # the table got three columns more at its right
        for old, new in zip(before, again, strict=True):
            new["cells"] = new["cells"][: len(old["cells"])]
    rule = "A response counts as correct where accuracy_reward >= 1."  # it was not written then
    if isinstance(again, dict) and rule in again.get("notes", []):  # some are lists of rows
        again["notes"].remove(rule)
    assert differences(before, again) == []
    if kind == "comparison":  # the outcome that there was not then, of what the trainings logged
        assert again["outcome"]["name"] == "learning_area"
        assert [row["learning_area"]["by_seed"] for row in again["variants"]] == [{"0": 0.0}, {"0": 0.0}]


@pytest.mark.slow
def test_numbers_of_then_stand_beside_those_of_now(made_before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By default a finished run is measured by the truncated JS; the full JS's numbers are in the second column."""
    before = json.loads((made_before / "shift" / "summary.json").read_text())
    words = [word for word in COMMANDS["shift"][1] if word not in FULL_JS]
    assert importlib.import_module("tokenshift.recipes.analyze_shift").main(words) == 0, capsys.readouterr().err
    again = json.loads((made_before / "shift" / "summary.json").read_text())
    assert (again["measure"], again["second"]["measure"]) == ("js_top_p", "js")
    assert differences(before["kinds"], again["second"]["kinds"]) == []
    truncated = pandas.read_parquet(made_before / "shift" / "table").js_top_p
    sparsity = again["kinds"]["rl"]["all"]["means"]["sparsity"]
    assert dict(zip(sparsity["labels"], sparsity["value"], strict=True))["> 0.1"] == (truncated > 0.1).mean()


@pytest.mark.slow
def test_a_checkpoint_is_gone_on_from(made_before: Path) -> None:
    """From update 2 to 4: the weights and the probe's rows of then, bit for bit."""
    folder = made_before / "training"
    weights = (folder / "checkpoint-4" / "model.safetensors").read_bytes()
    probe = pandas.read_parquet(folder / "shift" / "step_000004.parquet")
    words = [*TRAINING.split(), "--resume_from_checkpoint", "training/checkpoint-2"]
    assert importlib.import_module("tokenshift.recipes.grpo_divweighted").main(words) == 0
    assert (folder / "checkpoint-4" / "model.safetensors").read_bytes() == weights
    again = pandas.read_parquet(folder / "shift" / "step_000004.parquet")
    pandas.testing.assert_frame_equal(again, probe, atol=1e-6)  # another CPU rounds otherwise


def test_tables_are_read(made_before: Path) -> None:
    summary = summarise(made_before / "shift" / "table", measure="js", resamples=20)
    table = pandas.read_parquet(made_before / "shift" / "table")
    sparsity = summary["rl"]["all"]["means"]["sparsity"]
    assert dict(zip(sparsity["labels"], sparsity["value"], strict=True))["> 0.1"] == (table.js > 0.1).mean() > 0
    assert set(sparsity["n"]) == {len(table)}
