"""Time of a sweep of cross-sampling with its pilot: as trees of prefixes, against each policy by itself."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from tokenshift.analysis.cross_sampling.decoding import TREE, Decoding
from tokenshift.analysis.cross_sampling.pilot import Budget, find_thresholds
from tokenshift.analysis.cross_sampling.sweep import DIRECTIONS, SweptPolicy, sweep_cells
from tokenshift.analysis.cross_sampling.sweep_run import read_cells, run_cells, token_counts
from tokenshift.analysis.cross_sampling.sweep_trees import SweepTrees, sweep_measured
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.requests import Prompt
from tokenshift.analysis.sampling.responses import no_judge
from tokenshift.analysis.sampling.token_ids import encode_prompt
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.recipes.inputs.models import find_model
from tokenshift.recipes.inputs.sums import sums_dataset
from tokenshift.recipes.pocket.problems import pocket_dataset

SHAPES = {"pocket": (24, 32, 241), "smollm2": (24, 16, 32)}
"""Problems, responses at once, and tokens of a response at most."""

CRITERIA = {
    "pocket": ("js_top_p", "js", "delta_logp", "entropy_primary", "random_disagreement", "random"),
    "smollm2": ("js", "delta_logp", "random"),
}
BUDGETS = {"pocket": (0.005, 0.01, 0.02, 0.05, 0.1, 0.25), "smollm2": (0.02, 0.05, 0.1)}


@dataclass(frozen=True)
class SweepCost:
    """The time and the tokens that a sweep took, once with each engine.

    Attributes:
        seconds: by engine, with the pilot; models are loaded before.
        tokens: `tokens_in_cells`, `distinct_tokens` and `tokens_decoded`, the pilot's included.
        cells: policies of the sweep.
        unequal: responses of which anything but the last bits of scores differs between the engines.
        words: the shape of the work.
    """

    seconds: dict[str, float]
    tokens: dict[str, int]
    cells: int
    unequal: int
    words: str


def sweep_cost(
    model: str, rl_model: str, engines: tuple[str, str] = (TREE, "draft"), shape: tuple[int, int, int] | None = None
) -> SweepCost:
    """
    Args:
        model: `pocket` or `smollm2`, the base.
        rl_model: the model after RL, a folder or a hub name.
        engines: the tree, then the engine that it is held against.
        shape: as in `SHAPES`, where the model's is taken when None.
    """
    sources = find_model("model", model), find_model("rl_model", rl_model)
    device = (torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None) or torch.device(
        "cpu"
    )
    models = sources[0].load("auto", device), sources[1].load("auto", device)
    tokenizer = sources[0].tokenizer
    size, batch, length = shape or SHAPES[model]
    data = pocket_dataset("analysis", size) if model == "pocket" else sums_dataset("eval", size)
    prompts = [Prompt(n, "", encode_prompt(tokenizer, prompt)) for n, prompt in enumerate(data["prompt"])]
    criteria, sampling = CRITERIA[model], Sampling(max_new_tokens=length)
    seconds: dict[str, float] = {}
    tokens: dict[str, int] = {}
    rows, cells = [], list[SweptPolicy]()
    for engine in engines:
        with tempfile.TemporaryDirectory() as path:
            folder, started = RunFolder(Path(path)), time.perf_counter()
            run = Decoding(lambda: models, tokenizer, sampling, "draft" if engine == TREE else engine, 1, batch)
            measured = sweep_measured(DIRECTIONS, criteria, [0.0])
            trees = SweepTrees(folder, prompts, run, measured) if engine == TREE else None
            wanted = [
                Budget(direction, criterion, 0.0, None, "intervened", budget)
                for direction in DIRECTIONS
                for criterion in criteria
                for budget in BUDGETS[model]
            ]
            thresholds = find_thresholds(folder, wanted, prompts, run, trees=trees)
            cells = sweep_cells(DIRECTIONS, criteria, [], thresholds, [0.0], [0])
            run_cells(folder, cells, prompts, no_judge, run, {}, trees=trees)
            seconds[engine] = time.perf_counter() - started
            if trees is not None:
                tokens |= {"tokens_decoded": trees.tokens_decoded, **token_counts(folder, cells)}
            kept = ["direction", "criterion", "budget", "problem_id", "completion_ids", "positions", "effective"]
            rows.append(read_cells(folder, cells, kept).to_pylist())
    unequal = sum(ours != theirs for ours, theirs in zip(*rows, strict=True))
    words = f"{model}, {len(cells)} policies, {size} problems, batch {batch}, {device}"
    return SweepCost(seconds, tokens, len(cells), unequal, words)
