"""Problems from the hub, from local files, or made here, in the columns the trainer and the rewards read."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, concatenate_datasets, load_dataset, load_from_disk
from datasets.utils.logging import (
    CRITICAL,
    disable_progress_bar,
    enable_progress_bar,
    get_verbosity,
    is_progress_bar_enabled,
    set_verbosity,
)

from tokenshift.analysis.checks import check_whole
from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.recipes.inputs.data_files import READERS
from tokenshift.recipes.inputs.sums import sums_dataset
from tokenshift.recipes.pocket.problems import pocket_dataset

MADE = {"pocket": pocket_dataset, "sums": sums_dataset}
"""Data that is made here: name -> function of a split and a size."""

MADE_TRAINING_SIZES = {"pocket": 2048, "sums": 2000}
"""Training problems of made data where the user sets no number; of sums, all that there are."""

DEFAULT_TEST_SPLIT = "test"
"""The split of held-out problems that need not be there: without it, they are taken out of the training split."""

HELD_OUT_SEED = 0
"""Seed of the choice of held-out problems, and of a part of the data."""


def check_template(prompt_template: str | None) -> None:
    """Refuse a template without a place for the prompt.

    Raises:
        ValueError: if it has none.
    """
    if prompt_template is not None and "{prompt}" not in prompt_template:
        raise ValueError(f"prompt_template={prompt_template!r} has no {{prompt}} in it.")


def load_problems(
    name: str,
    *,
    config: str | None = None,
    train_split: str = "train",
    test_split: str = "test",
    train_size: int | None = None,
    eval_size: int = 256,
    prompt_column: str = "prompt",
    solution_column: str | None = "solution",
    system_prompt: str | None = None,
    prompt_template: str | None = None,
) -> tuple[Dataset, Dataset]:
    """Training and held-out problems, with the columns `prompt` and `solution` and the data's other columns.

    Args:
        name: `pocket`, `sums`, a JSON, JSON-lines, Parquet or CSV file, a folder, or a hub name.
        config: the hub data's configuration.
        train_split, test_split: names of the splits; where the data has no `test_split`, `eval_size` random rows are
            held out of `train_split`.
        train_size: training problems; all of them (2048 of pocket) when None.
        eval_size: held-out problems.
        prompt_column, solution_column: names of the columns in the data, or of a field of a column after a dot
            (`reward_model.ground_truth`); without a solution column (None) only rewards that read none can be used.
        system_prompt: put before each prompt, which then becomes a conversation.
        prompt_template: text with `{prompt}` in it, around each prompt that is a string.

    Raises:
        ValueError: for data that cannot be found, a missing split or column (naming those there), or too few rows.
    """
    check_template(prompt_template)
    check_whole("eval_size", eval_size)
    if train_size is not None:
        check_whole("train_size", train_size)
    name = os.fspath(name)
    if name in MADE:
        _refuse_reading("dataset_name", name, config, prompt_column, solution_column, system_prompt, prompt_template)
        make = MADE[name]
        return make("train", train_size or MADE_TRAINING_SIZES[name]), make("eval", eval_size)
    train, held_out = _splits(_read(name, config), name, train_split, test_split, eval_size)
    if train_size is not None and train_size < len(train):
        train = train.shuffle(seed=HELD_OUT_SEED).select(range(train_size))
    shaped = [
        _shape(part, prompt_column, solution_column, system_prompt, prompt_template) for part in (train, held_out)
    ]
    return shaped[0], shaped[1]


def load_problem_set(
    name: str,
    *,
    config: str | None = None,
    split: str | None = None,
    size: int | None = None,
    prompt_column: str = "prompt",
    solution_column: str | None = "solution",
    system_prompt: str | None = None,
    prompt_template: str | None = None,
    setting: str = "dataset_name",
) -> Dataset:
    """Problems to look at a trained model with, in the columns of `load_problems`.

    Args:
        name: as in `load_problems`.
        split: when None, a split that training does not use: `analysis` of pocket, `eval` of sums; of other data
            `test`, or the only split.
        size: how many problems are chosen at random, the same ones each time; all (256 of made data) when None.
        config, prompt_column, solution_column, system_prompt, prompt_template: as in `load_problems`.
        setting: the argument that messages name.

    Raises:
        ValueError: as `load_problems` does.
    """
    if size is not None:
        check_whole("size", size)
    name = os.fspath(name)
    if name in MADE:
        _refuse_reading(setting, name, config, prompt_column, solution_column, system_prompt, prompt_template)
        return MADE[name](split or {"pocket": "analysis", "sums": "eval"}[name], 256 if size is None else size)
    data = _read(name, config, setting)
    if split is None:
        split = "test" if "test" in data or len(data) > 1 else next(iter(data))
    if split not in data:
        raise ValueError(f"{setting}={name!r} has no split {split!r}; it has {_listed(data)}.")
    rows = data[split]
    if size is not None and size < len(rows):
        rows = rows.shuffle(seed=HELD_OUT_SEED).select(range(size))
    return _shape(rows, prompt_column, solution_column, system_prompt, prompt_template)


def _refuse_reading(
    setting: str,
    name: str,
    config: str | None,
    prompt_column: str,
    solution_column: str | None,
    system_prompt: str | None,
    prompt_template: str | None,
) -> None:
    """Refuse ways of reading data that data made here does not have.

    Raises:
        ValueError: for the first one that is set.
    """
    for option, value, unset in (
        ("dataset_config", config, None),
        ("prompt_column", prompt_column, "prompt"),
        ("solution_column", solution_column, "solution"),
        ("system_prompt", system_prompt, None),
        ("prompt_template", prompt_template, None),
    ):
        if value != unset:
            raise ValueError(
                f"{setting}={name!r} is made as it is: it takes no columns, template or system prompt, and no "
                f"configuration; leave out {option}={value!r}, or name data of your own."
            )


def _is_local_data(path: Path) -> bool:
    """Whether data is a file, or a folder that `datasets` saved: such data has no configurations."""
    saved = ("dataset_dict.json", "state.json")
    return path.suffix in READERS or any((path / file).is_file() for file in saved)


def _read(name: str, config: str | None, setting: str = "dataset_name") -> DatasetDict:
    path = user_path(name, setting)
    if path.suffix in READERS and not path.is_file():
        raise ValueError(f"{setting}={name!r}: there is no such file.")
    if config is not None and _is_local_data(path):
        raise ValueError(f"dataset_config={config!r} has no effect: {name!r} has no configurations; leave it out.")
    if path.is_file() and path.suffix not in READERS:
        known = ", ".join(READERS)
        raise ValueError(f"{setting}={name!r} is a file of an unknown kind; problems are read from {known} files.")
    try:
        if path.suffix in READERS:
            with _quiet():
                return load_dataset(READERS[path.suffix], data_files=str(path))
        if (path / "dataset_dict.json").is_file():
            return load_from_disk(str(path))
        if (path / "state.json").is_file():
            return DatasetDict({"train": load_from_disk(str(path))})
        return load_dataset(name, config)
    except Exception as error:  # datasets, its readers and the hub raise many kinds
        raise ValueError(f"{setting}={name!r} cannot be loaded: {_first_line(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep `datasets` from showing how it reads a local file, and from logging what is said in one line anyway."""
    bars, level = is_progress_bar_enabled(), get_verbosity()
    disable_progress_bar()
    set_verbosity(CRITICAL)
    try:
        yield
    finally:
        set_verbosity(level)
        if bars:
            enable_progress_bar()


def _first_line(error: BaseException) -> str:
    """The first line of the error that began a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, StopIteration):
        return "it is empty"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _splits(
    data: DatasetDict, name: str, train_split: str, test_split: str, eval_size: int
) -> tuple[Dataset, Dataset]:
    if train_split not in data:
        raise ValueError(f"dataset_name={name!r} has no split {train_split!r}; it has {_listed(data)}.")
    if test_split not in data and test_split != DEFAULT_TEST_SPLIT:
        raise ValueError(
            f"dataset_name={name!r} has no split {test_split!r} (dataset_test_split); it has {_listed(data)}. Without "
            "dataset_test_split the held-out problems are taken out of the training split."
        )
    train = data[train_split]
    if test_split in data and test_split != train_split:
        held_out = data[test_split].shuffle(seed=HELD_OUT_SEED)
        return train, held_out.select(range(min(eval_size, len(held_out))))
    if len(train) <= eval_size:
        raise ValueError(
            f"dataset_name={name!r} has no split {test_split!r}, and {len(train)} rows are too few to hold "
            f"eval_size={eval_size} of them out; lower eval_size."
        )
    order = train.shuffle(seed=HELD_OUT_SEED)
    return order.select(range(eval_size, len(order))), order.select(range(eval_size))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _shape(
    data: Dataset,
    prompt_column: str,
    solution_column: str | None,
    system_prompt: str | None,
    prompt_template: str | None,
) -> Dataset:
    """Rename the columns, and put the template and the system prompt around each prompt."""
    wanted = {"prompt_column": prompt_column, "solution_column": solution_column}
    for setting, column in wanted.items():
        data = _with_field(data, column)
        if column is not None and column not in data.column_names:
            names = data.flatten().column_names if "." in column else data.column_names
            raise ValueError(f"{setting}={column!r} is not in the data; it has {_listed(names)}.")
    if prompt_column == solution_column:
        raise ValueError(f"prompt_column and solution_column are both {prompt_column!r}.")
    chosen = {prompt_column: "prompt"} | ({} if solution_column is None else {solution_column: "solution"})
    data = data.remove_columns([name for name in chosen.values() if name in data.column_names and name not in chosen])
    data = data.rename_columns({old: f"chosen {new}" for old, new in chosen.items()})
    data = data.rename_columns({f"chosen {new}": new for new in chosen.values()})
    if not len(data):
        raise ValueError("The data is empty.")
    _check_values(data, prompt_column, solution_column, prompt_template)

    def render(row: dict[str, Any]) -> dict[str, Any]:
        prompt = row["prompt"]
        if isinstance(prompt, str) and prompt_template is not None:
            prompt = prompt_template.replace("{prompt}", prompt)
        if system_prompt is not None:
            turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            prompt = [{"role": "system", "content": system_prompt}, *turns]
        return {"prompt": prompt}

    return data if system_prompt is None and prompt_template is None else data.map(render)


def _with_field(data: Dataset, column: str | None) -> Dataset:
    """The data with a field of a column as a column: `reward_model.ground_truth` of verl's data, for example."""
    outer = (column or "").partition(".")[0]
    if column is None or column in data.column_names or outer not in data.column_names:
        return data
    fields = data.select_columns([outer]).flatten()
    if column not in fields.column_names:
        return data
    return concatenate_datasets([data, fields.select_columns([column])], axis=1)


def _check_values(data: Dataset, prompt_column: str, solution_column: str | None, prompt_template: str | None) -> None:
    """Refuse prompts that are missing or neither text nor conversations, and solutions that are all missing."""
    first = next((prompt for prompt in data["prompt"] if prompt is not None), None)
    if not isinstance(first, str | list):
        raise ValueError(
            f"prompt_column={prompt_column!r} holds {type(first).__name__}; prompts are text or conversations."
        )
    table = data.with_format("arrow")[:]
    if missing := table["prompt"].null_count:
        row = next(row for row, prompt in enumerate(data["prompt"]) if prompt is None)
        raise ValueError(f"prompt_column={prompt_column!r} is empty in {missing} rows, the first of them row {row}.")
    if isinstance(first, list) and prompt_template is not None:
        raise ValueError("prompt_template is for prompts that are text; these are conversations.")
    if solution_column is not None and table["solution"].null_count == len(data):
        raise ValueError(f"solution_column={solution_column!r} is empty in every row.")
