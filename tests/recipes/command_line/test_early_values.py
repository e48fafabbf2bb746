"""Arguments before the slow imports: what is known of them, and that it is what is known after the imports."""

import inspect
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tokenshift.analysis.cross_sampling.criterion_registry import CRITERIA
from tokenshift.recipes.command_line.commands import COMMANDS
from tokenshift.recipes.command_line.config_files import config_names
from tokenshift.recipes.command_line.early_check import REGISTERED, check_words
from tokenshift.recipes.command_line.source_fields import UnreadableSource, registered_signatures
from tokenshift.recipes.jobs.training.early import OF_DISTRIBUTIONS, check_training
from tokenshift.trainer import DivergenceGRPOConfig
from tokenshift.trainer.generation_batch import check_prompts, generation_batch
from tokenshift.trainer.weighting.registry import DIVERGENCES

TRAIN = COMMANDS["train"]
MODEL = ["--model_name_or_path", "pocket"]


def test_a_default_config_is_read_where_the_recipe_reads_it() -> None:
    assert check_words(TRAIN, []).values.report_to == "wandb"  # pocket's
    assert check_words(TRAIN, MODEL).values.report_to != "wandb"  # transformers'


def test_values_are_of_their_kinds(tmp_path: Path) -> None:
    config = tmp_path / "written.yaml"
    config.write_text("model_name_or_path: pocket\nmax_steps: '3'\nuse_vllm: 'no'\nlearning_rate: 1.0e-6\n")
    values = check_words(TRAIN, ["--config", str(config), "--use_peft", "yes"]).values
    assert (values.max_steps, values.use_vllm, values.learning_rate, values.use_peft) == (3, False, 1e-6, True)


def test_lists_are_lists(tmp_path: Path) -> None:
    config = tmp_path / "written.yaml"
    config.write_text("model: pocket\ndatasets: aaa.jsonl\nks: ['1', 4]\nseed: '7'\n")
    values = check_words(COMMANDS["evaluate"], ["--config", str(config)]).values
    assert (values.datasets, values.ks, values.seed) == (["aaa.jsonl"], [1, 4], 7)


def test_what_is_not_known_raises() -> None:
    values = check_words(TRAIN, [*MODEL, "--report_to", "all"]).values
    with pytest.raises(UnreadableSource, match="report_to"):
        _ = values.report_to


@pytest.mark.parametrize(
    ("words", "config", "refused"),
    [
        (["--wandb_project", "mine", "--report_to", "none"], "", "wandb_project='mine'"),
        (["--report_to", "none"], "wandb_project: mine\nreport_to: wandb", None),  # the command line makes it idle
        ([], "wandb_project: mine\nreport_to: none", "wandb_project='mine'"),
        (["--report_to", "none"], "wandb_project: mine\nreport_to: none", "wandb_project='mine'"),
        ([], "wandb_project: tokenshift\nreport_to: none", None),  # its default, which changes nothing
        (["--wandb_project", "mine", "--report_to", "all"], "", None),  # asked again after the imports
        (["--epsilon_high", "0.3", "--loss_type", "sapo"], "", "epsilon_high=0.3"),
    ],
)
def test_options_without_effect(tmp_path: Path, words: list[str], config: str, refused: str | None) -> None:
    if config:
        file = tmp_path / "a_config.yaml"
        file.write_text(f"model_name_or_path: pocket\noutput_dir: {tmp_path / 'run'}\n{config}\n")
        words = ["--config", str(file), *words]
    else:
        words = [*MODEL, "--output_dir", str(tmp_path / "run"), *words]
    arguments = check_words(TRAIN, words)
    if refused is None:
        check_training(arguments)
    else:
        with pytest.raises(ValueError, match=f"{refused} has no effect"):
            check_training(arguments)


def test_divergences_between_distributions_are_those_of_the_registry() -> None:
    assert set(OF_DISTRIBUTIONS) == {name for name in DIVERGENCES if DIVERGENCES.get(name).function is None}


def test_signatures_of_criteria_are_those_of_their_functions() -> None:
    read = registered_signatures(*REGISTERED["criteria"])
    assert set(read) == set(CRITERIA)
    for name, signature in read.items():
        real = inspect.signature(CRITERIA.get(name).function)
        shape = {parameter.name: parameter.kind for parameter in signature.parameters.values()}
        assert shape == {parameter.name: parameter.kind for parameter in real.parameters.values()}


BATCHES = [
    {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps, "num_generations": group, **more}
    for batch in (3, 4, 8)
    for steps in (1, 2, 3)
    for group in (2, 3, 8)
    for more in ({}, {"steps_per_generation": 2}, {"generation_batch_size": 24})
] + [{"generation_batch_size": 24, "steps_per_generation": 1}]


def test_a_generation_has_the_completions_that_trl_gives_it(tmp_path: Path) -> None:
    refused = 0
    for settings in BATCHES:
        values = SimpleNamespace(
            **{
                "per_device_train_batch_size": 8,
                "gradient_accumulation_steps": 1,
                "num_generations": 8,
                "steps_per_generation": None,
                "generation_batch_size": None,
                **settings,
            }
        )
        try:
            config = DivergenceGRPOConfig(
                output_dir=str(tmp_path), advantage_weighting="none", report_to="none", **settings
            )
        except ValueError:
            refused += 1
            with pytest.raises(ValueError, match=r"divisible|twice"):
                generation_batch(values, 1)
        else:
            assert generation_batch(values, 1) == config.generation_batch_size
    assert 0 < refused < len(BATCHES)


@pytest.mark.parametrize(
    ("processes", "words", "refused"),
    [
        (1, [], True),
        (2, [], False),
        (None, [], False),  # the launcher, which is not started yet, says how many
        (1, ["--dry_run", "--plan_launch", "ddp", "--plan_processes", "2"], False),
        (None, ["--dry_run", "--plan_launch", "ddp"], False),
        (None, ["--dry_run"], True),
    ],
)
def test_batches_are_those_of_all_processes(
    tmp_path: Path, processes: int | None, words: list[str], refused: bool
) -> None:
    sizes = ["--per_device_train_batch_size", "1", "--num_generations", "2", "--output_dir", str(tmp_path)]
    arguments = replace(check_words(TRAIN, [*MODEL, *sizes, *words]), processes=processes)
    if refused:
        with pytest.raises(ValueError, match=r"generation_batch_size=1 must be divisible by num_generations=2"):
            check_training(arguments)
    else:
        check_training(arguments)


def test_shipped_configs_are_not_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tokenshift.recipes.inputs.installed.find_spec", lambda name: name)
    for config in config_names(TRAIN.configs or "*"):
        check_training(replace(check_words(TRAIN, ["--config", config]), processes=None))


def test_prompts_of_a_generation() -> None:
    check_prompts(8, 32, 4)
    with pytest.raises(ValueError, match="The data has 7 training problems, but a generation takes 8 prompts"):
        check_prompts(7, 32, 4)
