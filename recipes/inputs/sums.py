"""Few-shot sums for a small pretrained model: seeded, with gold answers, and no problem in both splits."""

import random

from datasets import Dataset

SUM_SPLITS = ("train", "eval")
EXAMPLES = ((21, 14), (7, 25))
"""The sums that every prompt shows with their answers."""


def sum_line(a: int, b: int, answer: bool) -> str:
    """A sum as it stands in the prompts: the question, and after it the correct answer if `answer`."""
    return f"Q: {a} + {b} = ?\nA:" + (f" {a} + {b} = {a + b}. The answer is \\boxed{{{a + b}}}.\n" if answer else "")


def sums_dataset(split: str, size: int, seed: int = 0, largest: int = 50) -> Dataset:
    """`size` different sums of numbers up to `largest`, with columns `prompt`, `solution`, `problem_id`.

    Raises:
        ValueError: for an unknown split, or a size that the split does not hold.
    """
    if split not in SUM_SPLITS:
        raise ValueError(f"split={split!r} is not known; choose one of {', '.join(SUM_SPLITS)}.")
    pairs = [(a, b) for a in range(1, largest + 1) for b in range(1, largest + 1)]
    random.Random("sums").shuffle(pairs)
    cut = len(pairs) * 4 // 5
    pool = pairs[:cut] if split == "train" else pairs[cut:]
    if not 0 < size <= len(pool):
        raise ValueError(f"size={size} is not possible; the sums' {split!r} split holds 1 to {len(pool)} problems.")
    shots = "".join(sum_line(a, b, answer=True) for a, b in EXAMPLES)
    return Dataset.from_list(
        [
            {"prompt": shots + sum_line(a, b, answer=False), "solution": str(a + b), "problem_id": f"{a}+{b}"}
            for a, b in random.Random(f"{split}-{seed}").sample(pool, size)
        ]
    )
