"""Rate and memory of scoring trajectories by two models, against the models' plain forward passes."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenshift.analysis.sampling.trajectories import Trajectory, batch_of
from tokenshift.analysis.token_table.scoring import PairScorer
from tokenshift.recipes.inputs.models import resolve_model
from tokenshift.recipes.inputs.sums import sums_dataset
from tokenshift.recipes.pocket.problems import pocket_dataset

FORWARDS = "two forward passes with logits"
SCORING = "scoring: all columns of the table"
LONG = 2048
"""Tokens of the trajectory whose memory is measured, as far as the model reads."""


def scoring_functions(
    model: str, tokens: int
) -> tuple[dict[str, Callable[[], object]], dict[str, Callable[[], object]], str]:
    """The functions that are timed, the same for one long trajectory, and a description of both.

    Args:
        model: `pocket` or `smollm2`; RL is the same with noise on its weights.
        tokens: the smallest number of tokens of all timed trajectories together.
    """
    path = resolve_model(model)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    models: list[Any] = [AutoModelForCausalLM.from_pretrained(path) for _ in range(2)]
    base, rl = (model.to(device).eval() for model in models)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in rl.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(device)
            parameter.add_(0.02 * float(parameter.std(correction=0)) * noise)
    tokenizer = AutoTokenizer.from_pretrained(path)
    scorer = PairScorer(base, rl, tokenizer)
    context = base.config.max_position_embeddings
    length = min(256, context)
    count = -(-tokens // length)
    vocabulary = base.config.vocab_size

    lines = (pocket_dataset if model == "pocket" else sums_dataset)("train", 256)
    text = "".join(
        f"{prompt} {solution}\n" for prompt, solution in zip(lines["prompt"], lines["solution"], strict=True)
    )
    ids = tokenizer(text)["input_ids"]

    def trajectories(number: int, size: int) -> list[Trajectory]:
        """Problems one after another: text of about the entropy that models score in earnest."""
        rows = [ids[index * 97 % (len(ids) - size) :][:size] for index in range(number)]
        return [Trajectory(index, 0, row[:16], row[16:]) for index, row in enumerate(rows)]

    timed = scoring_pair(scorer, trajectories(count, length))
    long = scoring_pair(scorer, trajectories(1, min(LONG, context)))
    words = f"{model}, {count} x {length} tokens, memory at {min(LONG, context)}, vocabulary {vocabulary}, {device}"
    return timed, long, words


def scoring_pair(scorer: PairScorer, trajectories: list[Trajectory]) -> dict[str, Callable[[], object]]:
    """Both models' forward passes over trajectories, and scoring them, by name."""
    batch = batch_of(trajectories, scorer.rl.device)
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False}

    @torch.no_grad()
    def forwards() -> None:
        scorer.base(**inputs)
        scorer.rl(**inputs)

    return {FORWARDS: forwards, SCORING: lambda: scorer.table(trajectories, "rl")}
