"""The cells of the table: kinds of training, each under every engine, with few and small updates."""

from pathlib import Path

from distributed.jobs import ENGINES, Job

TRAIN_SIZE, HELD_OUT_SIZE, PROBE_SIZE = 40, 7, 5
"""Problems of a training, of a held-out score and of the probe; the last two are shared unevenly by two processes."""

UPDATES_PER_GENERATION = 3

REWARDS = "distributed.stored_rollouts"

COMMON = (
    *("--max_steps", "6", "--save_steps", "4"),  # the first checkpoint lies inside the second generation
    *("--train_size", str(TRAIN_SIZE), "--eval_size", str(HELD_OUT_SIZE), "--probe_size", str(PROBE_SIZE)),
    *("--probe_steps", "0", "--logging_steps", "1", "--warmup_steps", "0", "--report_to", "none"),
    *("--reward_funcs", f"{REWARDS}.right_answer", "--ddp_timeout", "300"),
)

ADAPTER = (
    *("--use_peft", "true", "--lora_r", "8", "--lora_alpha", "16", "--lora_dropout", "0"),
    *("--lora_target_modules", "all-linear"),
)

BASE = ("--divergence", "js", "--divergence_reference", "base")

VARIANTS: dict[str, tuple[str, ...]] = {
    "none": ("--advantage_weighting", "none", "--log_divergence", "true"),
    "k3": ("--divergence", "k3"),
    "js/base": BASE,
    "js/old": ("--divergence", "js", "--divergence_reference", "old"),
    "shuffle": ("--divergence", "k3", "--weight_control", "shuffle", "--normalize_weights", "true"),
    "dynamic": ("--divergence", "k3", "--dynamic_sampling", "true", "--reward_funcs", f"{REWARDS}.right_for_most"),
    "LoRA": (*BASE, *ADAPTER),
    "accumulation": BASE,
    "beta": ("--divergence", "k3", "--beta", "0.04"),
    "checkpointing": (*BASE, "--gradient_checkpointing", "true"),
}
"""Name -> the options of a training beside `COMMON`."""

PADDED = ("--pad_to_multiple_of", "16")
"""Options of the engine `padded`."""

LEARNING_RATE = {"LoRA": "3e-3"}
"""Learning rates other than 3e-4."""

ACCUMULATION = {"accumulation": 2}
"""Backward passes of an update, where there are several."""

DIAGONAL = (
    *(("shuffle", "ddp"), ("dynamic", "ddp"), ("js/old", "ddp")),
    *(("k3", "zero2"), ("accumulation", "zero2"), ("beta", "zero2")),
    *(("LoRA", "zero3"), ("none", "zero3")),
    *(("checkpointing", "fsdp2"), ("js/base", "fsdp2")),
)
"""The cells that every test run looks at: each variant once."""

RESUMED = (("LoRA", "zero3"), ("js/base", "fsdp2"))
"""Those of them that are resumed too."""


def training(variant: str, engine: str, folder: Path, store: Path, *, resumed: bool = False) -> Job:
    """A cell's run, or the run that goes on from its first checkpoint.

    Args:
        variant: One of `VARIANTS`.
        engine: One of `jobs.ENGINES`.
        folder: The folder of all runs.
        store: The stored completions.
        resumed: Whether it goes on.
    """
    accumulated = ACCUMULATION.get(variant, 1)
    micro_steps = UPDATES_PER_GENERATION * accumulated
    batch = (16 if ENGINES[engine] is None else 8) // accumulated
    sizes = ("--per_device_train_batch_size", batch, "--gradient_accumulation_steps", accumulated)
    sizes += ("--steps_per_generation", micro_steps, "--learning_rate", LEARNING_RATE.get(variant, "3e-4"))
    name = f"{variant.replace('/', '_')}-{engine}"
    return Job(
        recipe="grpo_divweighted",
        folder=str(folder / (f"{name}-resumed" if resumed else name)),
        words=(*COMMON, *map(str, sizes), *VARIANTS[variant], *(PADDED if engine == "padded" else ())),
        store=str(store),
        micro_steps=micro_steps,
        resumes=str(folder / name) if resumed else None,
    )
