"""Held-out problems that an SFT model is examined on."""

from dataclasses import dataclass
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from rich.progress import track

from tokenshift.analysis.sampling.generators import Sampling, TransformersGenerator
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.token_ids import encode_prompt
from tokenshift.recipes.command_line.console import console
from tokenshift.trainer.policy.heldout import HeldOutScore, score_interval
from tokenshift.trainer.policy.responses import Reward, rank_rows


@dataclass
class HeldOutProblems:
    """Held-out problems and how responses to them are sampled and judged.

    Attributes:
        problems: a column `prompt` and those that the judge reads.
        judge: a reward; 1 is correct.
        sampling: settings.
        batch_size: responses at once on each process.
    """

    problems: Dataset
    judge: Reward
    sampling: Sampling
    batch_size: int

    def accuracy(self, model: Any, tokenizer: Any, label: str) -> HeldOutScore:
        """Share of correct responses, one a problem, the same for any number of processes; every one must call it.

        Args:
            model: a causal LM in eval mode.
            tokenizer: its.
            label: of the progress bar.
        """
        state = PartialState()
        rows = rank_rows(len(self.problems), state)
        generate = TransformersGenerator(model, tokenizer, self.sampling)
        starts = range(0, len(rows), self.batch_size)
        shown = console.is_terminal and state.is_main_process
        verdicts: list[float | None] = []
        for start in track(starts, description=label, transient=True, console=console, disable=not shown):
            chosen = rows[start : start + self.batch_size]
            prompts = self.problems.select(chosen)["prompt"]
            ids = generate(
                [
                    Request((row, 0), encode_prompt(tokenizer, prompt))
                    for row, prompt in zip(chosen, prompts, strict=True)
                ]
            )
            verdicts += self._verdicts(chosen, tokenizer.batch_decode(ids, skip_special_tokens=True), ids)
        return score_interval(gather_object(verdicts)[: len(self.problems)])

    def _verdicts(self, rows: list[int], texts: list[str], ids: list[list[int]]) -> list[float | None]:
        part = self.problems.select(rows)
        prompts = list(part["prompt"])
        completions: list[Any] = list(texts)
        if not isinstance(prompts[0], str):
            completions = [[{"role": "assistant", "content": text}] for text in texts]
        columns = {name: list(part[name]) for name in part.column_names if name not in ("prompt", "completion")}
        found = self.judge(prompts=prompts, completions=completions, completion_ids=ids, **columns)
        return [None if value is None else float(value == 1) for _, value in zip(rows, found, strict=True)]
