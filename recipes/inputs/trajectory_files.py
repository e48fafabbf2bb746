"""Responses that come from elsewhere: Parquet or JSON lines, as token ids or as text."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.sampling.correctness import is_correct
from tokenshift.analysis.sampling.rewarded_rows import row_rewards
from tokenshift.analysis.sampling.token_ids import encode_prompt
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.thresholds import CORRECT
from tokenshift.rewards.text import completion_text


def load_trajectories(
    path: str,
    tokenizer: PreTrainedTokenizerBase,
    reward: Any,
    context: int | None = None,
    correct_threshold: float = CORRECT,
) -> tuple[list[Trajectory], dict[int, str]]:
    """Trajectories of a file, and their prompts as text by problem.

    Args:
        path: Parquet, or JSON lines. A row has `prompt_ids` and `completion_ids`, or `prompt` and `completion` (text,
            or messages), and may have `problem_id`, `sample_id` and `correct`. Without `problem_id`, rows of one
            prompt are one problem's samples. Without `correct`, the reward judges rows that have a `solution`.
        tokenizer: the tokenizer of both models.
        reward: TRL's signature.
        context: tokens that the models read at most.
        correct_threshold: lowest reward of a correct response.

    Raises:
        ValueError: if the file is damaged, empty, or has neither kind of columns.
    """
    rows = _rows(path)
    if not rows:
        raise ValueError(f"trajectories={path!r} is empty.")
    if not isinstance(rows[0], dict):
        raise ValueError(f"trajectories={path!r}: row 0 has no columns: {rows[0]!r}.")
    ids = {"prompt_ids", "completion_ids"} <= rows[0].keys()
    if not ids and not {"prompt", "completion"} <= rows[0].keys():
        raise ValueError(
            f"trajectories={path!r} needs the columns prompt_ids and completion_ids, or prompt and completion; it has "
            f"{', '.join(sorted(rows[0]))}."
        )
    for number, row in enumerate(rows):
        if mistake := _wrong_with(row, ids):
            raise ValueError(f"trajectories={path!r}: row {number} has {mistake}.")
    pairs = [(row["prompt_ids"], row["completion_ids"]) if ids else _ids(row, tokenizer) for row in rows]
    size = len(tokenizer)
    for number, (prompt, completion) in enumerate(pairs):
        if not prompt:
            raise ValueError(f"trajectories={path!r}: the prompt of row {number} is empty.")
        if wrong := [token for token in (*prompt, *completion) if not 0 <= token < size]:
            raise ValueError(
                f"trajectories={path!r}: row {number} has token id {wrong[0]}, of {size} in the tokenizer."
            )
        if context is not None and len(prompt) + len(completion) > context:
            raise ValueError(
                f"trajectories={path!r}: row {number} has {len(prompt) + len(completion)} tokens, but the model reads "
                f"{context}."
            )
    if not any(completion for _, completion in pairs):
        raise ValueError(f"trajectories={path!r} has no completion that is not empty.")
    keys: list[Any] = [
        tuple(pair[0]) if row.get("problem_id") is None else row["problem_id"]
        for row, pair in zip(rows, pairs, strict=True)
    ]
    whole = all(isinstance(key, int) for key in keys)
    numbers: dict[Any, int] = {key: key if whole else number for number, key in enumerate(dict.fromkeys(keys))}
    verdicts = _verdicts(rows, pairs, tokenizer, reward, correct_threshold)
    seen: Counter[int] = Counter()
    trajectories: list[Trajectory] = []
    prompts: dict[int, str] = {}
    for row, pair, key, (correct, given) in zip(rows, pairs, keys, verdicts, strict=True):
        problem = numbers[key]
        sample = seen[problem] if row.get("sample_id") is None else int(row["sample_id"])
        seen[problem] += 1
        trajectories.append(Trajectory(problem, sample, list(pair[0]), list(pair[1]), correct, reward=given))
        prompts.setdefault(problem, str(tokenizer.decode(pair[0])))
    counts = Counter((trajectory.problem_id, trajectory.sample_id) for trajectory in trajectories)
    doubled = [row_id for row_id, count in counts.items() if count > 1]
    if doubled:
        raise ValueError(f"trajectories={path!r} has problem_id={doubled[0][0]}, sample_id={doubled[0][1]} twice.")
    return trajectories, prompts


def _wrong_with(row: Any, ids: bool) -> str | None:
    """The mistake in a row's fields, if there is one."""
    if not isinstance(row, dict):
        return f"no columns: {row!r}"
    for name in ("prompt_ids", "completion_ids") if ids else ("prompt", "completion"):
        value = row.get(name)
        if ids and not (isinstance(value, list) and all(type(token) is int for token in value)):
            return f"no list of token ids in {name}"
        if not ids and not isinstance(value, str | list):
            return f"neither text nor messages in {name}"
    number, sample, correct = (row.get(name) for name in ("problem_id", "sample_id", "correct"))
    if not (number is None or isinstance(number, str) or (type(number) is int and abs(number) < 2**62)):
        return f"problem_id={number!r}, which is neither an integer nor a name"
    if not (sample is None or (type(sample) is int and 0 <= sample < 2**62)):
        return f"sample_id={sample!r}, which is no integer from 0"
    if not (correct is None or correct in (0, 1)):
        return f"correct={correct!r}, which is neither true nor false"
    return None


def _rows(path: str) -> list[dict[str, Any]]:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"trajectories={path!r}: there is no such file; or give rl, base or both.")
    try:
        if file.suffix == ".parquet":
            return pq.read_table(file).to_pylist()
        return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        raise ValueError(f"trajectories={path!r} cannot be read: {str(error).splitlines()[0]}") from error


def _ids(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    text = completion_text(row["completion"])
    return encode_prompt(tokenizer, row["prompt"]), list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _verdicts(
    rows: list[dict[str, Any]], pairs: list[Any], tokenizer: PreTrainedTokenizerBase, reward: Any, threshold: float
) -> list[tuple[bool | None, float | None]]:
    """Whether each response is correct, and its reward where the reward judged it."""
    known: list[tuple[bool | None, float | None]] = [
        (None if row.get("correct") is None else bool(row["correct"]), None) for row in rows
    ]
    open_rows = [n for n, row in enumerate(rows) if known[n][0] is None and row.get("solution") is not None]
    if not open_rows:
        return known
    texts = tokenizer.batch_decode([pairs[n][1] for n in open_rows], skip_special_tokens=True)
    solutions = [str(rows[n]["solution"]) for n in open_rows]
    for n, value in zip(open_rows, row_rewards(reward, {"solution": solutions}, texts), strict=True):
        known[n] = is_correct(value, threshold), value
    return known
