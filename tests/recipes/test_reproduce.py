"""A reproduction from end to end, with recipes that do next to nothing: its parts whatever happens to them, its rows,
its page, and whether two sets of seeds agree."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from helpers.made_comparison import everything, learned, summary_of
from helpers.made_sweep import made_sweep
from helpers.random_table import random_rows
from helpers.small_comparison import ROOT

from tokenshift.analysis import summarise_runs
from tokenshift.analysis.shift.evolution import evolution_rows
from tokenshift.analysis.shift.runs import run_of_table
from tokenshift.analysis.storage.file_names import file_name
from tokenshift.recipes.command_line.commands import COMMANDS
from tokenshift.recipes.command_line.config_files import CONFIGS
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.jobs.comparison.lined_yaml import LinedYaml
from tokenshift.recipes.jobs.comparison.schema import read_settings
from tokenshift.recipes.jobs.comparison.variants import read_variants
from tokenshift.recipes.jobs.reproduction import rows as reproduction_rows
from tokenshift.recipes.jobs.reproduction.agreement import agreements
from tokenshift.recipes.jobs.reproduction.arguments import SCALES, prepare, recorded_settings
from tokenshift.recipes.jobs.reproduction.file import read_scale
from tokenshift.recipes.jobs.reproduction.page import every_table
from tokenshift.recipes.jobs.reproduction.parts import COMMAND_OF, Scripts, comparison_document, parts_of
from tokenshift.recipes.jobs.reproduction.rows import Row, every_row
from tokenshift.recipes.jobs.reproduction.view import PartsView, last_line
from tokenshift.recipes.jobs.training.arguments import TRAINING
from tokenshift.recipes.reproduce import main

PLACES = {"dapo": 0, "simplerl": 3}
LENGTHS = [9, 14, 11, 17, 8, 12, 10, 13, 16, 7, 12, 15]
ARMS = ["dapo", "high_kl", "low_kl", "simplerl"]

SCALE: dict[str, Any] = {
    "comparison": {
        "config": "pocket",
        "variants": {"dapo": None, "high_kl": None, "low_kl": None, "simplerl": {"epsilon_high": 0.2}},
        "evaluation": {"datasets": ["pocket"], "size": 6},
    },
    "sft": {"base_model": "pocket", "max_steps": 4},
    "shift": {"size": 6},
    "evolution": {"size": 6},
    "cross": {"size": 6, "criteria": ["js_top_p", "random_disagreement"], "match": "effective"},
    "draws": {"independent": {"budgets": [0.1]}, "shared": {"budgets": [0.1]}},
    "robustness": {"size": 6},
    "minutes": {"trainings": 2, "sft": 1},
    "minutes_from": "made up",
}

PARTS = [
    "compare trainings",
    *(f"sft seed-{seed}" for seed in range(3)),
    "shift shift",
    *(f"cross seed-{seed}-{draws}" for draws in ("independent", "shared") for seed in range(3)),
    *(f"evolution seed-{seed}" for seed in range(3)),
    "robustness robustness",
]


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up numbers in the files that each command writes."""
    folder = tmp_path_factory.mktemp("products")
    for command in COMMAND_OF.values():
        (folder / command).mkdir()
    comparison = {**summary_of(learned(everything(ARMS)), ARMS), "failed": {}, "doses": []}
    _write(folder / "compare" / "comparison.json", comparison)
    (folder / "sft" / "model").mkdir()
    sft = {"outcome": "target reached", "updates": 40, "accuracy": {"mean": 0.9}, "target": {"accuracy": 0.89}}
    _write(folder / "sft" / "summary.json", sft)
    tables = [random_rows(seed, LENGTHS) for seed in range(9)]
    named = {"dapo": tables[:3], "simplerl": tables[3:6]}
    _write(folder / "shift" / "runs.json", summarise_runs(named, sft=tables[6:], resamples=20))
    rows = evolution_rows(["1", "2", "3"], [1, 2, 3], tables[:3], [None] * 3, resamples=20)
    _write(folder / "evolution" / "evolution.json", rows)
    _write(folder / "robustness" / "robustness.json", [{"cells": [str(number) for number in range(13)]}])
    (folder / "cross" / "cells").mkdir()
    pq.write_table(made_sweep(20, 8), folder / "cross" / "cells" / "all.parquet")
    statement = {"text": "The mixture can beat RL", "published": "yes", "measured": "+1 [0, 2]", "verdict": "open"}
    entry = {"value": 1.5, "low": 1.0, "high": 2.0}
    needed = {"effective_count": {"50": entry, "90": {"value": 2.0, "low": 1.5, "high": None}}}
    curve = {"direction": "forward", "criterion": "js_top_p", "needed": needed, "area_effective_10": entry}
    _write(folder / "cross" / "cross.json", {"statements": [statement], "curves": [curve]})
    return folder


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


class Made:
    """A reproduction's file, templates and output folder."""

    def __init__(self, folder: Path, templates: Path) -> None:
        self.file, self.templates, self.out = folder / "mine.yaml", templates, folder / "out"
        self.write(SCALE)
        fake = str(ROOT / "tests" / "helpers" / "fake_parts.py")
        self.scripts: Scripts = {name: [fake, str(templates), name] for name in COMMAND_OF.values()}

    def write(self, scale: dict[str, Any]) -> None:
        self.file.write_text(yaml.safe_dump(scale))

    def words(self, *more: str) -> list[str]:
        return ["--config", str(self.file), "--output_dir", str(self.out), "--parallel", "2", *more]

    def main(self, *more: str) -> int:
        return main(self.words(*more), self.scripts)

    def launches(self) -> list[str]:
        file = self.templates / "launches.txt"
        return file.read_text().split("\n")[:-1] if file.is_file() else []

    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.out / "reproduction.json").read_text())
        return record


def made_in(tmp_path: Path, products: Path) -> Made:
    templates = tmp_path / "templates"
    templates.mkdir()
    for path in products.iterdir():
        (templates / path.name).symlink_to(path)
    return Made(tmp_path, templates)


@pytest.fixture
def made(tmp_path: Path, products: Path) -> Made:
    return made_in(tmp_path, products)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, products: Path) -> Made:
    """A reproduction that has ended, to look at."""
    made = made_in(tmp_path_factory.mktemp("finished"), products)
    assert made.main() == 0
    return made


# The parts -----------------------------------------------------------------------------------------------------------


def test_a_whole_reproduction(
    made: Made, capsys: pytest.CaptureFixture[str], reported: list[tuple[int, dict[str, float]]]
) -> None:
    assert made.main() == 0
    printed = capsys.readouterr().out
    assert sorted(made.launches()) == sorted(PARTS)
    assert made.launches()[0] == "compare trainings"
    assert made.launches().index("shift shift") > max(made.launches().index(f"sft seed-{seed}") for seed in range(3))
    assert re.search(r"robustness +done in \d+ s \(\d+ of 15 parts\)", printed)
    record = made.record()
    assert record["seeds"] == [0, 1, 2]
    assert {part["state"] for part in record["parts"]} == {"done"}
    assert all(part["seconds"] > 0 for part in record["parts"])
    commands = {part["name"]: part["command"] for part in record["parts"]}
    assert commands["cross seed 1 shared"].startswith("python recipes/cross_sample.py --rl_model ")
    assert "--budgets 0.1 --draws shared" in commands["cross seed 1 shared"]
    assert f"--rl_model {made.out}/trainings/cells/dapo-seed2/model" in commands["sft seed 2"]
    assert f"simplerl={made.out}/trainings/cells/simplerl-seed0/model" in commands["shift"]
    document = yaml.safe_load((made.out / "comparison.yaml").read_text())
    assert (document["seeds"], document["baseline"], document["keep_checkpoints"]) == ([0, 1, 2], "dapo", True)
    rows = record["rows"]
    assert len({row["id"] for row in rows}) == len(rows)
    assert [row["section"] for row in rows] == sorted(row["section"] for row in rows)
    assert {row["section"] for row in rows} == {2, 3, 4, 5}
    for row in rows:
        assert row["commands"] == [commands[name] for name in row["parts"]]
        assert row["commands"]

    # again: nothing is done twice, and the rows are the same
    assert not reported
    assert made.main("--report_to", "comet_ml") == 0
    assert "15 of 15 parts are done already" in capsys.readouterr().out
    ((update, numbers),) = reported
    assert update == 0
    counts = [value for name, value in numbers.items() if name.rpartition("/")[2] in ("seen", "open", "not_seen")]
    assert sum(counts) == len(rows)
    with_interval = [name for name in numbers if name.endswith("_low")]
    assert len(with_interval) == sum((row["estimate"] or {}).get("low") is not None for row in rows) > 0
    assert all(re.fullmatch(r"[\w./-]{1,240}", name) for name in numbers), "other signs are refused by MLflow"
    assert len(made.launches()) == len(PARTS)
    assert made.record()["rows"] == rows

    # a damaged product is named
    (made.out / "evolution" / "seed-1" / "evolution.json").write_text("[")
    capsys.readouterr()
    assert made.main() == 2
    assert re.search(r"evolution/seed-1/evolution.json is damaged .*, or delete it\.\n", capsys.readouterr().err)
    (made.out / "evolution" / "seed-1" / "evolution.json").unlink()

    # another seed: its parts, and those over all seeds
    assert made.main("--seeds", "0", "1", "2", "7") == 0
    assert sorted(made.launches()[len(PARTS) :]) == [
        "compare trainings",
        "cross seed-7-independent",
        "cross seed-7-shared",
        "evolution seed-1",
        "evolution seed-7",
        "sft seed-7",
        "shift shift",
    ]


def test_rows_say_what_the_products_say(finished: Made) -> None:
    rows = finished.record()["rows"]
    runs = json.loads((finished.out / "shift" / "runs.json").read_text())
    by = {(row["section"], row["row"], row["arm"], row["statement"]): row for row in rows}
    sparsity = next(row for key, row in by.items() if key[:3] == (2, "Sparsity", "DAPO"))
    statement = runs["kinds"]["rl"]["groups"]["dapo"]["statements"][0]
    for name in ("measured", "verdict", "second"):
        assert sparsity[name] == statement[name]
    assert sparsity["estimate"] == {name: statement["estimate"][name] for name in ("value", "low", "high")}
    assert (sparsity["problems"], sparsity["second_by"]) == (6, "full JS")
    simple = next(row for key, row in by.items() if key[:3] == (2, "Sparsity", "SimpleRL"))
    assert (simple["published"], simple["statement"][-8:]) == ("> 98 %", ": > 98 %")
    dense = [row for row in rows if row["arm"] == "DAPO and SimpleRL"]
    assert [row["statement"] for row in dense] == ["DAPO's shifts are denser than SimpleRL's"]
    assert {row["arm"] for row in rows if row["row"] == "Sparsity"} == {
        *("DAPO", "SimpleRL", "SFT and DAPO", "SFT and SimpleRL", "DAPO and SimpleRL")
    }
    forward = next(row for row in rows if row["row"] == "Sufficiency")
    assert (forward["verdict"], forward["second_by"], forward["seeds"]) == ("seen", "shared draws", [0, 1, 2])
    mixture = next(row for row in rows if row["row"] == "Mixture")
    assert (mixture["verdict"], mixture["measured"][:23]) == ("open", "seed 0: +1 [0, 2] (open)"[:23])
    comparison = json.loads((finished.out / "trainings" / "comparison.json").read_text())
    boost = next(row for row in rows if row["arm"] == "high-KL boost")
    difference = next(one for one in comparison["verdicts"] if one["variant"] == "high_kl")["discovery"]
    assert boost["estimate"]["value"] == difference["difference"]
    assert boost["published"] == "45.05 ± 0.79 against 42.48 ± 1.35"
    assert len([row for row in rows if row["row"] == "Evolution"]) == 3


ARMS_AND_SETS: dict[str, Any] = {
    **SCALE,
    "cross_arms": ["simplerl", "dapo"],
    "cross_sets": {"AIME24": {"dataset_split": "train"}, "AIME25": {"dataset_name": "other"}},
    "prompts": {"simplerl": {"system_prompt": "Be brief.", "prompt_template": "Q {prompt}"}},
}


def test_arms_and_benchmarks_of_the_cross_sampling_are_settings(made: Made, products: Path) -> None:
    made.write(ARMS_AND_SETS)
    scale = read_scale(made.file)
    parts = [part for part in parts_of(scale, made.out, [0, 1, 2], 1) if part.kind == "cross"]
    assert [part.name for part in parts[:6:3]] == [
        "cross simplerl AIME24 seed 0 independent",
        "cross simplerl AIME24 seed 0 shared",
    ]
    assert len(parts) == len({part.name for part in parts}) == len({part.folder for part in parts}) == 24
    for part in parts:
        (arm,) = part.arms
        assert f"/{arm}-seed{part.seed}/model" in part.settings["rl_model"]
        assert part.settings.get("system_prompt") == ("Be brief." if arm == "simplerl" else None)
        own = {"AIME24": ("train", None), "AIME25": (None, "other")}[part.benchmark]
        assert (part.settings.get("dataset_split"), part.settings.get("dataset_name")) == own
        part.state = "done"
        part.folder.mkdir(parents=True)
        for name in ("cells", "cross.json"):
            (part.folder / name).symlink_to(products / "cross" / name)
    rows = every_row(parts, [0, 1, 2])
    assert len({row.id for row in rows}) == len(rows)
    published = {row.arm: row.published for row in rows if row.row == "Sufficiency"}
    assert published == {
        "SimpleRL, AIME24": "8.23 to > 25 of 25.52 by 3.86 %",
        "SimpleRL, AIME25": "5.3 to > 14 of 12.71 by 1.53 %",
        "DAPO, AIME24": "8.23 to > 44 of 44.8 by 7.8 %",
        "DAPO, AIME25": "5 to > 33 of 32 by 6.47 %",
    }
    for row in rows:
        assert {part.arms[0] for part in parts if part.name in row.parts} == {
            {"SimpleRL": "simplerl", "DAPO": "dapo"}[row.arm.partition(",")[0]]
        }
        assert all(row.arm.rpartition(" ")[2] in name for name in row.parts)
    titles = [title for title, (section, _) in every_table(parts, [0, 1, 2]).items() if section == 3]
    assert sum(title.startswith("Cross-sampling of SimpleRL, AIME25, ") for title in titles) == 2
    assert len(titles) == 8 + 4


def test_an_arm_is_measured_by_its_own_prompt(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its evaluation, its shifts and its cross-sampling, with the base and the SFT controls beside it."""
    made.write(ARMS_AND_SETS)
    scale = read_scale(made.file)
    document = comparison_document(scale, [0])
    assert document["evaluation_prompts"] == ARMS_AND_SETS["prompts"]
    first, second = [part for part in parts_of(scale, made.out, [0, 1, 2], 1) if part.kind == "shift"]
    assert (first.name, second.name) == ("shift", "shift simplerl")
    assert (first.folder.name, second.folder.name) == ("shift", "shift-simplerl")
    assert [given.partition("=")[0] for given in first.settings["rl_model"]] == ["dapo"] * 3
    assert [given.partition("=")[0] for given in second.settings["rl_model"]] == ["simplerl"] * 3
    assert first.settings["sft_models"] == second.settings["sft_models"]
    assert "system_prompt" not in first.settings
    assert second.settings["prompt_template"] == "Q {prompt}"

    tables = {arm: [random_rows(seed + start, LENGTHS) for seed in range(3)] for arm, start in PLACES.items()}
    of_model = {
        file_name(given.partition("=")[2]): run_of_table(table, given, "js_top_p", resamples=5)
        for part, arm in ((first, "dapo"), (second, "simplerl"))
        for given, table in zip(part.settings["rl_model"], tables[arm], strict=True)
    }
    monkeypatch.setattr(reproduction_rows, "run_of_folder", lambda folder, *_: of_model[folder.path.name])
    for part, arm in ((first, "dapo"), (second, "simplerl")):
        part.state = "done"
        part.folder.mkdir(parents=True)
        _write(part.product, summarise_runs({arm: tables[arm]}, resamples=5))
    rows = every_row([first, second], [0, 1, 2])
    assert len({row.id for row in rows}) == len(rows)
    together = summarise_runs(tables, resamples=5)["kinds"]["rl"]["comparisons"][-1]
    (dense,) = [row for row in rows if row.arm == "DAPO and SimpleRL"]
    assert dense.measured == f"{together['measured']}; each by its own prompt"
    assert (dense.verdict, dense.parts) == (together["verdict"], ["shift", "shift simplerl"])
    assert {row.arm for row in rows if row.row == "Entropy"} == {"DAPO", "SimpleRL"}


def test_reproductions_made_before_go_on_without_the_new_settings(made: Made) -> None:
    """One arm, one benchmark and one prompt leave names, folders and recorded settings as they were."""
    names = {part.name: part.folder for part in parts_of(read_scale(made.file), made.out, [0], 1)}
    assert names["shift"] == made.out / "shift"
    assert names["cross seed 0 shared"] == made.out / "cross" / "seed-0-shared"
    job = prepare(made.words())
    job.close()
    assert not {"cross_arms", "cross_sets", "prompts"} & recorded_settings(job).keys()
    made.write(ARMS_AND_SETS)
    with pytest.raises(ValueError, match=r"holds a reproduction with cross_arms=None, not \['simplerl', 'dapo'\]"):
        prepare(made.words())


def test_the_simplerl_figure_decides_for_simplerl(made: Made, products: Path) -> None:
    """90 % near zero is what the publication has for DAPO, and not for SimpleRL."""
    runs = json.loads((products / "shift" / "runs.json").read_text())
    for arm in ("dapo", "simplerl"):
        entry = runs["kinds"]["rl"]["groups"][arm]["statements"][0]
        entry |= {"verdict": "seen", "estimate": {"value": 0.9, "low": 0.88, "high": 0.92}}
    (made.templates / "shift").unlink()
    (made.templates / "shift").mkdir()
    _write(made.templates / "shift" / "runs.json", runs)
    assert made.main() == 0
    verdicts = {row["arm"]: row["verdict"] for row in made.record()["rows"] if row["row"] == "Sparsity"}
    assert (verdicts["DAPO"], verdicts["SimpleRL"]) == ("seen", "not seen")


def test_the_page_has_every_row_and_table(finished: Made) -> None:
    page = (finished.out / "reproduction.html").read_text()
    for row in finished.record()["rows"]:
        assert row["published"].replace(">", "&gt;").replace("<", "&lt;") in page
    for title in finished.record()["tables"]:
        assert title.replace("'", "&#39;") in page
    for words in (
        "Section 2. Characterisation",
        "Section 3. ",
        "Section 4. ",
        "Section 5. ",
        "Commands and durations",
    ):
        assert words in page
    assert "python recipes/analyze_evolution.py" in page
    assert "42.48 ± 1.35" in page


def test_a_crashed_part_is_tried_again_and_a_failed_one_leaves_out_what_reads_it(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    (made.templates / "crashes").write_text("seed-0 robustness")
    (made.templates / "refused").write_text("seed-1-shared")
    (made.templates / "always").write_text("robustness")
    assert made.main() == 1
    launches = made.launches()
    assert launches.count("sft seed-0") == 2
    assert launches.count("robustness robustness") == 2
    assert launches.count("cross seed-1-shared") == 1
    printed = capsys.readouterr().out
    assert "cross seed 1 shared failed: recipe.py: size is not to its liking." in printed
    assert "robustness failed: RuntimeError: out of memory at [/INST]" in printed
    record = made.record()
    forward = next(row for row in record["rows"] if row["row"] == "Sufficiency")
    assert forward["second_verdict"] == "open: 2 runs are too few"
    assert "robustness: failed. RuntimeError: out of memory" in (made.out / "reproduction.html").read_text()

    (made.templates / "refused").write_text("trainings")
    made.out = made.out.parent / "again"
    assert made.main() == 1
    assert {part["state"] for part in made.record()["parts"]} == {"failed", "left out"}
    assert made.record()["rows"] == []


def test_a_stopped_reproduction_goes_on(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    (made.templates / "hangs").write_text("seed-1")

    def interrupt() -> None:
        while made.launches().count("sft seed-1") < 1:
            time.sleep(0.02)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert made.main() == 130
    thread.join()
    printed = capsys.readouterr().out
    assert "Stopping" in printed
    assert "the same command goes on where it was" in printed
    (made.templates / "hangs").unlink()
    assert made.main() == 0
    assert made.launches().count("compare trainings") == 1
    assert made.launches().count("sft seed-1") == 2


# Two sets of seeds ---------------------------------------------------------------------------------------------------


def test_two_sets_of_seeds(made: Made, finished: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, first = finished.record(), tmp_path / "first"
    first.mkdir()
    record["rows"][0]["verdict"] = "seen" if record["rows"][0]["verdict"] != "seen" else "not seen"
    _write(first / "reproduction.json", record)
    assert made.main("--seeds", "3", "4", "5", "--against", str(first), "--leave_out", "robustness", "evolution") == 0
    assert {line.split()[0] for line in made.launches()} == {"compare", "sft", "shift", "cross"}
    agreed = made.record()["agreements"]
    assert [one["agrees"] for one in agreed] == [False] + [True] * (len(agreed) - 1)
    assert re.fullmatch(r"open: .+ with seeds 3 4 5, .+ with seeds 0 1 2", agreed[0]["verdict"])
    assert agreed[1]["verdict"] == made.record()["rows"][1]["verdict"]
    assert "Two sets of seeds" in (made.out / "reproduction.html").read_text()
    capsys.readouterr()
    for words, message in (
        (("--seeds", "2", "3", "4"), "has the seed 2 too"),
        (("--seeds", "6", "7", "8", "--against", str(tmp_path)), "has no reproduction.json of a reproduction"),
    ):
        assert made.main("--against", str(first), *words) == 2
        assert message in capsys.readouterr().err
    made.write({**SCALE, "shift": {"size": 7}})
    assert made.main("--seeds", "3", "4", "5", "--against", str(first)) == 2
    assert "was made with shift.size=6, not 7" in capsys.readouterr().err


def test_verdicts_agree_whatever_stands_behind_them() -> None:
    row = Row("a", 1, "", "", "", "", "", "seen", 6, [0, 1, 2])
    others = {"seen": True, "open": False, "not seen": False}
    for verdict, agrees in others.items():
        other = {"rows": [{"id": "a", "verdict": verdict, "measured": "", "seeds": [3], "estimate": None}]}
        (judged,) = agreements([row], other)
        assert judged.agrees == agrees
        assert (judged.verdict == "seen") == agrees
    few = replace(row, verdict="open: 2 runs are too few")
    other = {"rows": [{"id": "a", "verdict": "open", "measured": "", "seeds": [3], "estimate": None}]}
    assert agreements([few], other)[0].agrees
    (missing,) = agreements([row], {"rows": []})
    assert (missing.agrees, missing.verdict) == (False, "open: the other seeds have no such row")


# Mistakes, plans, and what is shown ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scale", "pockets"], "scale='pockets' is not known; choose one of pocket, smollm2, paper"),
        (["--seeds", "1", "1"], "seeds has 1 twice"),
        (["--seeds", "1"], "must name two or more"),
        (["--seeds", "1", "-2"], "seeds has -2"),
        (["--parallel", "0"], "parallel=0 must be at least 1"),
        (["--config", "none.yaml"], "'none.yaml' is not a file"),
        (["--against", "x", "--dry_run"], "no effect beside dry_run"),
        (
            ["--scale", "paper", "--output_dir", "OUT"],
            "needs 8 GPUs of 80 GB, and this machine has 0; --dry_run shows",
        ),
        (["--leave_out", "sft"], "leave_out='sft' cannot be"),
        (["--leave_out", "croos"], "leave_out='croos' cannot be; did you mean cross?"),
        (["--sizes", "4"], "--sizes is no argument"),
        (["--report_to", "wandbb"], "report_to has 'wandbb', which is no tracker; did you mean wandb"),
        (["--dry_run", "--report_to", "wandb"], "report_to=['wandb'] has no effect beside dry_run"),
    ],
)
def test_mistakes_in_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main(words) == 2
    assert message in (said := capsys.readouterr().err)
    assert said.startswith("reproduce.py: ")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shfit": {}}, "shfit is not known; did you mean shift?"),
        ({"sft": None}, "sft is wrong"),
        ({"comparison": {"seeds": [1]}}, "comparison sets seeds"),
        ({"comparison": {"variants": {"high_kl": None}}}, "comparison has no variant 'dapo'"),
        ({"shift_arms": ["dapo", "other"]}, "comparison has no variant 'other'"),
        ({"cross_arms": ["dapo", "other"]}, "comparison has no variant 'other'"),
        ({"cross_arms": ["dapo", "dapo"]}, "cross_arms has 'dapo' twice"),
        ({"cross_arms": []}, "cross_arms is wrong"),
        ({"cross_sets": {"a/b": {}}}, "cross_sets has 'a/b'; it is part of a folder's name"),
        ({"cross_sets": {"AIME24": {"sizes": 4}}}, "mine.yaml, cross: --sizes is no argument"),
        ({"prompts": {"other": {}}}, "comparison has no variant 'other'"),
        ({"prompts": {"dapo": {"system_prompt": "a"}}}, "prompts has 'dapo', whose prompt is that of"),
        ({"prompts": {"simplerl": {"prompt_temlate": "a"}}}, "prompts.simplerl.prompt_temlate"),
        ({"shift": {"sizes": 4}}, "mine.yaml, shift: --sizes is no argument"),
        ({"cross": {"criteria": ["jss"]}}, "mine.yaml, cross: criteria='jss' is no criterion"),
    ],
)
def test_mistakes_in_the_file(
    made: Made, change: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made.write({**SCALE, **change})
    assert made.main() == 2
    assert message in capsys.readouterr().err
    assert not made.out.exists()


def test_the_record_makes_the_same_reproduction(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = prepare(made.words("--seeds", "4", "5", "--leave_out", "robustness"))
    job.close()
    record = made.out / "config.yaml"
    again = prepare(["--config", str(record), "--output_dir", str(tmp_path / "again")])
    again.close()
    assert (again.name, again.seeds, again.parallel, again.args.leave_out) == ("mine", [4, 5], 2, ["robustness"])
    assert recorded_settings(again) == recorded_settings(job)
    assert [part.name for part in again.parts] == [part.name for part in job.parts]
    written, second = (yaml.safe_load((folder / "config.yaml").read_text()) for folder in (made.out, again.folder))
    facts = written.pop("record")
    assert facts["command"] == "reproduce"
    assert facts["launches"][0]["command_line"].startswith("tokenshift reproduce --config ")
    assert second.pop("record")["command"] == "reproduce"
    assert second == written
    more = prepare(["--config", str(record), "--output_dir", str(made.out), "--seeds", "4", "5", "6"])
    more.close()
    launches = yaml.safe_load(record.read_text())["record"]["launches"]
    assert [launch.get("goes_on", False) for launch in launches] == [False, True]
    assert launches[1]["changed"] == {"seeds": {"before": [4, 5], "now": [4, 5, 6]}}
    record.write_text(record.read_text().replace("command: reproduce", "command: compare"))
    assert main(["--config", str(record), "--dry_run"]) == 2
    assert "is the record of a run of `tokenshift compare`, not of reproduce" in capsys.readouterr().err


def test_a_folder_of_others_is_refused(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    job = prepare(made.words())
    assert made.main() == 2
    assert "is in use by another reproduction" in capsys.readouterr().err
    job.close()
    made.write({**SCALE, "sft": {**SCALE["sft"], "max_steps": 8}})
    assert made.main() == 2
    assert "holds a reproduction with sft.max_steps=4, not 8; choose another" in capsys.readouterr().err
    made.write({**SCALE, "minutes": {"sft": 3}})  # an estimate changes no number
    prepare(made.words()).close()
    (made.out / "reproduction_settings.json").write_text("{")
    assert made.main() == 2
    assert "has a damaged reproduction_settings.json" in capsys.readouterr().err
    made.out = made.out.parent / "foreign"
    made.out.mkdir()
    (made.out / "settings.json").write_text("{}")
    assert made.main() == 2
    assert "has a settings.json that no reproduction made" in capsys.readouterr().err


@pytest.mark.parametrize("scale", SCALES)
def test_plans_of_the_shipped_scales(scale: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--scale", scale, "--dry_run", "--output_dir", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    for name in ("compare_variants", "sft_control", "analyze_shift", "cross_sample", "analyze_evolution"):
        assert f"python recipes/{name}.py" in printed
    if scale == "paper":
        assert "Needs 8 GPUs of 80 GB." in printed
        assert "accelerate_configs/zero3.yaml --num_processes 8 recipes/grpo_divweighted.py" in printed
        assert "HuggingFaceH4/aime_2024" in printed
        for part in ("shift simplerl", "cross simplerl AIME25 seed 2 shared", "cross dapo AIME24 seed 0 independent"):
            assert f"# {part}\n" in printed


def test_the_plan_estimates(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert made.main("--dry_run") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Estimate (made up): sft 3 x 1 min, trainings 12 x 2 min; 2 at once: 13 min 30 s." in printed


def test_the_table_fits_80_columns(made: Made) -> None:
    from rich.console import Console

    job = prepare(made.words())
    job.close()
    console = Console(width=80, force_terminal=True, color_system=None)
    view = PartsView(job.parts, console)
    job.parts[0].state = "running"
    job.parts[0].log.write_text("\x1b[2K\rbefore \x1b[1m12 %\x1b[0m\rsixty words " + "and more " * 60)
    view._started[job.parts[0].name] = time.monotonic() - 3000
    with console.capture() as capture:
        console.print(view.table())
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(re.search(r"trainings +running +50 min 0\d s +sixty words", line) for line in lines), lines


def test_the_last_words_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert last_line(log) == ""
    log.write_text("one\n\x1b[31mtwo\x1b[0m\r three  four\n\n")
    assert last_line(log) == "three four"


def test_shipped_scales_train_the_publications_arms() -> None:
    for scale in SCALES:
        content = yaml.safe_load((CONFIGS / f"reproduce_{scale}.yaml").read_text())
        variants = content["comparison"]["variants"]
        assert list(variants) == ARMS
        simple = variants["simplerl"]
        assert (simple["advantage_weighting"], simple["loss_type"], simple["dynamic_sampling"]) == (
            "none",
            "grpo",
            False,
        )
        assert simple["epsilon_high"] == 0.2
        assert simple["beta"] > 0
        assert content["cross"]["criteria"] == ["js_top_p", "random_disagreement"]
        assert content["cross"]["match"] == "effective"
        assert next(iter(content["draws"])) == "independent"
        assert content["cross_arms"] == (["simplerl", "dapo"] if scale == "paper" else ["dapo"])
        assert list(content.get("cross_sets", {})) == (["AIME24", "AIME25"] if scale == "paper" else [])


@pytest.mark.parametrize(("scale", "processes"), [("pocket", 1), ("smollm2", 1), ("paper", 8)])
def test_arms_of_the_shipped_scales_are_trainings(scale: str, processes: int, tmp_path: Path) -> None:
    """The file that is written for the trainings is one that `compare_variants.py` takes."""
    document = comparison_document(read_scale(CONFIGS / f"reproduce_{scale}.yaml"), [0, 1, 2])
    path = tmp_path / "comparison.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    lined = LinedYaml(path)
    settings = read_settings(lined)
    assert (settings.seeds, settings.baseline, settings.keep_checkpoints) == ([0, 1, 2], "dapo", True)
    variants = read_variants(lined, settings, processes)
    assert list(variants) == ARMS
    simple, dapo = variants["simplerl"].args, variants["dapo"].args
    assert (simple.beta, simple.epsilon_high, simple.loss_type) == (1e-4, 0.2, "grpo")
    assert (dapo.beta, dapo.epsilon_high, dapo.loss_type, dapo.dynamic_sampling) == (0.0, 0.28, "dapo", True)
    assert not simple.dynamic_sampling
    updates = {"pocket": (16, 4), "smollm2": (4, 4), "paper": (16, 4)}[scale]
    assert (dapo.updates_per_generation, simple.updates_per_generation) == updates
    if scale == "paper":
        words = ["--config", "qwen2.5_math_7b_simplerl", "--gradient_accumulation_steps", "1024"]
        recipe = parse_into(TRAINING, words, check_effect=False)
        for name in variants["simplerl"].overrides:
            if name not in ("delta", "dynamic_sampling_metric", "gradient_accumulation_steps", "epsilon_high"):
                values = [getattr(one, name) for one in recipe if hasattr(one, name)]
                mine = [getattr(one, name) for one in (variants["simplerl"].recipe, simple) if hasattr(one, name)]
                assert values[0] == mine[0], name


# The real recipes ----------------------------------------------------------------------------------------------------

OVERRIDES: dict[str, Any] = {
    "max_steps": 4,
    "steps_per_generation": 2,
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "train_size": 24,
    "learning_rate": 1e-2,
    "eval_size": 2,
    "max_completion_length": 24,
    "logging_steps": 1,
    "save_steps": 2,
    "probe_steps": 0,
    "probe_size": 2,
    "report_to": "none",
    "reward_funcs": ["helpers.tiny_training.digit_reward"],
}


@pytest.mark.slow
def test_the_real_recipes_from_end_to_end(tiny_model: str, tmp_path: Path) -> None:
    """Every part with a tiny model: what each recipe leaves is what the rows are read from."""
    helper, address = str(ROOT / "tests" / "helpers" / "forked_recipes.py"), str(tmp_path / "s")
    modules = {command: COMMANDS[command].module.rpartition(".")[2] for command in COMMAND_OF.values()}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")}
    server = subprocess.Popen(
        [sys.executable, helper, "serve", address, "grpo_divweighted", "evaluate", *modules.values()],
        stdin=subprocess.PIPE,
        env=environment,
    )
    forked = [helper, "run", address]
    compare = tmp_path / "compare.py"
    compare.write_text(
        "import sys\nfrom tokenshift.recipes.compare_variants import main\n"
        "from tokenshift.recipes.jobs.comparison.cells import SCRIPTS\n"
        f"scripts = {{name: [*{forked!r}, *words] for name, words in SCRIPTS.items()}}\n"
        "sys.exit(main(sys.argv[1:], scripts))\n"
    )
    scripts = {command: [*forked, str(COMMANDS[command].script)] for command in modules}
    scripts["compare"] = [*forked, str(compare)]
    sampled = {"size": 6, "max_new_tokens": 24, "reward_func": "helpers.tiny_training.even_digits"}
    analyzed = {"base_model": tiny_model, **sampled, "resamples": 20}
    scale = {
        "comparison": {
            "config": "pocket",
            "overrides": {**OVERRIDES, "model_name_or_path": tiny_model},
            "variants": {"dapo": None, "high_kl": {"learning_rate": 2e-2}},
            "evaluation": {"datasets": ["pocket"], **sampled},
        },
        "sft": {
            "base_model": tiny_model,
            "target_accuracy": 1.0,
            "train_size": 32,
            "max_steps": 2,
            "check_steps": 2,
            "eval_size": 4,
            "learning_rate": 1e-2,
            "max_new_tokens": 24,
            "bf16": False,
            "report_to": "none",
            "save_strategy": "no",
            "reward_func": "helpers.tiny_training.digit_reward",
        },
        "shift": {**analyzed, "report_responses": 2},
        "shift_arms": ["dapo"],
        "evolution": analyzed,
        "cross": {**analyzed, "criteria": ["js_top_p", "random_disagreement"]},
        "draws": {"independent": {"epsilons": [0.05]}},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(scale))
    try:
        while not Path(address).exists():
            assert server.poll() is None
            time.sleep(0.05)
        words = ["--config", str(path), "--output_dir", str(tmp_path / "out"), "--seeds", "0", "1", "--parallel", "2"]
        status = main(words, scripts)
    finally:
        server.kill()  # every recipe that it forked has ended
        server.communicate()
    logs = "".join(log.read_text()[-2000:] for log in (tmp_path / "out").rglob("*.log"))
    assert status == 0, logs
    record = json.loads((tmp_path / "out" / "reproduction.json").read_text())
    assert {part["state"] for part in record["parts"]} == {"done"}
    assert {row["section"] for row in record["rows"]} == {2, 3, 4, 5}
    assert {row["arm"] for row in record["rows"]} >= {"DAPO", "SFT and DAPO", "high-KL boost"}
    assert all(row["verdict"].startswith("open") for row in record["rows"])  # 2 runs
    assert {len(row["seeds"]) for row in record["rows"]} == {2}
    sections = [table["rows"] for table in record["tables"].values()]
    assert len(sections) >= 6
    assert all(sections)
