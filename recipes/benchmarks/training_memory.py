"""Resident memory and time of a training with a divergence of whole distributions, at three sizes of a generation.

Each measurement is a process of its own: what it had when the imports were done is taken off its peak. The model is
random and small beside its hidden states, which are what is measured; completions are random, of every length up to
the longest, so that nothing is sampled.

    python -m tokenshift.recipes.benchmarks.training_memory                     # the base as reference, kept
    python -m tokenshift.recipes.benchmarks.training_memory '{"reference_cache_gib": 0}'
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES = {"small": (32, 256), "medium": (64, 512), "large": (96, 768)}
"""Completions of a generation and tokens of the longest, by the name of a size."""

HIDDEN = 1024
MICRO_BATCH = 4


def peak_mib() -> float:
    """The largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux


def measure(size: str, settings: dict[str, Any]) -> dict[str, float]:
    """Peak in MiB and seconds of a generation and two updates, in this process.

    Args:
        size: one of `SIZES`.
        settings: fields of the config.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tokenshift.recipes.pocket.make_base import make_tokenizer
    from tokenshift.recipes.pocket.problems import pocket_dataset
    from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer

    rows, length = SIZES[size]
    tokenizer, generator = make_tokenizer(), random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN,
            intermediate_size=HIDDEN,
            num_hidden_layers=1,
            num_attention_heads=8,
            num_key_value_heads=8,
            max_position_embeddings=2 * length,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        args = DivergenceGRPOConfig(
            output_dir=str(Path(folder) / "out"),
            per_device_train_batch_size=MICRO_BATCH,
            num_generations=8,
            steps_per_generation=rows // MICRO_BATCH,
            max_completion_length=length,
            max_steps=2,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            **{"divergence": "js", "divergence_reference": "base", **settings},
        )
        trainer: Any = DivergenceGRPOTrainer(
            model=folder,
            args=args,
            reward_funcs=lambda completion_ids, **columns: [float(len(ids)) for ids in completion_ids],
            train_dataset=pocket_dataset("train", 64),
        )
        answers = [
            [generator.randrange(3, len(tokenizer)) for _ in range(1 + (length - 1) * index // (rows - 1))]
            for index in range(rows)
        ]
        generator.shuffle(answers)
        trainer._generate_single_turn = lambda *given, **more: ([list(answer) for answer in answers], None)
        before = peak_mib()
        start = time.perf_counter()
        trainer.train()
        return {"peak": peak_mib() - before, "seconds": time.perf_counter() - start}


def main() -> None:
    """Print one line per size; with a size and settings as JSON, measure in this process."""
    words = sys.argv[1:]
    if words and words[0] in SIZES:
        print(json.dumps(measure(words[0], json.loads(words[1]))))
        return
    settings = words[0] if words else "{}"
    for size, (rows, length) in SIZES.items():
        command = [sys.executable, "-m", "tokenshift.recipes.benchmarks.training_memory", size, settings]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr[-2000:])
        result = json.loads(done.stdout.splitlines()[-1])
        padded = rows * length * HIDDEN * 4 / 2**20
        print(
            f"{size}: {rows} completions of at most {length} tokens, {padded:.0f} MiB of states with padding: "
            f"peak {result['peak']:.0f} MiB, {result['seconds']:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
