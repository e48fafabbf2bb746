"""Command-line arguments that name problems, and the loading of what they name: the same for every recipe."""

from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset

from tokenshift.recipes.inputs.problems import MADE, check_template, load_problem_set, load_problems

MADE_WITHOUT = ("dataset_config", "prompt_column", "solution_column", "system_prompt", "prompt_template")
"""Options that data which is made here does not take."""

NONE_WORDS = ("none", "null", "")
"""Values of an argument that stand for None, on a command line and in a config file."""


def value_or_none(value: str | None) -> str | None:
    """The value, or None where it is a word for None."""
    return None if value is None or value.lower() in NONE_WORDS else value


@dataclass
class PromptArguments:
    """
    The text around each problem.

    Parameters:
        system_prompt, prompt_template (`str`, *optional*):
            Put before each prompt, and around it (`{prompt}` marks where the prompt goes).
    """

    system_prompt: str | None = field(default=None, metadata={"help": "Put before each prompt as a system turn."})
    prompt_template: str | None = field(default=None, metadata={"help": "Text around each prompt, with {prompt}."})

    def __post_init__(self) -> None:
        check_template(self.prompt_template)


@dataclass
class ProblemArguments(PromptArguments):
    """
    The data set and its columns.

    Parameters:
        dataset_name, dataset_config (`str`):
            The data, and the configuration of hub data.
        prompt_column, solution_column (`str`):
            Names of the columns with prompts and gold answers; `none` where there are no gold answers.
    """

    dataset_name: str = field(
        default="pocket", metadata={"help": "pocket, sums, a .json/.jsonl/.parquet/.csv file, a folder or a hub name."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of hub data."})
    prompt_column: str = field(default="prompt", metadata={"help": "Column with the prompts."})
    solution_column: str | None = field(
        default="solution", metadata={"help": "Column with the gold answers; none if there is none."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.solution_column = value_or_none(self.solution_column)

    def without_effect(self, values: Any) -> dict[str, str]:
        """Options that have no effect beside these values of all options, with the reason and what to do."""
        if self.dataset_name not in MADE:
            return {}
        reason = f"dataset_name={self.dataset_name!r} is made as it is; leave it out, or name data of your own."
        return dict.fromkeys(MADE_WITHOUT, reason)

    def reading_options(self) -> dict[str, Any]:
        """Keyword arguments of `load_problems` and `load_problem_set` that say how the data is read."""
        return {
            "config": self.dataset_config,
            "prompt_column": self.prompt_column,
            "solution_column": self.solution_column,
            "system_prompt": self.system_prompt,
            "prompt_template": self.prompt_template,
        }

    def problem_set(self, split: str | None, size: int | None, setting: str = "dataset_name") -> Dataset:
        """Problems to look at a trained model with.

        Args:
            split, size: As in `load_problem_set`.
            setting: The argument that messages name.

        Raises:
            ValueError: As `load_problem_set` does.
        """
        return load_problem_set(self.dataset_name, split=split, size=size, setting=setting, **self.reading_options())


@dataclass
class TrainingProblemArguments(ProblemArguments):
    """
    The problems to train on, and those that are held out.

    Parameters:
        dataset_test_split (`str`):
            The split of the held-out problems.
        train_size (`int`, *optional*), eval_size (`int`):
            How many problems are trained on and held out.
    """

    dataset_test_split: str = field(
        default="test",
        metadata={"help": "Split of the held-out problems; where there is none, they are taken out of the other."},
    )
    train_size: int | None = field(
        default=None, metadata={"help": "Training problems; all, or 2048 of pocket, when not given."}
    )
    eval_size: int = field(default=256, metadata={"help": "Held-out problems on which accuracy is measured."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train_size", "eval_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")

    def without_effect(self, values: Any) -> dict[str, str]:
        """Options that have no effect beside these values of all options, with the reason and what to do."""
        reasons = super().without_effect(values)
        if self.dataset_name in MADE:
            splits = ("dataset_train_split", "dataset_split", "dataset_test_split")
            reasons |= dict.fromkeys(
                splits,
                f"dataset_name={self.dataset_name!r} has splits of its own for training and held-out problems; "
                "leave it out.",
            )
        return reasons

    def splitting_options(self, train_split: str) -> dict[str, Any]:
        """Keyword arguments of `load_problems` that say how the data is read and split."""
        return {
            "train_split": train_split,
            "test_split": self.dataset_test_split,
            "train_size": self.train_size,
            "eval_size": self.eval_size,
            **self.reading_options(),
        }

    def training_problems(self, train_split: str) -> tuple[Dataset, Dataset]:
        """Problems to train on, and those held out.

        Args:
            train_split: The split to train on, which the recipes' command lines call by different names.

        Raises:
            ValueError: As `load_problems` does.
        """
        return load_problems(self.dataset_name, **self.splitting_options(train_split))
