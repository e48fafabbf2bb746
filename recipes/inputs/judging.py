"""Problems as a model reads them, and the judgement of the rewards on responses to them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datasets import Dataset

from tokenshift.analysis.evaluation.responses import Grade, Grader, RewardGrader
from tokenshift.analysis.sampling.correctness import check_correct_threshold
from tokenshift.analysis.sampling.prompts import encode_problems, room_after
from tokenshift.analysis.sampling.requests import Prompt
from tokenshift.analysis.sampling.responses import Judge, RewardJudge, judged, no_judge
from tokenshift.analysis.sampling.rewarded_rows import check_columns, row_rewards
from tokenshift.analysis.thresholds import CORRECT
from tokenshift.recipes.inputs.data_files import check_golds
from tokenshift.recipes.inputs.models import ModelSource
from tokenshift.recipes.inputs.verification_arguments import VERIFICATION
from tokenshift.rewards.extractors import AnswerExtractor, load_extractor
from tokenshift.rewards.format import format_reward
from tokenshift.rewards.registry import ACCURACY_REWARDS, SOFT_OVERLONG, load_reward, reward_extractor


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


def judge_of(data: Dataset, reward_func: str, correct_threshold: float = CORRECT) -> Judge:
    """Verdicts on responses to problems by their rewards; None each where there is nothing to judge by.

    Args:
        data: the problems; row i is problem i.
        reward_func: the name or dotted path of the reward.
        correct_threshold: the lowest reward of a correct response.

    Raises:
        ValueError: for an unknown reward, one that does not take the columns of the data, or a threshold that is no
            number.
    """
    check_correct_threshold(correct_threshold)
    reward = load_reward(reward_func)
    if reward_func in ACCURACY_REWARDS and "solution" not in data.column_names:
        return no_judge
    check_columns(reward, data.column_names)
    check_compared(data, [reward_func])

    def rewards(rows: list[int], texts: list[str]) -> list[float | None]:
        return row_rewards(reward, data.select(rows)[:], texts)

    return RewardJudge(rewards, correct_threshold)


def check_compared(data: Dataset, reward_funcs: Sequence[str]) -> None:
    """Refuse gold answers that the accuracy rewards cannot compare with; rewards of others may take any.

    Args:
        data: the problems.
        reward_funcs: names or dotted paths of the rewards.

    Raises:
        ValueError: for one that is neither text nor a number, such as a list, or where every one is blank.
    """
    if not set(reward_funcs) & set(ACCURACY_REWARDS) or "solution" not in data.column_names:
        return
    check_golds(data["solution"])


WITHOUT_VERIFICATION = ("format_reward", SOFT_OVERLONG)
"""Rewards that look at no answer, and so need no verification process."""


def verification_without_effect(reward_funcs: Sequence[str]) -> dict[str, str]:
    """The options of verification, with the reason, where no reward verifies answers; none where one may."""
    if not set(reward_funcs) <= set(WITHOUT_VERIFICATION):
        return {}
    reason = f"{' and '.join(reward_funcs)} verifies no answers; leave it out."
    return dict.fromkeys(VERIFICATION, reason)


def template_without_effect(sets: Iterable[Dataset]) -> dict[str, str]:
    """The option of the chat template, with the reason, where every prompt is text; else none."""
    if any(not isinstance(rows[0]["prompt"], str) for rows in sets):
        return {}
    return {"chat_template_kwargs": "the prompts are text, to which no chat template is applied; leave it out."}


def answer_extractor_of(reward_func: str, answer_extractor: str | None = None) -> AnswerExtractor | None:
    """The extractor of the answers that majority voting and reports count; None where the reward names none.

    Args:
        reward_func: the name or dotted path of the reward.
        answer_extractor: the name or dotted path of an extractor; the one that the reward judges by when None.

    Raises:
        ValueError: for an unknown reward or extractor, or an extractor that fails.
    """
    name = answer_extractor or reward_extractor(reward_func)
    return None if name is None else load_extractor(name)


def grading_rule(
    reward_func: str, answer_extractor: str | None = None, correct_threshold: float = CORRECT
) -> dict[str, Any]:
    """The reward, threshold and extractor that grades come from, for the metadata of results: see `RewardGrader.rule`.

    An extractor that is `math` is left out, as in files that were made before there were others.
    """
    extractor = answer_extractor_of(reward_func, answer_extractor)
    name = None if extractor is None else extractor.name
    rule = {"reward": reward_func, "correct_threshold": correct_threshold}
    return rule if name == "math" else {**rule, "answer_extractor": name}


def grader_of(
    data: Dataset, reward_func: str, answer_extractor: str | None = None, correct_threshold: float = CORRECT
) -> Grader:
    """Verdict, form, answer, vote and reward of responses; all responses to a problem must come together.

    Where the reward names no extractor and none is given, responses have neither answers nor votes.

    Args:
        data: the problems; row i is problem i.
        reward_func: the name or dotted path of the reward.
        answer_extractor: as in `answer_extractor_of`.
        correct_threshold: the lowest reward of a correct response.

    Raises:
        ValueError: for an unknown reward or extractor, or a threshold that is no number.
    """
    judge = judge_of(data, reward_func, correct_threshold)
    extractor = answer_extractor_of(reward_func, answer_extractor)
    # a reward judges by its extractor's answers alone: then those that it gives 1 equal one another
    by_answer = extractor is not None and extractor.name == reward_extractor(reward_func)

    def grade(rows: list[int], texts: list[str]) -> list[Grade]:
        verdicts = judged(judge, rows, texts)
        answers: list[str | None] = [None] * len(rows)
        votes: list[int | None] = [None] * len(rows)
        if extractor is not None:
            answers = extractor.answers(texts)
            for row in dict.fromkeys(rows):
                indices = [index for index, problem in enumerate(rows) if problem == row]
                right = [by_answer and verdicts[index][1] == 1 for index in indices]
                of_problem = extractor.votes([answers[index] for index in indices], right)
                for index, vote in zip(indices, of_problem, strict=True):
                    votes[index] = vote
        forms = [value == 1 for value in format_reward(texts)]
        return [
            Grade(correct, form, answer, vote, reward)
            for (correct, reward), form, answer, vote in zip(verdicts, forms, answers, votes, strict=True)
        ]

    return RewardGrader(grade, grading_rule(reward_func, answer_extractor, correct_threshold))
