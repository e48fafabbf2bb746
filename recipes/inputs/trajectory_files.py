"""Responses that come from elsewhere: Parquet, JSON lines or a JSON list, as token ids or as text."""

import warnings
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.sampling.correctness import is_correct
from tokenshift.analysis.sampling.rewarded_rows import row_rewards
from tokenshift.analysis.sampling.token_ids import encode_prompt
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.storage.json_files import parse_json
from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.analysis.thresholds import CORRECT
from tokenshift.rewards.text import completion_text


def load_trajectories(
    path: str,
    tokenizer: PreTrainedTokenizerBase,
    reward: Any,
    context: int | None = None,
    *,
    context_reason: str = "",
    vocabulary: int | None = None,
    ends: Collection[int] = (),
    chat_template_kwargs: Mapping[str, Any] | None = None,
    correct_threshold: float = CORRECT,
) -> tuple[list[Trajectory], dict[int, str]]:
    """Trajectories of a file, and their prompts as text by problem.

    A text becomes the token ids that the model reads: a prompt as in sampling, with one start token where its text
    has one already, and a completion as it goes on after the prompt. Whether a response ended or was cut cannot be
    seen in a text without an end token; a warning then says how many texts have none.

    Args:
        path: Parquet, JSON lines or a JSON list. A row has `prompt_ids` and `completion_ids`, or `prompt` and
            `completion` (text, or messages), and may have `problem_id`, `sample_id` and `correct`. Without
            `problem_id`, rows of one prompt are one problem's samples. Without `correct`, the reward judges rows that
            have a `solution`.
        tokenizer: the tokenizer of both models.
        reward: TRL's signature.
        context: tokens that the models read at most.
        context_reason: why they read no more, behind the number in a message.
        vocabulary: ids that both models have; as many as the tokenizer has when None.
        ends: token ids that end a response, beside the tokenizer's.
        chat_template_kwargs: arguments of the chat template, for prompts that are messages.
        correct_threshold: lowest reward of a correct response.

    Raises:
        ValueError: if the file is damaged, empty, or has neither kind of columns; for padding, for ids that a model
            does not have, for a text behind its end token, for rows of one problem with different prompts or
            solutions, and for `chat_template_kwargs` where no prompt is messages.
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
    reader = _TextReader(path, tokenizer, chat_template_kwargs)
    pairs = [
        (row["prompt_ids"], row["completion_ids"]) if ids else reader.ids(number, row)
        for number, row in enumerate(rows)
    ]
    ends = {*ends, tokenizer.eos_token_id} - {None}
    size = max(tokenizer.get_vocab().values(), default=-1) + 1
    for number, (prompt, completion) in enumerate(pairs):
        if not prompt:
            raise ValueError(f"trajectories={path!r}: the prompt of row {number} is empty.")
        if wrong := [token for token in (*prompt, *completion) if not 0 <= token < size]:
            raise ValueError(
                f"trajectories={path!r}: row {number} has token id {wrong[0]}, of {size} in the tokenizer."
            )
        if vocabulary is not None and (wrong := [token for token in (*prompt, *completion) if token >= vocabulary]):
            raise ValueError(
                f"trajectories={path!r}: row {number} has token id {wrong[0]} ({tokenizer.decode([wrong[0]])!r}), but "
                f"the models have {vocabulary} ids: leave the row out, or enlarge the models by "
                "resize_token_embeddings."
            )
        if not ids and (behind := _behind_end(completion, tokenizer, ends)):
            raise ValueError(
                f"trajectories={path!r}: the completion of row {number} goes on behind its end token, by "
                f"{tokenizer.decode(behind)!r}; cut it off there, or give prompt_ids and completion_ids if the model "
                "went on."
            )
        if padding := _padding(prompt, completion, tokenizer, ends):
            raise ValueError(f"trajectories={path!r}: row {number} has padding {padding}; cut it off.")
        if context is not None and len(prompt) + len(completion) > context:
            raise ValueError(
                f"trajectories={path!r}: row {number} has {len(prompt) + len(completion)} tokens, but the model reads "
                f"{context}{context_reason}."
            )
    if not any(completion for _, completion in pairs):
        raise ValueError(f"trajectories={path!r} has no completion that is not empty.")
    if chat_template_kwargs and (ids or all(isinstance(row["prompt"], str) for row in rows)):
        prompts_are = "token ids" if ids else "text"
        raise ValueError(
            f"chat_template_kwargs={dict(chat_template_kwargs)!r} has no effect: the prompts of trajectories={path!r} "
            f"are {prompts_are}, to which no chat template is applied; leave it out."
        )
    if not ids:
        _warn_of_open_texts(path, [completion for _, completion in pairs], ends, tokenizer)
    keys: list[Any] = [
        tuple(pair[0]) if row.get("problem_id") is None else row["problem_id"]
        for row, pair in zip(rows, pairs, strict=True)
    ]
    _check_problems(path, rows, keys, [prompt for prompt, _ in pairs])
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
    file = user_path(path, "trajectories")
    if not file.is_file():
        raise ValueError(f"trajectories={path!r}: there is no such file; or give rl, base or both.")
    try:
        if file.suffix == ".parquet":
            return pq.read_table(file).to_pylist()
        text = file.read_text(encoding="utf-8-sig")
        if text.lstrip().startswith("["):
            return list(parse_json(text))
        return [parse_json(line) for line in text.split("\n") if line.strip()]
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        raise ValueError(f"trajectories={path!r} cannot be read: {str(error).splitlines()[0]}") from error


class _TextReader:
    """Turns prompts and completions that are text, or messages, into token ids."""

    def __init__(
        self, path: str, tokenizer: PreTrainedTokenizerBase, chat_template_kwargs: Mapping[str, Any] | None
    ) -> None:
        self._path, self._tokenizer, self._template_kwargs = path, tokenizer, dict(chat_template_kwargs or {})

    def ids(self, number: int, row: dict[str, Any]) -> tuple[list[int], list[int]]:
        """Token ids of the prompt and of the completion in a row."""
        prompt, completion = row["prompt"], completion_text(row["completion"])
        if isinstance(prompt, str):
            prompt_ids, whole = self._plain(prompt), self._plain(prompt + completion)
            if (
                len(prompt_ids) > 1
                and prompt_ids[-1] == self._tokenizer.eos_token_id
                and not prompt.endswith(str(self._tokenizer.eos_token))
            ):
                raise ValueError(
                    f"trajectories={self._path!r}: the tokenizer ends the prompt of row {number} with its end token, "
                    "before the completion: set add_eos_token to false in its tokenizer_config.json, or give "
                    "prompt_ids and completion_ids."
                )
        else:
            if self._tokenizer.chat_template is None:
                raise ValueError(
                    f"trajectories={self._path!r}: the prompt of row {number} is a conversation, but the tokenizer "
                    "has no chat template; give prompts that are text, or prompt_ids."
                )
            prompt_ids = encode_prompt(self._tokenizer, prompt, self._template_kwargs)
            text = self._tokenizer.apply_chat_template(
                prompt, add_generation_prompt=True, tokenize=False, **self._template_kwargs
            )
            whole = self._encoded(str(text) + completion)
        if whole[: len(prompt_ids)] == prompt_ids:
            return prompt_ids, whole[len(prompt_ids) :]
        return prompt_ids, self._encoded(completion)  # tokens merge over the boundary

    def _plain(self, text: str) -> list[int]:
        """Token ids of text, with one start token where the text and the tokenizer both give one."""
        ids, start = encode_prompt(self._tokenizer, text), self._tokenizer.bos_token_id
        doubled = start is not None and ids[:2] == [start, start] and text.startswith(str(self._tokenizer.bos_token))
        return ids[1:] if doubled and not text.startswith(2 * str(self._tokenizer.bos_token)) else ids

    def _encoded(self, text: str) -> list[int]:
        """Token ids of text, without tokens that the tokenizer adds."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def _padding(
    prompt: list[int], completion: list[int], tokenizer: PreTrainedTokenizerBase, ends: Collection[int]
) -> str | None:
    """The place of padding in a row, for a message; None where there is none."""
    pad = tokenizer.pad_token_id
    if pad is not None and len(prompt) > 1 and prompt[0] == pad and (pad not in ends or prompt[1] == pad):
        return f"(id {pad}) before its prompt"
    first_end = next((position for position, token in enumerate(completion) if token in ends), len(completion))
    after = completion[first_end + 1 :]
    if after and set(after) <= {pad, tokenizer.eos_token_id}:
        return f"(id {after[0]}) after its end token"
    if pad is not None and pad not in ends and completion and completion[-1] == pad:
        return f"(id {pad}) after its completion"
    return None


def _behind_end(completion: list[int], tokenizer: PreTrainedTokenizerBase, ends: Collection[int]) -> list[int]:
    """Token ids of a text behind its first end token, without padding; a word that ends generation is no end here."""
    added = tokenizer.added_tokens_decoder
    special = {*tokenizer.all_special_ids, *(token for token, form in added.items() if form.special)} & set(ends)
    first = next((position for position, token in enumerate(completion) if token in special), len(completion))
    padding = {tokenizer.pad_token_id, *special}
    return [token for token in completion[first + 1 :] if token not in padding]


def _warn_of_open_texts(
    path: str, completions: list[list[int]], ends: Collection[int], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Say how many completions that are text have no end token."""
    without = sum(not completion or completion[-1] not in ends for completion in completions)
    if without and ends:
        warnings.warn(
            f"trajectories={path!r}: {without} of {len(completions)} completions do not end with an end token, so "
            f"that the end of these responses is not scored. If they ended, write {tokenizer.eos_token or 'it'!r} "
            "behind their text, or give prompt_ids and completion_ids.",
            stacklevel=3,
        )


def _check_problems(path: str, rows: list[dict[str, Any]], keys: list[Any], prompts: list[list[int]]) -> None:
    """Check that it is clear which problem each row is a response to.

    Raises:
        ValueError: if some rows have a `problem_id` and others none, if ids are integers and names, or if a problem
            has two prompts or solutions.
    """
    names = {int: "an integer as problem_id", str: "a name as problem_id", tuple: "no problem_id"}
    kinds = [names[type(key)] for key in keys]
    other = next((number for number, kind in enumerate(kinds) if kind != kinds[0]), None)
    if other is not None:
        raise ValueError(
            f"trajectories={path!r}: row 0 has {kinds[0]}, but row {other} {kinds[other]}; give all the same."
        )
    first: dict[Any, int] = {}
    for number, key in enumerate(keys):
        earlier = first.setdefault(key, number)
        name = "one prompt" if isinstance(key, tuple) else f"problem_id={key!r}"
        if prompts[earlier] != prompts[number]:
            raise ValueError(f"trajectories={path!r}: rows {earlier} and {number} have {name}, but other prompts.")
        if rows[earlier].get("solution") != rows[number].get("solution"):
            raise ValueError(
                f"trajectories={path!r}: rows {earlier} and {number} have {name}, but other solutions; give problems "
                "a problem_id each."
            )


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
