"""Checkpoints and settings compared, from models to tables and pages."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import hand_table
from helpers.pocket_models import refuse_loading
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenshift.analysis.sampling.trajectories import read_trajectories
from tokenshift.analysis.shift.evolution import evolution_rows, evolution_statements
from tokenshift.analysis.shift.high_tokens import high_tokens, jaccard_estimate
from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap
from tokenshift.recipes import analyze_evolution, shift_robustness
from tokenshift.recipes.jobs.analysis import cross_sampling, evolution, robustness, shift

BASE = Path(__file__).parent.parent.parent / "recipes" / "pocket" / "base"
QUICK = ["--size", "6", "--batch_size", "4", "--max_new_tokens", "40", "--resamples", "20", "--verify_workers", "1"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folders, further and further from pocket's base."""
    folder = tmp_path_factory.mktemp("run")
    model: Any = AutoModelForCausalLM.from_pretrained(BASE)
    torch.manual_seed(1)
    noise = [parameter.std() * torch.randn_like(parameter) for parameter in model.parameters()]
    for step in (9, 10, 100):  # in the order of numbers, not of names
        with torch.no_grad():
            for parameter, moved in zip(model.parameters(), noise, strict=True):
                parameter.add_(0.1 * moved)
        model.save_pretrained(folder / f"checkpoint-{step}")
        AutoTokenizer.from_pretrained(BASE).save_pretrained(folder / f"checkpoint-{step}")
    (folder / "checkpoint-notes.txt").touch()
    return folder


def test_evolution(checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--checkpoints", f"{checkpoints}/checkpoint-*", "--output_dir", str(tmp_path), *QUICK]
    job = analyze_evolution.prepare(words)
    assert [Path(source.name).name for source in job.sources] == ["checkpoint-9", "checkpoint-10", "checkpoint-100"]
    analyze_evolution.run(job)
    job.close()
    rows = json.loads((tmp_path / "evolution.json").read_text())
    assert [(row["label"], row["step"]) for row in rows] == [
        ("checkpoint-9", 9),
        ("checkpoint-10", 10),
        ("checkpoint-100", 100),
    ]
    assert {(row["measure"], row["second"]["measure"], row["top_p"]) for row in rows} == {("js_top_p", "js", 0.7)}
    full = [row["second"]["quantiles"]["0.9"]["value"] for row in rows]
    assert full[0] < full[2]
    assert rows[2]["exact_zero"]["value"] > 0
    assert rows[2]["jaccard_final"]["value"] == 1
    assert rows[0]["jaccard_previous"] is None
    fixed = read_trajectories(tmp_path / "trajectories" / "last.parquet")
    tables = [pq.read_table(folder / "table") for folder in sorted((tmp_path / "models").iterdir())]
    assert len(tables) == 3
    for table in tables:
        assert table.num_rows == sum(len(each.completion_ids) for each in fixed) == rows[0]["tokens"]
    assert "Jaccard" in (tmp_path / "report.html").read_text(encoding="utf-8")

    refuse_loading(monkeypatch, "scored again")
    job = analyze_evolution.prepare(words)
    analyze_evolution.run(job)
    assert json.loads((tmp_path / "evolution.json").read_text()) == rows


def _table(js: list[float]) -> pa.Table:
    table = hand_table.table()
    return table.set_column(table.column_names.index("js"), "js", pa.array(js, pa.float32()))


def test_overlaps_by_hand() -> None:
    """Sets {0}, {0, 10}, {0, 10, 11}: overlaps with the last 1/3, 2/3, 1, with the previous 1/2, 2/3."""
    js = [[0.5 if place in high else 0.0 for place in range(40)] for high in ({0}, {0, 10}, {0, 10, 11})]
    rows = evolution_rows(
        ["a", "b", "c"], [1, 2, 3], [_table(values) for values in js], [None] * 3, measure="js", resamples=50
    )
    assert [row["jaccard_final"]["value"] for row in rows] == pytest.approx([1 / 3, 2 / 3, 1])
    assert [row["jaccard_previous"]["value"] for row in rows[1:]] == pytest.approx([1 / 2, 2 / 3])
    assert [row["high"]["value"] for row in rows] == pytest.approx([1 / 40, 2 / 40, 3 / 40])
    assert evolution_statements(rows)[0].verdict == "seen"
    # the column js_top_p is the same in all three
    assert [row["second"]["jaccard_final"]["value"] for row in rows] == [1, 1, 1]
    assert [row["second"]["measure"] for row in rows] == ["js_top_p"] * 3
    assert rows[0]["second"]["exact_zero"]["value"] == 25 / 40
    turned = evolution_rows(["a", "b", "c"], [1, 2, 3], [_table(values) for values in js], [None] * 3, resamples=50)
    assert [row["second"] for row in turned] == [{name: row[name] for name in turned[0]["second"]} for row in rows]
    judged = evolution_statements(rows)
    assert [(each.second, each.second_verdict) for each in evolution_statements(turned)] == [
        (each.measured, each.verdict) for each in judged
    ]
    assert "too few" in evolution_statements(rows[:2])[0].measured
    reordered = _table(js[0]).take(pa.array(np.random.default_rng(0).permutation(40))).sort_by("token")
    with pytest.raises(ValueError, match="must stand together"):
        evolution_rows(["a"], [1], [reordered], [None])
    none = high_tokens(_table([0.0] * 40), "js")
    assert jaccard_estimate(none, none, np.array([3, 7, 9]), ProblemBootstrap(3, 5)) is None


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (["{run}/check-*"], "finds no folder"),
        (["{run}/checkpoint-9", "{run}/checkpoint-9"], "twice"),
        (["{run}/checkpoint-11"], "is not a folder with a config.json"),
        (["org/none@step-5"], "checkpoints='org/none@step-5' cannot be loaded"),
    ],
)
def test_wrong_checkpoints(named: list[str], words: str, tmp_path: Path) -> None:
    names = [name.replace("{run}", str(tmp_path)) for name in named]
    with pytest.raises(ValueError, match=words):
        analyze_evolution.prepare(["--checkpoints", *names, "--output_dir", str(tmp_path / "out"), *QUICK])


def test_robustness(
    checkpoints: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    reported: list[tuple[int, dict[str, float]]],
) -> None:
    words = ["--rl_model", f"{checkpoints}/checkpoint-100", "--output_dir", str(tmp_path), *QUICK]
    words += ["--temperatures", "0.8", "1.2", "--top_ps", "0.7", "0.9", "--mixed_epsilon", "0.02"]
    words += ["--report_to", "comet_ml"]
    shift_robustness.run(shift_robustness.prepare(words))
    rows = json.loads((tmp_path / "robustness.json").read_text())
    assert len(rows) == 3 * 2 * 3
    assert {(row["trajectories"], row["temperature"], row["top_p"]) for row in rows} == {
        (kind, temperature, top_p)
        for kind in ("rl", "base", "mixed")
        for temperature in (0.8, 1.2)
        for top_p in (0.7, 0.9, 1.0)
    }
    text = (tmp_path / "robustness.md").read_text()
    assert text.count("\n") == len(rows) + 2
    assert "mixed" in capsys.readouterr().out
    # a truncated row is of the truncated column, a whole one of the other
    cell = pq.read_table(tmp_path / "cells" / "mixed_temperature_1.2" / "top_p_0.7" / "table")
    (whole,) = (r for r in rows if (r["trajectories"], r["temperature"], r["top_p"]) == ("mixed", 1.2, 1.0))
    (cut,) = (r for r in rows if (r["trajectories"], r["temperature"], r["top_p"]) == ("mixed", 1.2, 0.7))
    assert whole["near_zero"]["value"] == pytest.approx((cell["js"].to_numpy() < 1e-3).mean())
    js_top_p = cell["js_top_p"].to_numpy()
    assert cut["near_zero"]["value"] == pytest.approx((js_top_p < 1e-3).mean())
    assert cut["exact_zero"]["value"] == pytest.approx((js_top_p == 0).mean())
    assert cut["one_token"]["value"] == cut["exact_zero"]["value"] > 0
    assert cut["js_at_exact_zero"]["value"] == pytest.approx(cell["js"].to_numpy()[js_top_p == 0].mean(), rel=1e-5)
    assert cut["js_max_at_exact_zero"] == cell["js"].to_numpy()[js_top_p == 0].max()
    assert cut["second"]["near_zero"] == whole["near_zero"]
    ((update, numbers),) = reported
    assert update == 0
    assert numbers["analysis/mixed/temperature_1.2/top_p_0.7/frac_near_zero"] == cut["near_zero"]["value"]
    assert numbers["analysis/mixed/temperature_1.2/whole/frac_near_zero_low"] == whole["near_zero"]["low"]
    # the measure that counts comes first
    assert [row["measure"] for row in rows[:3]] == ["js_top_p", "js_top_p", "js"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "How much of the sparsity is truncation" in page
    assert (tmp_path / "figures" / "sparsity_by_top_p.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--kinds", "rl", "sft"], "kinds names 'sft'"),
        (["--top_ps", "1.0"], "top_ps has 1.0"),
        (["--temperatures", "0"], "temperatures has 0.0"),
        (["--mixed_epsilon", "0.7"], r"must lie in \[0, ln 2\]"),
        (["--measure", "kl"], "measure='kl' is not known; choose js_top_p or js"),
    ],
)
def test_wrong_sweeps(arguments: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        shift_robustness.prepare(arguments)


def _loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that are loaded from now on."""
    names: list[str] = []
    load = shift.ready_model

    def counted(source: Any, args: Any) -> Any:
        names.append(Path(source.name).name)
        return load(source, args)

    monkeypatch.setattr(shift, "ready_model", counted)
    return names


def _tables(folder: Path) -> dict[str, pa.Table]:
    return {
        str(part.relative_to(folder)): pq.read_table(part).replace_schema_metadata() for part in folder.rglob("part-*")
    }


def test_one_model_at_a_time(checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tables; the base reads what several models or settings are scored along once."""
    words = [*QUICK, "--size", "3", "--max_new_tokens", "20"]
    names = [f"{checkpoints}/checkpoint-{step}" for step in (9, 100)]
    for recipe, options, score, loaded in (
        (
            "evolution",
            ["--checkpoints", *names],
            evolution.score_checkpoints,
            ["pocket", "checkpoint-9", "checkpoint-100"],
        ),
        (
            "robustness",
            ["--rl_model", names[1], "--kinds", "rl", "--temperatures", "1.0", "--top_ps", "0.7", "0.9"],
            robustness.robustness_rows,
            ["pocket", "checkpoint-100", "checkpoint-100"],
        ),
    ):
        prepare = {"evolution": evolution.prepare, "robustness": robustness.prepare}[recipe]
        for one in ("false", "true"):
            folder = tmp_path / recipe / one
            job: Any = prepare([*words, *options, "--output_dir", str(folder), "--one_model_at_a_time", one])
            with monkeypatch.context() as patch:
                scored = _loads(patch)
                score(job)
            job.close()
        assert scored == loaded
        both, found = (_tables(tmp_path / recipe / one) for one in ("false", "true"))
        assert found.keys() == both.keys()
        assert len(found) == 2
        assert all(found[name].equals(table) for name, table in both.items())
        assert not list((tmp_path / recipe).rglob("units"))
        first, second = ((tmp_path / recipe / one / "settings.json").read_text() for one in ("false", "true"))
        assert first == second, "a run may go on either way"


def test_what_asks_both_models_at_every_token_needs_both() -> None:
    with pytest.raises(ValueError, match="one_model_at_a_time=True cannot be: cross-sampling asks both policies"):
        cross_sampling.prepare(["--one_model_at_a_time", "true"])
    with pytest.raises(ValueError, match="one_model_at_a_time=True cannot be with the mixed policy"):
        shift_robustness.prepare(["--one_model_at_a_time", "true"])
