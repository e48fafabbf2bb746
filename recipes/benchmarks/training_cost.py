"""Time of training with divergence-weighted advantages against stock GRPO on the same completions."""

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from tokenshift.recipes.inputs.models import resolve_model
from tokenshift.recipes.inputs.sums import sums_dataset
from tokenshift.recipes.pocket.problems import pocket_dataset
from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer

BATCH = {"pocket": 32, "smollm2": 4}  # completions an update
STOCK, STOCK_BETA = "stock GRPO", "stock GRPO, beta 0.04"
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "none, probe off": (STOCK, {"advantage_weighting": "none"}),
    "k3": (STOCK, {}),
    "k3, shuffled": (STOCK, {"weight_control": "shuffle"}),
    "k3, normalised": (STOCK, {"normalize_weights": True}),
    "js against base": (STOCK_BETA, {"divergence": "js", "divergence_reference": "base"}),
}
"""Settings by name, and what each is compared with."""


def _length_reward(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """Costs nothing."""
    return [float(len(ids)) for ids in completion_ids]


DEFAULTS = {"num_generations": 8, "steps_per_generation": 4, "max_steps": 1, "gradient_checkpointing": False}
"""Fields of the config where a model's settings say nothing else."""


@dataclass(frozen=True)
class Trained:
    """A model that is trained, and the shape of its batches.

    Attributes:
        path: its folder.
        problems: its training problems.
        batch: completions of an update.
        length: tokens of the longest completion.
        made: ids below which the completions' tokens are drawn, of every length from the shortest on; the model
            samples them when None.
        settings: further fields of the config.
        shortest: the shortest of the made completions, as a share of `length`.
    """

    path: str
    problems: Any
    batch: int
    length: int
    made: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    shortest: float = 0.25


def known(model: str) -> Trained:
    """`pocket` or `smollm2`."""
    problems = (pocket_dataset if model == "pocket" else sums_dataset)("train", 64)
    return Trained(resolve_model(model), problems, BATCH[model], 96 if model == "pocket" else 32)


def build(model: Trained, folder: Path, settings: dict[str, Any], *, stock: bool) -> Any:
    """A trainer that has made one update."""
    config: Any = GRPOConfig if stock else DivergenceGRPOConfig
    trainer_class: Any = GRPOTrainer if stock else DivergenceGRPOTrainer
    on_cpu = not torch.accelerator.is_available()
    args = config(
        output_dir=str(folder),
        per_device_train_batch_size=model.batch,
        max_completion_length=model.length,
        loss_type="dapo",
        learning_rate=1e-6,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=on_cpu,
        **({"bf16": not on_cpu} | DEFAULTS | model.settings | settings),
    )
    trainer = trainer_class(model=model.path, reward_funcs=_length_reward, args=args, train_dataset=model.problems)
    if model.made is not None:
        _without_sampling(trainer, model.made, model.length, model.shortest)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer


def _without_sampling(trainer: Any, ids: int, length: int, shortest: float) -> None:
    """Let a trainer take completions of random ids for sampled ones: the same for every trainer."""
    generator = random.Random(0)

    def turn(prompts: list[Any], *given: Any, **more: Any) -> tuple[list[list[int]], None]:
        shares = (shortest + (1 - shortest) * index / max(1, len(prompts) - 1) for index in range(len(prompts)))
        sizes = [max(1, int(length * share)) for share in shares]
        return [[generator.randrange(3, ids) for _ in range(size)] for size in sizes], None

    trainer._generate_single_turn = turn


def training_functions(
    model: str | Trained, folder: Path, names: list[str]
) -> tuple[dict[str, Callable[[], object]], str]:
    """Cycles to time, by name, and their shape in words.

    A cycle is all that training does with one generation of completions, its updates and the log, except for sampling
    the completions, which are the same for all, and the optimizer's step: both would dilute the ratio.
    """
    stocks: dict[str, dict[str, Any]] = {STOCK: {}, STOCK_BETA: {"beta": 0.04}}
    needed = [name for name in stocks if any(OURS[ours][0] == name for ours in names)]
    if isinstance(model, str):
        shown, model = model, known(model)
    else:
        shown = Path(model.path).name
    trainers = {name: build(model, folder, stocks[name], stock=True) for name in needed}
    trainers |= {name: build(model, folder, OURS[name][1], stock=False) for name in names}
    rows, generated = _generation(next(iter(trainers.values())))
    length = max(map(len, generated[1]))
    dtype = next(iter(trainers.values())).model.dtype
    words = f"{shown}, {dtype}, {len(rows)} completions of at most {length} tokens, 4 updates"
    return {name: _cycle(trainer, rows, generated) for name, trainer in trainers.items()}, words


def _generation(trainer: Any) -> tuple[list[dict[str, Any]], tuple[Any, ...]]:
    """The rows of a generation of this process, and completions of them by the trainer's model."""
    rows = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    return rows, trainer._generate([row["prompt"] for row in rows])


def made_cycle(trainer: Any) -> Callable[[], object]:
    """A cycle of one trainer on completions that it samples once, before."""
    return _cycle(trainer, *_generation(trainer))


def _cycle(trainer: Any, rows: list[dict[str, Any]], generated: tuple[Any, ...]) -> Callable[[], object]:
    def run() -> None:
        trainer.model.train()
        trainer._step, trainer._buffered_inputs = 0, None
        trainer._generate = lambda prompts: copy.deepcopy(generated)
        for _ in range(trainer.args.steps_per_generation):
            trainer.model.zero_grad()
            trainer.training_step(trainer.model_wrapped, rows, None)
        trainer.log({})

    return run
