"""Correct solutions to learn from, and problems held out to measure accuracy on, for the supervised control.

Pocket's solutions come from the generator of its base's text, with flawless habits, or say the same in another
wording; those of sums are the line of the correct answer; other data brings its own in a column.
"""

import random
import re
from collections.abc import Callable
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.sampling.token_ids import encode_prompt, until_end
from tokenshift.recipes.inputs.problems import MADE, load_problems
from tokenshift.recipes.inputs.sums import sum_line
from tokenshift.recipes.jobs.sft.wordings import check_wording
from tokenshift.recipes.pocket.solutions import FLAWLESS, write_solution, write_taught_solution

COMPLETION_COLUMN = "completion"


def _problem_numbers(row: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", row["problem_id"]))


def _pocket_solution(row: dict[str, Any], wording: str, seed: int) -> str:
    # one generator per problem: a solution does not depend on how many others are drawn
    rng = random.Random(f"{seed}-{row['problem_id']}")
    if wording == "taught":
        return write_taught_solution(row["kind"], _problem_numbers(row), rng)
    return write_solution(row["kind"], _problem_numbers(row), rng, FLAWLESS)


def _sums_solution(row: dict[str, Any], wording: str, seed: int) -> str:
    a, b = _problem_numbers(row)
    return sum_line(a, b, answer=True).removeprefix(sum_line(a, b, answer=False))


SOLUTION_WRITERS: dict[str, Callable[[dict[str, Any], str, int], str]] = {
    "pocket": _pocket_solution,
    "sums": _sums_solution,
}
"""Name of made data -> function of a problem's row, a wording and a seed that writes the correct solution."""


def load_solutions(
    name: str,
    *,
    config: str | None = None,
    train_split: str = "train",
    test_split: str = "test",
    train_size: int | None = None,
    eval_size: int = 256,
    prompt_column: str = "prompt",
    completion_column: str = COMPLETION_COLUMN,
    solution_column: str | None = "solution",
    system_prompt: str | None = None,
    prompt_template: str | None = None,
    wording: str = "own",
    seed: int = 0,
) -> tuple[Dataset, Dataset]:
    """Training rows with the columns `prompt` and `completion`, and held-out problems as in `load_problems`.

    Args:
        name, config, train_split, test_split, train_size, eval_size, prompt_column, solution_column, system_prompt,
            prompt_template: as in `load_problems`.
        completion_column: the column with the correct solutions, text or conversations, which may be the solution
            column; made data has none.
        wording: how pocket's solutions are worded, `own` or `taught`.
        seed: seed of pocket's solutions.

    Raises:
        ValueError: as `load_problems` and `check_wording` do, and for solutions that are missing or empty.
    """
    check_wording(wording, name)
    settings: dict[str, Any] = {
        "config": config,
        "train_split": train_split,
        "test_split": test_split,
        "train_size": train_size,
        "eval_size": eval_size,
        "prompt_column": prompt_column,
        "system_prompt": system_prompt,
        "prompt_template": prompt_template,
    }
    if name in MADE:
        if completion_column != COMPLETION_COLUMN:
            raise ValueError(f"dataset_name={name!r} is made as it is: it takes no completion_column.")
        train, held_out = load_problems(name, solution_column=solution_column, **settings)
        texts = [SOLUTION_WRITERS[name](row, wording, seed) for row in train.to_list()]
        return train.select_columns(["prompt"]).add_column("completion", texts), held_out
    # Twice, with the same splits: once each column is the one that the problems' reader calls the solution.
    try:
        train, _ = load_problems(name, solution_column=completion_column, **settings)
    except ValueError as error:
        raise ValueError(str(error).replace("solution_column", "completion_column")) from error
    _, held_out = load_problems(name, solution_column=solution_column, **settings)
    train = train.select_columns(["prompt", "solution"]).rename_column("solution", "completion")
    for row, completion in enumerate(train["completion"]):
        if not _text(completion).strip():
            prompt = str(train[row]["prompt"])
            raise ValueError(
                f"completion_column={completion_column!r} has no solution to the prompt {prompt[:60]!r}; leave such "
                "rows out."
            )
    return train, held_out


def _text(completion: Any) -> str:
    """A solution's text: the text itself, or the last turn of a conversation."""
    if isinstance(completion, list):
        completion = completion[-1]["content"] if completion else ""
    return completion if isinstance(completion, str) else "" if completion is None else str(completion)


def solution_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Any, completion: Any, ends: set[int]
) -> tuple[list[int], list[int]]:
    """Ids of a prompt, exactly as the model is prompted with it, and of the solution after it, with its end token.

    Args:
        tokenizer: the model's tokenizer.
        prompt: text or a conversation.
        completion: text or a conversation.
        ends: ids at which generation ends.

    Raises:
        ValueError: if generation would end before the solution does, or can never end.
    """
    text, prompt_ids = _text(completion), encode_prompt(tokenizer, prompt)
    conversational = not isinstance(prompt, str)
    if conversational:
        turns = [*prompt, {"role": "assistant", "content": text}]
        whole = list(tokenizer.apply_chat_template(turns, return_dict=False))
    else:
        whole = list(tokenizer(prompt + text)["input_ids"])
    if whole[: len(prompt_ids)] == prompt_ids:
        ids = whole[len(prompt_ids) :]
    else:  # tokens merge over the boundary, or the template writes a finished turn differently
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if conversational:
        ids = until_end(ids, ends)  # templates go on after the end of a turn
    early = next((token for token in ids[:-1] if token in ends), None)
    if early is not None:
        raise ValueError(
            f"The solution {text[:60]!r} goes on after {tokenizer.decode([early])!r}, where generation by this model "
            "ends; shorten it."
        )
    if not ids or ids[-1] not in ends:
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else min(ends, default=None)
        if end is None:
            raise ValueError("base_model has no end token: it could not learn where a solution ends.")
        ids = [*ids, end]
    return prompt_ids, ids


def tokenized_solutions(
    train: Dataset, tokenizer: PreTrainedTokenizerBase, ends: set[int], longest: int | None
) -> tuple[Dataset, int]:
    """Rows ready for TRL's SFTTrainer, `input_ids` and `labels` with the prompt left out of the loss.

    TRL would tokenize prompts and solutions itself; done here, a prompt has the same ids as in sampling whatever the
    tokenizer, and the end token is one at which generation ends.

    Args:
        train: columns `prompt` and `completion`.
        tokenizer: the model's tokenizer.
        ends: ids at which generation ends.
        longest: the limit on a row's tokens; longer rows are left out, since a solution without its end teaches not to
            end.

    Returns:
        The rows, and how many were left out.

    Raises:
        ValueError: as `solution_ids` does, or if no row is left.
    """

    def encode(row: dict[str, Any]) -> dict[str, list[int]]:
        prompt, solution = solution_ids(tokenizer, row["prompt"], row["completion"], ends)
        return {"input_ids": prompt + solution, "labels": [-100] * len(prompt) + solution}

    rows = train.map(encode, remove_columns=train.column_names)
    kept = rows if longest is None else rows.filter(lambda row: len(row["input_ids"]) <= longest)
    if not len(kept):
        raise ValueError(f"Every solution is longer than {longest} tokens with its prompt; raise max_length.")
    return kept, len(rows) - len(kept)
