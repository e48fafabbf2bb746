"""Pocket's problems: seeded arithmetic questions with gold answers, in three splits that never share a question.

Three kinds: `add` (`47+38`), `sub` (`82-47`, never negative) and `muladd` (`7*8+35`). Which split a question belongs
to is a hash of its text, so the splits are disjoint for every seed and size.
"""

import hashlib
import itertools
import random
from collections.abc import Iterator
from functools import cache

from datasets import Dataset

KINDS = ("add", "sub", "muladd")
SPLITS = ("train", "eval", "analysis")
_SHARES = (0.6, 0.8, 1.0)  # upper ends of the splits' ranges in [0, 1)

Operands = tuple[int, ...]


def question(kind: str, numbers: Operands) -> str:
    """The question's text, for example `47+38`."""
    if kind == "muladd":
        return f"{numbers[0]}*{numbers[1]}+{numbers[2]}"
    return f"{numbers[0]}{'+' if kind == 'add' else '-'}{numbers[1]}"


def answer(kind: str, numbers: Operands) -> int:
    """The gold answer."""
    if kind == "muladd":
        return numbers[0] * numbers[1] + numbers[2]
    return numbers[0] + numbers[1] if kind == "add" else numbers[0] - numbers[1]


def prompt(text: str) -> str:
    """The prompt that the model is given for a question's text."""
    return f"Q: {text}=?\nA: "


def split_of(text: str) -> str:
    """The split that a question's text belongs to: 60 % train, 20 % eval, 20 % analysis."""
    share = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
    return next(name for name, end in zip(SPLITS, _SHARES, strict=True) if share < end)


def _all_numbers(kind: str) -> Iterator[Operands]:
    two_digits = range(10, 100)
    if kind == "muladd":
        return itertools.product(range(3, 10), range(3, 10), two_digits)
    pairs = itertools.product(two_digits, two_digits)
    return pairs if kind == "add" else (pair for pair in pairs if pair[0] >= pair[1])


@cache
def pool(kind: str, split: str) -> tuple[Operands, ...]:
    """Every question of a kind in a split, in a fixed order."""
    return tuple(numbers for numbers in _all_numbers(kind) if split_of(question(kind, numbers)) == split)


def pocket_dataset(split: str, size: int, seed: int = 0) -> Dataset:
    """`size` different questions of a split, the kinds in turn, with columns `prompt`, `solution`, `kind`,
    `problem_id`.

    Raises:
        ValueError: for an unknown split, or a size that the split does not hold.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is not known; choose one of {', '.join(SPLITS)}.")
    most = min(len(pool(kind, split)) for kind in KINDS) * len(KINDS)
    if not 0 < size <= most:
        raise ValueError(f"size={size} is not possible; pocket's {split!r} split holds 1 to {most} problems.")
    rng = random.Random(f"{split}-{seed}")
    drawn = {kind: rng.sample(pool(kind, split), -(-size // len(KINDS))) for kind in KINDS}
    chosen = [(kind, drawn[kind][index // len(KINDS)]) for index, kind in zip(range(size), itertools.cycle(KINDS))]
    return Dataset.from_list(
        [
            {
                "prompt": prompt(question(kind, numbers)),
                "solution": str(answer(kind, numbers)),
                "kind": kind,
                "problem_id": question(kind, numbers),
            }
            for kind, numbers in chosen
        ]
    )
