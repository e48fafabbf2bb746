"""Held-out problems that an SFT model is examined on."""

from dataclasses import dataclass
from typing import Any

from accelerate import PartialState
from datasets import Dataset

from tokenshift.analysis.sampling.correctness import is_correct
from tokenshift.analysis.sampling.generators import Generator, Sampling
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.rewarded_rows import Reward, row_rewards
from tokenshift.analysis.sampling.token_ids import encode_prompt
from tokenshift.analysis.thresholds import CORRECT
from tokenshift.recipes.command_line.console import console
from tokenshift.trainer.policy.heldout import HeldOutScore, score_over_ranks


@dataclass
class HeldOutProblems:
    """Held-out problems, and how responses to them are sampled and judged.

    Attributes:
        problems: a column `prompt` and those that the judge reads.
        judge: a reward.
        sampling: settings of sampling.
        batch_size: responses at once on each process.
        correct_threshold: the lowest reward of a correct response.
    """

    problems: Dataset
    judge: Reward
    sampling: Sampling
    batch_size: int
    correct_threshold: float = CORRECT

    def accuracy(self, generate: Generator, tokenizer: Any, label: str) -> HeldOutScore:
        """Share of correct responses, one per problem, the same for any number of processes; every one must call it.

        Args:
            generate: makes the responses, as `sampling` says.
            tokenizer: the model's tokenizer.
            label: label of the progress bar.

        Raises:
            ValueError: if no response could be judged, or the judge gives something else than numbers.
        """
        state = PartialState()

        def scores(rows: list[int]) -> list[float | None]:
            columns = self.problems.select(rows)[:]
            prompts = zip(rows, columns["prompt"], strict=True)
            ids = generate([Request((row, 0), encode_prompt(tokenizer, prompt)) for row, prompt in prompts])
            texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
            rewards = row_rewards(self.judge, columns, texts, ids)
            verdicts = [is_correct(reward, self.correct_threshold) for reward in rewards]
            return [None if verdict is None else float(verdict) for verdict in verdicts]

        return score_over_ranks(
            len(self.problems),
            self.batch_size,
            state,
            scores,
            description=label,
            shown=console.is_terminal and state.is_main_process,
            console=console,
        )
