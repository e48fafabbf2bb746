"""Cross-sampling from two models to tables and a page: killed, shared by processes, and given wrong input."""

import json
import math
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.launched_recipes import DDP, ROOT, finish, kill_once, start
from helpers.pocket_models import refuse_loading, save_moved
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenshift.analysis.cross_sampling.sweep_run import SWEEP_SCHEMA
from tokenshift.analysis.sampling.generators import Sampling, TransformersGenerator
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.token_ids import encode_prompt
from tokenshift.analysis.storage.provenance import read_metadata
from tokenshift.recipes import cross_sample
from tokenshift.recipes.jobs.analysis import cross_sampling as cross_arguments
from tokenshift.recipes.pocket.problems import pocket_dataset

RECIPE = ROOT / "recipes" / "cross_sample.py"
QUICK = ["--size", "6", "--batch_size", "4", "--max_new_tokens", "24", "--resamples", "20", "--verify_workers", "1"]
QUICK += ["--criteria", "js", "random", "--pilot", "5", "--budgets", "0.1", "0.3"]


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_moved(tmp_path_factory.mktemp("moved"), 0.1)


def words(moved: Path, out: Path, *arguments: str) -> list[str]:
    return ["--rl_model", str(moved), "--output_dir", str(out), *QUICK, *arguments]


def contents(out: Path) -> dict[str, pa.Table]:
    return {path.name: pq.read_table(path) for path in sorted((out / "cells").iterdir())}


@pytest.fixture(scope="module")
def undisturbed(moved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    cross_sample.run(cross_arguments.prepare(words(moved, out)))
    return out


def test_leaves_what_it_promises(undisturbed: Path, moved: Path) -> None:
    out = undisturbed
    cells = contents(out)
    assert len(cells) == 2 * (2 + 2 * 2)
    for name, table in cells.items():
        assert table.schema.remove_metadata() == SWEEP_SCHEMA
        assert table.num_rows == 6
        assert read_metadata(out / "cells" / name)["rl_model"] == str(moved)
        for row in table.to_pylist():
            assert row["length"] == len(row["completion_ids"])
            places, ids = row["positions"], row["completion_ids"]
            assert [ids[place] for place in places] == row["intervention_ids"]
            taken = zip(row["intervention_ids"], row["primary_ids"], strict=True)
            assert row["effective"] == [token != own for token, own in taken]
            assert sum(row["effective"]) <= row["disagreements"] <= row["length"]
            assert row["criterion"] != "all" or sum(row["effective"]) == row["disagreements"]
            assert row["criterion"] in ("all", "none") or all(score > row["epsilon"] for score in row["scores"])

    # the ends are the models alone
    model, tokenizer = AutoModelForCausalLM.from_pretrained(moved).eval(), AutoTokenizer.from_pretrained(moved)
    prompt = encode_prompt(tokenizer, pocket_dataset("analysis", 6)["prompt"][3])
    sampling = Sampling(1.0, 0.7, 24, 0)
    alone = TransformersGenerator(model, tokenizer, sampling)([Request((3, 0), prompt)])
    for name in ("forward-all-seed0", "backward-none-seed0"):
        assert cells[f"{name}.parquet"]["completion_ids"].to_pylist()[3:4] == alone

    thresholds = json.loads((out / "thresholds.json").read_text())
    assert len(thresholds) == 2 * 2 * 2
    for each in thresholds:
        assert [each["epsilon"], each["share"]] in each["tried"]
        assert each["criterion"] != "random" or each["epsilon"] == 1 - each["budget"]
    summary = json.loads((out / "cross.json").read_text())
    assert len(summary["cells"]) == len(cells)
    assert summary["metadata"]["engine"] == "tree"
    lengths = sum(sum(table["length"].to_pylist()) for table in cells.values())
    assert summary["metadata"]["tokens_in_cells"] == lengths
    assert 0 < summary["metadata"]["tokens_decoded"] < lengths / 2
    (statement,) = summary["statements"]
    assert statement["measured"].startswith("js > ")
    assert statement["verdict"] in ("seen in this run", "not seen in this run", "open")
    assert f"| {statement['verdict']} |" in (out / "cross.md").read_text()
    assert "| pocket | forward | random | 0.9 |" in (out / "cross.md").read_text()
    assert "<mark title=" in (out / "report.html").read_text(encoding="utf-8")
    assert len(list((out / "figures").glob("*.svg"))) == 8


def test_more_cells_leave_the_others_as_they_are(
    undisturbed: Path, moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    with monkeypatch.context() as patch:
        refuse_loading(patch, "sampled again")
        cross_sample.run(cross_arguments.prepare(words(moved, tmp_path)))
    same(tmp_path, undisturbed)
    printed = capsys.readouterr().out
    assert "effec" in printed
    assert max(len(line) for line in printed.splitlines() if "/" not in line) <= 80
    more = ["--directions", "forward", "--criteria", "js", "--budgets", "0.3", "--seeds", "0", "1"]
    cross_sample.run(cross_arguments.prepare([*words(moved, tmp_path), *more]))
    assert len(contents(tmp_path)) == len(before) + 3
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert {path.name.split("_")[0] for path in (tmp_path / "figures").iterdir()} == {"forward"}
    cells = json.loads((tmp_path / "cross.json").read_text())["cells"]
    assert [(cell["criterion"], cell["seeds"], cell["responses"]) for cell in cells] == [
        (name, [0, 1], 12) for name in ("none", "all", "js")
    ]


CONTROLS = ["--match", "effective", "--criteria", "js_top_p", "random_disagreement", "--draws", "independent"]


def test_effective_budgets_and_a_sharpened_base(
    moved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--directions", "forward", "--budgets", "0.02", "0.9", "--sharpening", "3", "--size", "4"]
    cross_sample.run(cross_arguments.prepare(words(moved, tmp_path, *CONTROLS, *more)))
    arms = [f"{name}-effective0.02{arm}" for name in CONTROLS[3:5] for arm in ("", "-sharpening3")]
    names = [f"forward-{name}-seed0.parquet" for name in ("none", "all", "all-sharpening3", *arms)]
    tables = contents(tmp_path)
    assert set(tables) == set(names)
    for name, table in tables.items():
        assert table["sharpening"].to_pylist() == [3.0 if "sharpening3" in name else None] * 4
        assert read_metadata(tmp_path / "cells" / name)["draws"] == "independent"
        for row in table.to_pylist():
            assert row["match"] == ("effective" if row["budget"] else "intervened")
            assert row["criterion"] != "random_disagreement" or all(row["effective"])
    summary = json.loads((tmp_path / "cross.json").read_text())
    assert (summary["metadata"]["draws"], summary["metadata"]["match"]) == ("independent", "effective")
    unmet = [(budget["criterion"], budget["sharpening"], budget["budget"]) for budget in summary["unmet"]]
    assert unmet == [(name, power, 0.9) for name in CONTROLS[3:5] for power in (None, 3.0)]
    assert all(0 < budget["at_most"] < 0.9 for budget in summary["unmet"])
    line = "forward: js_top_p, base^3 cannot meet a budget of 90 % of tokens effectively replaced: at most "
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert line in (tmp_path / "cross.md").read_text()
    assert line in page
    assert line in " ".join(printed.split()) + " "
    (stated,) = summary["statements"]  # the publication's words are told apart from what is seen here
    said = f"Published: {stated['text']}. Here: {stated['verdict']}; {stated['measured']}."
    assert " ".join(said.split()) in " ".join(printed.split())
    assert "Tokens needed for 50 % and for 90 % of the gain" in page
    assert "The two draws are independent" in page
    assert "| covered % |" in (tmp_path / "cross.md").read_text()
    whole = next(cell for cell in summary["cells"] if (cell["criterion"], cell["sharpening"]) == ("all", None))
    assert whole["covered"]["value"] == 1
    with pytest.raises(ValueError, match=r"holds an analysis .*draws"):
        cross_arguments.prepare(words(moved, tmp_path, *CONTROLS[:-1], "shared", *more))


def test_effective_budgets_of_which_none_can_be_met_are_refused(
    moved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = words(moved, tmp_path, *CONTROLS, "--directions", "forward", "--budgets", "0.8", "0.9", "--size", "3")
    assert cross_sample.main(asked) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert "forward: js_top_p cannot meet a budget of 80 % of tokens effectively replaced: at most " in said
    assert said.endswith("Lower the budgets, or leave the criterion out.")
    assert not (tmp_path / "cells").exists()


def test_given_thresholds_and_a_cap(moved: Path, tmp_path: Path) -> None:
    given = ["--rl_model", str(moved), "--output_dir", str(tmp_path), *QUICK[:-5], "--epsilons", "0.001"]
    given += ["--most", "1", "--criteria", "js", "--engine", "lockstep", "--directions", "backward", "--gammas", "0.5"]
    cross_sample.run(cross_arguments.prepare(given))
    assert not (tmp_path / "thresholds.json").exists()
    table = pq.read_table(tmp_path / "cells" / "backward-js-epsilon0.001-most1-gamma0.5-seed0.parquet")
    assert max(map(sum, table["effective"].to_pylist())) == 1
    curve = json.loads((tmp_path / "cross.json").read_text())["curves"][0]
    assert (curve["most"], curve["gamma"], curve["area_effective"]) == (1, 0.5, None)
    assert len(contents(tmp_path)) == 4  # with all at both gammas


SURPRISE = """from tokenshift.analysis import register_criterion

@register_criterion("surprise", range=(0, 1), needs=("js",))
def surprise(positions, *, scale: float = 1.0):
    \"\"\"1 where the draws differ, else what the divergence leaves open.\"\"\"
    return 1 - (positions.intervention_drawn == positions.drawn) * (-scale * positions.js).exp()
"""


def test_a_users_criterion_needs_one_file_of_its_own(moved: Path, tmp_path: Path) -> None:
    """1 file of 5 lines, and no file of the project is touched."""
    (tmp_path / "surprise_criteria.py").write_text(SURPRISE)
    asked = ["surprise_criteria.surprise", "surprise_criteria.surprise( scale = 20.0 )"]
    run = ["--directions", "forward", "--size", "4", "--budgets", "0.2", "--criteria", *asked]
    finish(start([str(RECIPE), *words(moved, tmp_path / "out", *run)], tmp_path))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["surprise_criteria.py"]
    assert len([line for line in SURPRISE.splitlines() if line]) == 5
    out = tmp_path / "out"
    names = ["surprise_criteria.surprise", "surprise_criteria.surprise(scale=20.0)"]
    assert [each["criterion"] for each in json.loads((out / "thresholds.json").read_text())] == names
    summary = json.loads((out / "cross.json").read_text())
    assert [curve["criterion"] for curve in summary["curves"]] == names
    assert "| forward | surprise_criteria.surprise(scale=20.0) |" in (out / "cross.md").read_text()
    assert "1 where the draws differ" in (out / "report.html").read_text(encoding="utf-8")
    assert names[1] in (out / "figures" / "forward_accuracy_intervened.svg").read_text(encoding="utf-8")
    tables = contents(out)
    assert all(re.fullmatch(r"[\w.@-]+", name) for name in tables)
    rows = tables["forward-surprise_criteria.surprise-budget0.20000000000000001-seed0.parquet"].to_pylist()
    assert any(row["positions"] for row in rows)
    for row in rows:  # scores are of both draws: 1 where they differ, else they follow from the recorded divergence
        for effective, score, js in zip(row["effective"], row["scores"], row["js"], strict=True):
            assert score == pytest.approx(1.0 if effective else 1 - math.exp(-js), abs=1e-6)
            assert score > row["epsilon"]


@pytest.mark.parametrize(
    ("criterion", "said"),
    [
        ("my_mistakes.gone_wrng", "has no gone_wrng; did you mean gone_wrong?"),
        ("my_mistakes.gone_wrong", "criterion='my_mistakes.gone_wrong' gave NaN at 3 of 3 positions"),
        ("my_mistakes.square", "must give a tensor with one score per position, of shape (3,); it gave shape (3, "),
        ("my_mistakes.listed", "of shape (3,); it gave list."),
        (
            "my_mistakes.crowded",
            "cannot be called with positions and its options: missing a required argument: 'other'",
        ),
        ("my_mistakes.square(scale=2)", "got an unexpected keyword argument 'scale'"),
        ("my_mistakes.square(scale", "options are plain values in brackets, as in my_mistakes.square(option=1.0)."),
        ("my_mistakes.broken", "fails on 3 made-up positions: AttributeError"),
        ("no_such_file.margin", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_mistakes_in_a_users_criterion_are_named_before_a_model_is_loaded(
    criterion: str, said: str, moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_mistakes.py").write_text(
        "def gone_wrong(positions):\n    return positions.js * float('nan')\n"
        "def square(positions):\n    return positions.primary\n"
        "def listed(positions):\n    return [0.0] * len(positions.drawn)\n"
        "def crowded(positions, other):\n    return positions.js\n"
        "def broken(positions):\n    return positions.margin\n"
    )
    monkeypatch.chdir(tmp_path)
    refuse_loading(monkeypatch)
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        cross_arguments.prepare(words(moved, tmp_path / "out", "--criteria", "js", criterion))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def same(ours: Path, theirs: Path) -> None:
    found, expected = contents(ours), contents(theirs)
    assert found.keys() == expected.keys()
    for name, table in found.items():
        assert table.equals(expected[name]), name
    for name in ("thresholds.json", "cross.md"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    assert not (ours / "units").exists()


@pytest.mark.slow
def test_killed_and_started_again_is_the_same_bit_for_bit(undisturbed: Path, moved: Path, tmp_path: Path) -> None:
    """Early and late while thresholds are looked for along trees."""
    for units in (1, 5):
        run = start([str(RECIPE), *words(moved, tmp_path)])
        folder = tmp_path / "units" / "paths"
        kill_once(run, lambda folder=folder, units=units: len(list(folder.glob("*.txt"))) >= units)
        assert not (tmp_path / "cells").exists()
    finish(start([str(RECIPE), *words(moved, tmp_path)]))
    same(tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_write_the_same_rows(undisturbed: Path, moved: Path, tmp_path: Path) -> None:
    finish(start([*DDP, str(RECIPE), *words(moved, tmp_path)]))
    found, expected = contents(tmp_path), contents(undisturbed)
    assert found.keys() == expected.keys()
    rounded = ["scores", "js"]  # sums in another order
    for name, table in found.items():
        assert table.drop_columns(rounded).equals(expected[name].drop_columns(rounded)), name
        for column in rounded:
            values = zip(table[column].to_pylist(), expected[name][column].to_pylist(), strict=True)
            assert all(own == pytest.approx(other, abs=1e-6, nan_ok=True) for own, other in values), name
    assert (tmp_path / "cross.md").read_bytes() == (undisturbed / "cross.md").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--directions", "sideways"], "directions names 'sideways'; known are forward, backward."),
        (["--criteria", "js", "kl"], "criterion='kl' is no criterion. Known are js, forward_kl"),
        (["--criteria", "js", "--epsilons", "0.7"], "epsilon=0.7 must lie in [0, ln 2] for the criterion js."),
        (["--criteria", "position", "--epsilons", "0.1"], "epsilon=0.1 must lie in [-inf, 0]"),
        (["--budgets", "1"], "budgets has 1.0; shares of tokens lie in (0, 1)"),
        (["--criteria", "js_top_p(top_p=2)"], "top_p=2 must lie in (0, 1]"),
        (["--criteria", "random_disagreement", "--epsilons", "2"], "epsilon=2 must lie in [0, 1]"),
        (["--match", "replaced"], "match='replaced' is not known; choose intervened or effective."),
        (["--draws", "own"], "draws='own' is not known; choose shared or independent."),
        (["--sharpening", "0"], "sharpening=0.0 must be a finite number above 0."),
        (["--sharpening", "-2"], "sharpening=-2.0 must be a finite number above 0."),
        (["--sharpening", "2", "1"], "sharpening has 1, which leaves the base as it is"),
        (["--seeds", "-1"], "seeds has -1, which must be at least 0"),
        (["--most", "-1"], "most=-1 must be at least 0"),
        (["--gammas", "-1"], "gamma=-1.0 must be a number above -1"),
        (["--engine", "fast"], "engine='fast' is not known; choose tree, draft, lockstep, transformers or vllm."),
        (["--pilot", "0"], "pilot=0 must be at least 1"),
        (["--use_vllm", "true"], "use_vllm=True cannot be"),
        (["--rl_model", "{endless}", "--base_model", "{endless}"], "have no end token"),
        (["--rl_model", "{short}"], "reads 30 tokens; the longest prompt has"),
        (["--rl_model", "{other}"], "The two tokenizers differ"),
        (["--max_new_tokens", "5000"], "lower max_new_tokens"),
        (["--dataset_name", "{long}"], "leave it out"),
    ],
)
def test_mistakes_are_named_before_a_model_is_loaded(
    arguments: list[str], said: str, moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("endless", "short", "other"):
        shutil.copytree(moved, tmp_path / name)
    for file, keys in (
        ("endless/config.json", {"eos_token_id": None}),
        ("endless/generation_config.json", {"eos_token_id": None}),
        ("endless/tokenizer_config.json", {"eos_token": None}),
        ("short/config.json", {"max_position_embeddings": 30}),
    ):
        path = tmp_path / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
    path = tmp_path / "other" / "tokenizer.json"
    path.write_text(path.read_text().replace('"+"', '"plus"'))
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "1+" * 4000, "solution": "1"}) + "\n")
    places = {f"{{{name}}}": str(tmp_path / name) for name in ("endless", "short", "other")}
    places["{long}"] = str(tmp_path / "long.jsonl")
    refuse_loading(monkeypatch)
    given = ["--rl_model", str(moved)] if "--rl_model" not in arguments else []
    given += [places.get(word, word) for word in arguments]
    with pytest.raises(ValueError, match=re.escape(said)):
        cross_arguments.prepare([*given, "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_another_run_is_not_mixed_in(moved: Path, tmp_path: Path) -> None:
    cross_arguments.prepare(words(moved, tmp_path))
    with pytest.raises(ValueError, match=r"holds an analysis with temperature=1.0, not 0\.5"):
        cross_arguments.prepare(words(moved, tmp_path, "--temperature", "0.5"))
    (tmp_path / "thresholds.json").write_text("[]")
    cross_arguments.prepare(words(moved, tmp_path, "--temperature", "0.5", "--overwrite", "true"))
    assert not (tmp_path / "thresholds.json").exists()
