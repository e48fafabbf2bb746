"""The file of a comparison: what it says, and mistakes in it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.small_comparison import FILE, ROOT, SCRIPTS

from tokenshift.recipes.compare_variants import main
from tokenshift.recipes.jobs.comparison.cells import TrainedCell, launcher, steps_of
from tokenshift.recipes.jobs.comparison.file import read_comparison
from tokenshift.recipes.jobs.comparison.shipped_variants import SHIPPED


@pytest.mark.parametrize(
    ("name", "size"), [("compare_pocket", (13, 5)), ("compare_pocket_base", (5, 5)), ("compare_smollm2", (3, 2))]
)
def test_shipped_files_are_right(name: str, size: tuple[int, int]) -> None:
    comparison = read_comparison(ROOT / "recipes" / "configs" / f"{name}.yaml")
    assert comparison.baseline == "dapo"
    assert (len(comparison.variants), len(comparison.seeds)) == size
    assert all(variant.overrides == SHIPPED[variant.name] for variant in comparison.variants.values())


def test_what_a_file_says(write_comparison: Callable[..., Path]) -> None:
    text = FILE + "recovery: {budget: 0.05, size: 12}\nlaunch: {config_file: ddp}\nparallel: 2\n"
    mine = "  high_kl: {divergence_alpha: 50}\n  mine: {loss_type: grpo}\n"
    comparison = read_comparison(write_comparison(("  high_kl:\n", mine), text=text))
    assert comparison.seeds == [0, 1]
    high = comparison.variants["high_kl"]
    assert high.resolved["divergence_alpha"] == 50.0
    assert high.overrides == {**SHIPPED["high_kl"], "divergence_alpha": 50}
    assert high.training["max_steps"] == 4
    assert high.training["learning_rate"] == 1e-4  # the config's
    assert comparison.variants["mine"].overrides == {"loss_type": "grpo"}
    assert comparison.distinguishing("mine")["loss_type"] == "grpo"
    assert comparison.distinguishing("high_kl") == {"advantage_weighting": "sigmoid", "divergence_alpha": 50.0}
    assert comparison.distinguishing("dapo")["loss_type"] == "dapo"
    assert comparison.recovery is not None
    assert comparison.recovery["budgets"] == [0.05]
    assert comparison.recovery["dataset_name"] == "pocket"
    assert comparison.launch.num_processes == 2
    words = launcher(comparison.launch, parallel=2)
    assert words[1:4] == ["-m", "accelerate.commands.launch", "--config_file"]
    assert words[-2:] == ["--main_process_port", "0"]
    steps = steps_of(TrainedCell(high, 1, Path("cells/high_kl-seed1")), comparison)
    assert [step.name for step in steps] == ["training", "evaluation", "recovery"]
    assert steps[0].command[-2:] == ["--config", "cells/high_kl-seed1/training.yaml"]
    assert steps[1].command[-8:] == [
        *("--model", "cells/high_kl-seed1/model", "--datasets", "pocket", "--size", "6"),
        *("--output_dir", "cells/high_kl-seed1/evaluation"),
    ]


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (("  high_kl:", "  high_kl: {divergence_alfa: 5}"), 8, "'divergence_alfa' is not known; did you mean"),
        (("  high_kl:", "  dapo:"), 8, "'dapo' is there twice, first on line 7"),
        (("  max_steps: 4", "  max_steps: 4\n  max_steps: 5"), 4, "'max_steps' is there twice"),
        (("seeds: [0, 1]\n", ""), 1, "seeds is missing: name at least one"),
        (("[0, 1]", "[]"), 4, "seeds is empty"),
        (("[0, 1]", "[0,\n  1, 0]"), 5, "seeds has 0 twice"),
        (("baseline:", "replication_seeds: [2, 2]\nbaseline:"), 5, "replication_seeds has 2 twice"),
        (
            ("baseline:", "replication_seeds: [2, 1]\nbaseline:"),
            5,
            "replication_seeds has 1, which is in seeds: a seed",
        ),
        (("[0, 1]", "3"), 4, "seeds=3 must be a list of whole numbers"),
        (("[0, 1]", "[-1]"), 4, "seeds[0]=-1 must be a whole number of at least 0."),
        (("[0, 1]", "[4294967296]"), 4, "seeds[0]=4294967296 must be a whole number below 4294967296."),
        (("[0, 1]", "[2020-13-45]"), 4, "month must be in 1..12"),
        (("seeds:", "<<: 3\nseeds:"), 4, "expected a mapping or list of mappings for merging"),
        (("  high_kl:", "  mine: {advantage_weighting: none}"), 8, "'mine' trains exactly as 'dapo' does"),
        (("  high_kl:", "  high_kl: {beta: [1, 2]}"), 8, "beta=[1, 2] must be of the type float"),
        (
            ("  datasets: [pocket]", "  datasets: [nowhere.jsonl]"),
            10,
            "datasets='nowhere.jsonl': there is no such file",
        ),
        (("  datasets: [pocket]", "  datasets: [pocket, pocket]"), 10, "datasets names 'pocket' twice"),
        (("seeds:", "launch: {config_file: LICENSE}\nseeds:"), 4, "is not an accelerate config"),
        (("baseline: dapo", "baseline: grpo"), 5, "baseline='grpo' is none of the variants: dapo, high_kl."),
        (("  high_kl:\n", ""), 6, "variants has 'dapo' alone"),
        (("  high_kl:", "  mine:"), 8, "variant 'mine' has no overrides, and is none of the shipped ones"),
        (("  high_kl:", "  a/b: {beta: 0.1}"), 8, "variants 'a/b' is also the name of a folder"),
        (("  high_kl:", "  high_kl: {seed: 3}"), 8, "variant 'high_kl' sets seed, which the comparison sets"),
        (("  max_steps: 4", "  output_dir: here"), 3, "overrides sets output_dir"),
        (("  high_kl:", "  high_kl: 3"), 8, "variant 'high_kl' must be a mapping of names to values, not 3."),
        (
            (
                "  high_kl:",
                "  same: {beta: 0.1, advantage_weighting: none}\n  two: {advantage_weighting: none, beta: 0.1}",
            ),
            9,
            "as",
        ),
        (("  high_kl:", "  high_kl: {steps_per_generation: 1}"), 8, "variant 'high_kl': divergence_reference='old'"),
        (("  high_kl:", "  high_kl:\n    beta: 0.1\n    loss_type: x"), 10, "variant 'high_kl': loss_type='x' is not"),
        (("  max_steps: 4", "  learning_rate: fast"), 3, "invalid float value: 'fast'"),
        (("config: pocket", "config: poket"), 1, "config='poket' is neither a file nor one of pocket, "),
        (("config: pocket", "konfig: pocket"), 1, "the setting 'konfig' is not known; did you mean config?"),
        (("  size: 6", "  sized: 6"), 11, "the field 'sized' is not known; did you mean size?"),
        (("  size: 6", "  dry_run: true"), 11, "the field 'dry_run' is not known"),
        (("  size: 6", "  top_p: 7"), 11, "evaluation: top_p=7"),
        (("  size: 6", "  samples: many"), 11, "evaluation: argument --samples: invalid int value: 'many'"),
        (("  datasets: [pocket]\n", ""), 9, "evaluation names no datasets"),
        (("seeds:", "recovery: {size: 5}\nseeds:"), 4, "recovery has no budget"),
        (("seeds:", "recovery: {budget: 2}\nseeds:"), 4, "recovery: budgets has 2.0; shares of tokens lie in (0, 1)"),
        (("seeds:", "parallel: 0\nseeds:"), 4, "parallel=0 must be a whole number of at least 1"),
        (
            ("seeds:", "launch: {config_file: nine}\nseeds:"),
            4,
            "config_file='nine' is neither a file nor one of cpu, ",
        ),
        (("[0, 1]", "[0, 1"), 5, "this is not YAML"),
        (("seeds:", "recovery: {}\nseeds:"), 4, "recovery has no budget"),
        (("seeds:", "recovery:\n  budget: 0.1\n  criterion: jss\nseeds:"), 6, "recovery: "),
        (("seeds:", "recovery:\n  criterion: js\n  budget: 2\nseeds:"), 6, "recovery: budgets has 2.0"),
    ],
)
def test_mistakes_are_named_with_their_line(
    change: tuple[str, str],
    line: int,
    said: str,
    write_comparison: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_comparison(change)
    assert main(["--config", str(path), "--output_dir", str(path.parent / "out")], SCRIPTS) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"compare_variants.py: {path}:{line}: "), error
    assert said in error
    assert error.count("\n") == 1
    assert not (path.parent / "out").exists()


def test_batches_are_checked_for_the_processes_of_the_launch(write_comparison: Callable[..., Path]) -> None:
    """8 completions of a prompt fit into two processes' batches of 4, not into one's."""
    batches = ("  max_steps: 4", "  max_steps: 4\n  per_device_train_batch_size: 4\n  steps_per_generation: 1")
    weights = ("  high_kl:", "  low_prob:")
    with pytest.raises(ValueError, match=r"generation.batch.size"):
        read_comparison(write_comparison(batches, weights))
    launch = ("seeds:", "launch: {config_file: ddp}\nseeds:")
    assert read_comparison(write_comparison(batches, weights, launch)).launch.num_processes == 2


def test_recovery_by_another_criterion(write_comparison: Callable[..., Path]) -> None:
    recovery = ("seeds:", "recovery: {budget: 0.1, criterion: entropy_primary}\nseeds:")
    comparison = read_comparison(write_comparison(recovery))
    assert comparison.recovery is not None
    assert comparison.recovery["criteria"] == ["entropy_primary"]
    assert "criterion" not in comparison.recovery


@pytest.mark.parametrize(("module", "options"), [("own_mapping", "{c: 0.25}"), ("own_json", "'{\"c\": 0.25}'")])
def test_a_weighting_of_ones_own(
    write_comparison: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, module: str, options: str
) -> None:
    """By its dotted path, with options, also after another variant was read."""
    mine = f"{{advantage_weighting: {module}.{module}, weighting_options: {options}}}"
    path = write_comparison(("  high_kl:", f"  high_kl:\n  mine: {mine}"))
    (path.parent / f"{module}.py").write_text(
        "from tokenshift.trainer import register_weighting\n"
        "@register_weighting(formula='w = 1 - c', varies_at_first_update=True)\n"
        f"def {module}(tokens, *, c: float = 0.5):\n"
        "    return 0 * tokens.logps + 1 - c\n"
    )
    monkeypatch.chdir(path.parent)
    args = read_comparison(path).variants["mine"].args
    assert (args.advantage_weighting, args.weighting_options) == (f"{module}.{module}", {"c": 0.25})
