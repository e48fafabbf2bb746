"""Problems as a model reads them, and the judgement of the rewards on responses to them."""

from collections.abc import Mapping
from typing import Any

from datasets import Dataset

from tokenshift.analysis.evaluation.responses import Grade, Grader
from tokenshift.analysis.sampling.prompts import encode_problems, room_after
from tokenshift.analysis.sampling.requests import Prompt
from tokenshift.analysis.sampling.responses import Judge, no_judge
from tokenshift.analysis.sampling.rewarded_rows import check_columns, row_rewards
from tokenshift.recipes.inputs.models import ModelSource
from tokenshift.rewards.extractors import AnswerExtractor, load_extractor
from tokenshift.rewards.format import format_reward
from tokenshift.rewards.registry import load_reward, reward_extractor


def encoded_prompts(
    data: Dataset, source: ModelSource, chat_template_kwargs: Mapping[str, Any] | None = None
) -> list[Prompt]:
    """Prompts as a model reads them; row i is problem i.

    Args:
        data: the problems.
        source: the model.
        chat_template_kwargs: arguments of the chat template.

    Raises:
        ValueError: for conversations without a chat template, or an empty prompt.
    """
    return encode_problems(data, source.tokenizer, name=source.name, chat_template_kwargs=chat_template_kwargs)


def response_room(prompts: list[Prompt], source: ModelSource, max_new_tokens: int | None) -> int | None:
    """Tokens that a model can read after the longest of its prompts; None where its config names no limit.

    Raises:
        ValueError: if they are fewer than `max_new_tokens`, or none.
    """
    return room_after(prompts, source.config, max_new_tokens, name=source.name)


def judge_of(data: Dataset, reward_func: str) -> Judge:
    """Verdicts on responses to problems: whether the reward is 1; None each where there is nothing to judge by.

    Args:
        data: the problems; row i is problem i.
        reward_func: the name or dotted path of the reward.

    Raises:
        ValueError: for an unknown reward, or one that does not take the columns of the data.
    """
    reward = load_reward(reward_func)
    if reward_func == "accuracy_reward" and "solution" not in data.column_names:
        return no_judge
    check_columns(reward, data.column_names)

    def judge(rows: list[int], texts: list[str]) -> list[bool | None]:
        rewards = row_rewards(reward, data.select(rows)[:], texts)
        return [None if value is None else value == 1 for value in rewards]

    return judge


def answer_extractor_of(reward_func: str, answer_extractor: str | None = None) -> AnswerExtractor:
    """The extractor of the answers that majority voting and reports count.

    Args:
        reward_func: the name or dotted path of the reward.
        answer_extractor: the name or dotted path of an extractor; the one that the reward judges by when None, and
            `math` where it names none.

    Raises:
        ValueError: for an unknown reward or extractor, or an extractor that fails.
    """
    return load_extractor(answer_extractor or reward_extractor(reward_func) or "math")


def grader_of(data: Dataset, reward_func: str, answer_extractor: str | None = None) -> Grader:
    """Verdict, form, answer and vote of responses; all responses to a problem must come together.

    Args:
        data: the problems; row i is problem i.
        reward_func: the name or dotted path of the reward.
        answer_extractor: as in `answer_extractor_of`.

    Raises:
        ValueError: for an unknown reward or extractor.
    """
    judge = judge_of(data, reward_func)
    extractor = answer_extractor_of(reward_func, answer_extractor)
    # a reward judges by its extractor's answers alone: then those that are correct equal one another
    by_answer = extractor.name == reward_extractor(reward_func)

    def grade(rows: list[int], texts: list[str]) -> list[Grade]:
        verdicts, answers = judge(rows, texts), extractor.answers(texts)
        votes: list[int | None] = [None] * len(rows)
        for row in dict.fromkeys(rows):
            indices = [index for index, problem in enumerate(rows) if problem == row]
            right = [by_answer and verdicts[index] is True for index in indices]
            of_problem = extractor.votes([answers[index] for index in indices], right)
            for index, vote in zip(indices, of_problem, strict=True):
                votes[index] = vote
        forms = [value == 1 for value in format_reward(texts)]
        return [Grade(*grade) for grade in zip(verdicts, forms, answers, votes, strict=True)]

    return grade
