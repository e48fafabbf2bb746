"""Problems as a model reads them, and what the rewards make of the responses to them."""

from typing import Any

from datasets import Dataset

from tokenshift.analysis.evaluation.responses import Grade, Grader
from tokenshift.analysis.sampling.requests import Prompt
from tokenshift.analysis.sampling.responses import Judge
from tokenshift.analysis.sampling.token_ids import context_length, encode_prompt
from tokenshift.recipes.inputs.models import ModelSource, require_chat_template
from tokenshift.rewards import format_reward, load_reward
from tokenshift.rewards.answers import extracted_answers, voted_answers


def encoded_prompts(data: Dataset, source: ModelSource) -> list[Prompt]:
    """Prompts as a model reads them; row i is problem i.

    Raises:
        ValueError: for conversations without a chat template, or an empty prompt.
    """
    tokenizer = source.tokenizer
    require_chat_template(data[0]["prompt"], tokenizer, f"the tokenizer of {source.name!r}")
    found = []
    for row, prompt in enumerate(data["prompt"]):
        text = prompt if isinstance(prompt, str) else tokenizer.apply_chat_template(prompt, tokenize=False)
        ids = encode_prompt(tokenizer, prompt)
        if not ids:
            raise ValueError(f"The prompt of row {row} is empty; give it a text.")
        found.append(Prompt(row, str(text), ids))
    return found


def response_room(prompts: list[Prompt], source: ModelSource, max_new_tokens: int | None) -> int | None:
    """Tokens that a model can read after the longest of its prompts; None where its config names no limit.

    Raises:
        ValueError: if they are fewer than `max_new_tokens`, or none.
    """
    context = context_length(source.config)
    if context is None:
        return None
    longest = max(prompts, key=lambda each: len(each.ids))
    left = context - len(longest.ids)
    if left < (max_new_tokens or 1):
        raise ValueError(
            f"The prompt of row {longest.problem_id} has {len(longest.ids)} tokens, which leaves {left} of the "
            f"{context} that the model reads; " + ("leave it out." if left < 1 else "lower max_new_tokens.")
        )
    return left


def judge_of(data: Dataset, reward_func: str) -> Judge:
    """Verdicts on responses to problems; None each where the data has nothing to judge by.

    Raises:
        ValueError: for an unknown reward.
    """
    reward = load_reward(reward_func)
    return _judge(data, reward) if _is_judged(data, reward_func) else no_judge


def no_judge(rows: list[int], texts: list[str]) -> list[bool | None]:
    """The judge of responses that are not judged."""
    return [None] * len(rows)


def _is_judged(data: Dataset, reward_func: str) -> bool:
    return reward_func != "accuracy_reward" or "solution" in data.column_names


def _judge(data: Dataset, reward: Any) -> Judge:
    columns = [name for name in data.column_names if name not in ("prompt", "completion")]
    conversational = not isinstance(data[0]["prompt"], str)

    def judge(rows: list[int], texts: list[str]) -> list[bool | None]:
        part = data.select(rows)
        completions: Any = [[{"role": "assistant", "content": text}] for text in texts] if conversational else texts
        values = reward(
            prompts=part["prompt"], completions=completions, **{name: list(part[name]) for name in columns}
        )
        return [None if value is None else value == 1 for value in values]

    return judge


def grader_of(data: Dataset, reward_func: str) -> Grader:
    """Verdict, form, answer and vote of responses; all responses to a problem must come together.

    Raises:
        ValueError: for an unknown reward.
    """
    judge = judge_of(data, reward_func)
    by_gold = reward_func == "accuracy_reward"  # then correct answers equal one another

    def grade(rows: list[int], texts: list[str]) -> list[Grade]:
        verdicts, answers = judge(rows, texts), extracted_answers(texts)
        votes: list[int | None] = [None] * len(rows)
        for row in dict.fromkeys(rows):
            own = [place for place, each in enumerate(rows) if each == row]
            right = [by_gold and verdicts[place] is True for place in own]
            for place, vote in zip(own, voted_answers([answers[place] for place in own], right), strict=True):
                votes[place] = vote
        forms = [value == 1 for value in format_reward(texts)]
        return [Grade(*each) for each in zip(verdicts, forms, answers, votes, strict=True)]

    return grade
